//! The application server's side: VIPs on loopback, packets unwrapped.

mod host;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use carrick_lb::config::Config;
use carrick_lb::service::{Mode, Vni};
use carrick_lb::unwrap::{Settings, Unwrap};
use carrick_lifecycle::{Lifecycle, Outcome, UnixSignals};
use carrick_types::{IfName, IpNet};
use tracing::info;

use self::host::Host;
use super::privileges;
use crate::programs::{common, with_telemetry};

/// What `carrick lb server` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The interface by which the balancer's packets arrive; may be repeated.
    #[arg(long, value_name = "NAME", required = true)]
    interface: Vec<String>,
    /// The balancer's file, for its VIPs, modes and ports.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serve this service of the file only; may be repeated.
    #[arg(long, value_name = "NAME", requires = "config")]
    service: Vec<String>,
    /// The server's id in the file; with it only services that have it are served.
    #[arg(long, value_name = "ID", requires = "config")]
    id: Option<String>,
    /// A VIP to hold, an address or a prefix; may be repeated.
    #[arg(long, value_name = "PREFIX", value_parser = vip, required_unless_present = "config")]
    vip: Vec<IpNet>,
    /// How packets for `--vip` arrive: l2, ipip, gre, gue, gue:PORT, vxlan or vxlan:PORT; may be repeated.
    #[arg(long, value_name = "MODE", value_parser = mode, default_value = "l2")]
    mode: Vec<Mode>,
}

const CEILING: Duration = Duration::from_secs(10);

fn vip(text: &str) -> Result<IpNet, String> {
    let address = text
        .parse()
        .map(|address: std::net::IpAddr| IpNet::from(address));
    let vip = address.or_else(|_| text.parse());
    vip.map(|vip: IpNet| vip.trunc())
        .map_err(|_| "an address or a prefix, such as 10.0.0.1 or 10.2.2.0/24".to_owned())
}

fn mode(text: &str) -> Result<Mode, String> {
    let expected = || "one of l2, ipip, gre, gue[:PORT], vxlan[:PORT]".to_owned();
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().map_err(|_| expected())?)),
        None => (text, None),
    };
    match (name, port) {
        ("l2", None) => Ok(Mode::L2),
        ("ipip", None) => Ok(Mode::Ipip),
        ("gre", None) => Ok(Mode::Gre),
        ("gue", port) => Ok(Mode::Gue {
            port: port.unwrap_or(6080),
        }),
        ("vxlan", port) => Ok(Mode::Vxlan {
            // Any network is taken: the VIP decides.
            vni: Vni::new(1).map_err(|_| expected())?,
            port: port.unwrap_or(4789),
        }),
        _ => Err(expected()),
    }
}

/// What a server holds and takes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Served {
    vips: Vec<IpNet>,
    settings: Settings,
}

impl Served {
    fn of(args: &Args) -> Result<Self> {
        let mut served = Self::default();
        for mode in &args.mode {
            served.add(mode, &args.vip, None)?;
        }
        let Some(path) = &args.config else {
            return Ok(served);
        };
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let config =
            Config::read(&text).with_context(|| format!("cannot use {}", path.display()))?;
        for service in config.wanted.services() {
            let asked = args.service.is_empty()
                || args
                    .service
                    .iter()
                    .any(|name| name == service.name.as_str());
            let own_entry = args
                .id
                .as_ref()
                .map(|id| service.servers.iter().find(|one| one.id.as_str() == id));
            // NAT asks nothing of a server.
            if !asked || matches!(own_entry, Some(None)) || matches!(service.mode, Mode::Nat { .. })
            {
                continue;
            }
            let vips: Vec<_> = service.vips.iter().map(|vip| vip.prefix).collect();
            let own = own_entry.flatten().map(|server| server.address);
            if matches!(service.mode, Mode::L3Dsr { .. }) && own.is_none() {
                bail!(
                    "service {} needs the server's address: name it with --id",
                    service.name
                );
            }
            served.add(&service.mode, &vips, own)?;
        }
        if served.vips.is_empty() {
            bail!("nothing to serve: no VIP is given, and no service of the file matches");
        }
        Ok(served)
    }

