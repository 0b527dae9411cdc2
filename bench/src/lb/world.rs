//! The machines: a client, a balancer, and servers.
//!
//! ```text
//! client ── c0 198.18.0.1 ═══ b0 198.18.0.254 ── balancer ── b1 10.1.255.254 ═══ s0 10.1.0.1 … ── servers
//! 20.0.0.0/16 local                              VIP 10.0.0.1                    each address a server
//! ```

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net};

use super::netns::{ip, sysctl, within};
use super::offload::take_redirected;

pub(super) const CLIENT: &str = "client";
pub(super) const BALANCER: &str = "balancer";
pub(super) const SERVERS: &str = "servers";

/// The VIP that clients connect to.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Its port, and the servers'.
pub(super) const PORT: u16 = 5001;

/// Ethernet addresses.
pub(super) struct Macs {
    pub(super) balancer: [u8; 6],
    pub(super) client: [u8; 6],
    servers: [u8; 6],
}

pub(super) const MACS: Macs = Macs {
    balancer: [2, 0, 0, 0, 0xb, 0],
    client: [2, 0, 0, 0, 0xc, 0],
    servers: [2, 0, 0, 0, 0xd, 0],
};

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Longest wait for the servers to listen.
const PATIENCE: Duration = Duration::from_secs(20);

const FIRST_SERVER: u32 = Ipv4Addr::new(10, 1, 0, 1).to_bits();

/// The machines, and the servers' program. Dropped, both end.
pub(super) struct World {
    servers: u32,
    serving: Child,
}

impl World {
    pub(super) fn make(carrick: &Path, servers: u32) -> Result<Self> {
        ip(&format!(
            "netns add {CLIENT}\nnetns add {BALANCER}\nnetns add {SERVERS}\n"
        ))?;
        within(BALANCER, || {
            let [b0, c0, s0] = [MACS.balancer, MACS.client, MACS.servers].map(text);
            let mut batch = format!(
                "link set lo up\n\
                 link add b0 address {b0} type veth peer name c0 address {c0} netns {CLIENT}\n\
                 link add b1 type veth peer name s0 address {s0} netns {SERVERS}\n\
                 address add 198.18.0.254/24 dev b0\n\
                 address add 10.1.255.254/16 dev b1\n\
                 link set b0 up\n\
                 link set b1 up\n\
                 neighbor add 198.18.0.1 dev b0 lladdr {c0}\n\
                 route add {} via 198.18.0.1\n",
                sources()
            );
            // Known, so that no packet waits for an answer.
            for server in addresses(servers) {
                writeln!(batch, "neighbor add {server} dev b1 lladdr {s0}")?;
            }
            ip(&batch)?;
            sysctl("net.ipv4.ip_forward", "1")?;
            loose()
        })?;
        within(CLIENT, || {
            ip(&format!(
                "link set lo up\n\
                 address add 198.18.0.1/24 dev c0\n\
                 link set c0 up\n\
                 route add default via 198.18.0.254\n\
                 route add local {} dev lo\n",
                sources()
            ))?;
            take_redirected("c0")?;
            loose()
        })?;
        within(SERVERS, || {
            let mut batch = String::from("link set lo up\nlink set s0 up\n");
            for server in addresses(servers) {
                writeln!(batch, "address add {server}/16 dev s0")?;
            }
            writeln!(batch, "route add default via 10.1.255.254")?;
            ip(&batch)?;
            take_redirected("s0")?;
            loose()
        })?;
        let mut command = Command::new(carrick);
        command
            .args([
                "traffic",
                "server",
                "--quiet",
                "--name-by-address",
                "--transport",
                "tcp",
            ])
            .args(["--listen", &format!("0.0.0.0:{PORT}")])
            .stdin(Stdio::null());
        // A process of its own, since each may have only so many sockets.
        let serving = within(SERVERS, || {
            command.spawn().context("cannot start the servers")
        })?;
        let mut world = Self { servers, serving };
        world.wait()?;
        Ok(world)
    }

    /// Waits until the servers listen.
    fn wait(&mut self) -> Result<()> {
        let begin = Instant::now();
        let first = (Ipv4Addr::from_bits(FIRST_SERVER), PORT);
        while within(SERVERS, || Ok(TcpStream::connect(first).is_err()))? {
            if let Some(status) = self.serving.try_wait()? {
                bail!("the servers ended ({status})");
            }
            ensure!(begin.elapsed() < PATIENCE, "the servers do not listen");
            super::rest(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The servers' addresses.
    pub(super) fn servers(&self) -> impl ExactSizeIterator<Item = Ipv4Addr> + use<> {
        addresses(self.servers)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.serving.kill();
        let _ = self.serving.wait();
        let _ = ip(&format!(
            "netns delete {CLIENT}\nnetns delete {BALANCER}\nnetns delete {SERVERS}\n"
        ));
    }
}

fn addresses(servers: u32) -> impl ExactSizeIterator<Item = Ipv4Addr> + use<> {
    let last = FIRST_SERVER + servers;
    (FIRST_SERVER..last)
        .map(Ipv4Addr::from_bits)
        .collect::<Vec<_>>()
        .into_iter()
}

/// Where clients come from.
pub(super) fn sources() -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::new(20, 0, 0, 0), 16).into()
}

/// Where clients connect to.
pub(super) fn target() -> SocketAddr {
    (VIP, PORT).into()
}

/// Packets may come back another way than they went.
fn loose() -> Result<()> {
    for interface in ["all", "default"] {
        sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "0")?;
    }
    Ok(())
}
