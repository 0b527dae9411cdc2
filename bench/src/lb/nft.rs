//! The kernel's own balancing: nftables rules as cluster networks write them.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::Result;

use super::netns::{command, within};
use super::world::{BALANCER, PORT, VIP};

/// How nftables chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// A hash over the client's address and port.
    Hash,
    /// Each in turn.
    InTurn,
    /// A random number for each connection.
    Random,
}

/// Rules of the balancer; removed when dropped.
pub(super) struct Rules(());

impl Rules {
    /// DNAT of connections to the VIP.
    pub(super) fn install(
        choice: Choice,
        servers: impl ExactSizeIterator<Item = Ipv4Addr>,
    ) -> Result<Self> {
        let count = servers.len();
        let chosen = match choice {
            Choice::Hash => format!("jhash ip saddr . th sport mod {count} seed 0x5eed"),
            Choice::InTurn => format!("numgen inc mod {count}"),
            Choice::Random => format!("numgen random mod {count}"),
        };
        let mut map = String::new();
        for (number, server) in servers.enumerate() {
            write!(map, "{number} : {server}, ")?;
        }
        let rules = format!(
            "table ip bench {{\n\
             chain prerouting {{\n\
             type nat hook prerouting priority -100; policy accept;\n\
             ip daddr {VIP} meta l4proto {{ tcp, udp }} th dport {PORT} dnat to {chosen} map {{ {map} }}\n\
             }}\n\
             }}\n"
        );
        within(BALANCER, || command("nft", &["-f", "-"], &rules))?;
        Ok(Self(()))
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let _ = within(BALANCER, || {
            command("nft", &["delete", "table", "ip", "bench"], "")
        });
    }
}