    fn add(&mut self, mode: &Mode, vips: &[IpNet], own: Option<std::net::IpAddr>) -> Result<()> {
        self.settings.add(mode, vips.iter().copied(), own)?;
        for vip in vips {
            if !self.vips.contains(vip) {
                self.vips.push(*vip);
            }
        }
        Ok(())
    }
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let served = Served::of(&args)?;
    for interface in &args.interface {
        IfName::new(interface)?;
    }
    privileges::require("carrick lb server")?;
    with_telemetry(common("lb-server"), serve(args, served)).await
}

async fn serve(args: Args, served: Served) -> Result<Outcome> {
    let signals = UnixSignals::new().context("cannot receive signals")?;
    let mut lifecycle = Lifecycle::new(CEILING);
    let stage = lifecycle.subsystem("server", Duration::from_secs(5));
    let mut host = Host::open()?;
    let made = make(&args, &served, &mut host).await;
    let (unwrap, failed) = match made {
        Ok(unwrap) => (unwrap, None),
        Err(error) => (None, Some(error)),
    };
    stage.at_shutdown("host", async move {
        drop(unwrap);
        let restored = host.restore().await;
        restored.map_err(|error| io::Error::other(format!("{error:#}")))
    });
    if let Some(error) = failed {
        lifecycle.drain_in_order(signals).await;
        return Err(error);
    }
    info!(vips = ?served.vips, interfaces = ?args.interface, "serving");
    Ok(lifecycle.run(signals).await)
}

async fn make(args: &Args, served: &Served, host: &mut Host) -> Result<Option<Unwrap>> {
    // Packets must not arrive unwrapped before somebody holds the VIP.
    host.hold(&served.vips).await?;
    for interface in &args.interface {
        host.tune(interface)?;
    }
    if served.settings.is_empty() {
        return Ok(None);
    }
    let unwrap = Unwrap::attach(&served.settings, &args.interface);
    unwrap.context("cannot unwrap packets").map(Some)
}

/// Removes what a killed server of this network namespace left.
pub(super) async fn remove() -> Result<()> {
    Host::open()?.restore().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_vips_are_read() {
        assert_eq!(mode("gue:7000"), Ok(Mode::Gue { port: 7000 }));
        assert_eq!(mode("ipip"), Ok(Mode::Ipip));
        assert!(mode("nat").is_err() && mode("l2:5").is_err() && mode("gue:x").is_err());
        assert_eq!(vip("10.2.2.7/24").unwrap().to_string(), "10.2.2.0/24");
        assert_eq!(vip("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
        assert!(vip("x").is_err());
    }

    #[test]
    fn a_server_serves_what_the_file_gives_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lb.yaml");
        let text = "
services:
  - { name: a, vips: [10.0.0.1], mode: ipip, servers: [{ id: x, address: 192.0.2.1 }] }
  - { name: b, vips: [10.0.0.2], mode: gre, servers: [{ id: y, address: 192.0.2.2 }] }
  - { name: c, vips: [10.0.0.3], mode: nat, servers: [{ id: x, address: 192.0.2.1 }] }
";
        std::fs::write(&path, text).unwrap();
        let args = |id: Option<&str>| Args {
            interface: vec!["eth0".to_owned()],
            config: Some(path.clone()),
            service: Vec::new(),
            id: id.map(str::to_owned),
            vip: Vec::new(),
            mode: vec![Mode::L2],
        };
        let vips = |id| Served::of(&args(id)).unwrap().vips.len();
        assert_eq!((vips(None), vips(Some("x"))), (2, 1));
        assert!(Served::of(&args(Some("nobody"))).is_err());
    }
}
