use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, interval};

use super::netns::{command, within};
use super::probe;

pub(super) const CLIENT: &str = "client";
pub(super) const SERVER: &str = "server";
const ROUTER: &str = "router";

/// Longest wait for a way to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// The namespaces with both ways between them, and the programs of one of them.
pub(super) struct World {
    /// The server's address by way of the endpoint.
    pub(super) endpoint: Ipv4Addr,
    /// Its address by plain routing.
    pub(super) plain: Ipv4Addr,
    _programs: [Child; 3],
    _dir: TempDir,
}

impl World {
    pub(super) async fn make(carrick: &Path) -> Result<Self> {
        // A `/run` of its own, so that no name of a namespace is seen outside.
        command("mount -t tmpfs tmpfs /run")?;
        for name in [CLIENT, ROUTER, SERVER] {
            command(&format!("ip netns add {name}"))?;
            command(&format!("ip -n {name} link set lo up"))?;
        }
        let dir = tempfile::tempdir()?;
        let program = |netns: &str, kind: &str, name: &str, env: &[(&str, &str)]| {
            let mut command = Command::new(carrick);
            command
                .arg(kind)
                .env_clear()
                .env("NSM_NAME", name)
                .env("NSM_LOG_LEVEL", "WARN")
                .envs(env.iter().copied())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .kill_on_drop(true);
            let runtime = tokio::runtime::Handle::current();
            let spawn = move || {
                let _runtime = runtime.enter();
                command.spawn().context("cannot start carrick")
            };
            within(netns, spawn)
        };
        let socket = format!("unix://{}", dir.path().join("sock").display());
        let state = dir.path().display().to_string();
        let of_endpoint = [
            ("NSM_SERVICE_NAMES", "vl3"),
            ("NSM_LISTEN_ON", socket.as_str()),
            ("CARRICK_PREFIXES", "10.60.0.0/24"),
            ("CARRICK_ROUTER", "own"),
            ("CARRICK_STATE_DIR", state.as_str()),
        ];
        let of_client = [
            ("NSM_CONNECT_TO", socket.as_str()),
            ("NSM_NETWORK_SERVICES", "kernel://vl3/nsm0"),
            ("NSM_LIVENESS_CHECK_ENABLED", "false"),
        ];
        let nse = program(ROUTER, "nse", "nse", &of_endpoint)?;
        // The first client of a fresh endpoint has the first address.
        let endpoint = Ipv4Addr::new(10, 60, 0, 1);
        let server = program(SERVER, "nsc", "server", &of_client)?;
        wait("the server's link", || is_up(SERVER)).await?;
        let client = program(CLIENT, "nsc", "client", &of_client)?;
        wait("the client's link", || is_up(CLIENT)).await?;
        let plain = plain(&mtu(CLIENT)?)?;
        for address in [endpoint, plain] {
            let answers = || probe::ping(address, 1).is_ok();
            wait("an answer to a ping", answers).await?;
        }
        Ok(Self {
            endpoint,
            plain,
            _programs: [nse, server, client],
            _dir: dir,
        })
    }
}

/// Waits until `is_there`.
async fn wait(what: &str, is_there: impl Fn() -> bool) -> Result<()> {
    let (begin, mut tick) = (Instant::now(), interval(Duration::from_millis(20)));
    while !is_there() {
        if begin.elapsed() > PATIENCE {
            bail!("{what} is missing after {} s", PATIENCE.as_secs());
        }
        tick.tick().await;
    }
    Ok(())
}

fn is_up(netns: &str) -> bool {
    let shown = command(&format!("ip -n {netns} -4 -o address show dev nsm0"));
    shown.is_ok_and(|shown| shown.contains("inet "))
}

/// The size of packets on the endpoint's link.
fn mtu(netns: &str) -> Result<String> {
    let shown = command(&format!("ip -n {netns} -o link show dev nsm0"))?;
    let mut words = shown.split_whitespace().skip_while(|word| *word != "mtu");
    let mtu = words.nth(1).context("the link has no MTU")?;
    ensure!(mtu.bytes().all(|b| b.is_ascii_digit()), "the MTU is {mtu}");
    Ok(mtu.to_owned())
}

/// Plain routing between the same namespaces: one pair of devices for each end, with packets of the same size.
fn plain(mtu: &str) -> Result<Ipv4Addr> {
    for (netns, number) in [(CLIENT, 1), (SERVER, 2)] {
        let net = format!("10.61.{number}");
        for line in [
            format!(
                "-n {netns} link add plain0 mtu {mtu} type veth peer name plain{number} mtu {mtu} netns {ROUTER}"
            ),
            format!("-n {netns} address add {net}.1/24 dev plain0"),
            format!("-n {netns} link set plain0 up"),
            format!("-n {ROUTER} address add {net}.254/24 dev plain{number}"),
            format!("-n {ROUTER} link set plain{number} up"),
            format!("-n {netns} route add 10.61.0.0/16 via {net}.254"),
        ] {
            command(&format!("ip {line}"))?;
        }
    }
    command(&format!(
        "ip netns exec {ROUTER} sysctl -qw net.ipv4.ip_forward=1"
    ))?;
    Ok(Ipv4Addr::new(10, 61, 2, 1))
}
