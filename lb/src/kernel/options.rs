use std::fs;
use std::path::{Path, PathBuf};

use super::{Attachment, Hook, Program};
use crate::config::{self, Balancer};
use crate::dataplane::Error;
use crate::tables::Sizes;

/// What the eBPF data plane is opened with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the program runs.
    pub attach: Vec<Attachment>,
    /// A directory of a BPF file system, in which program links and tables
    /// outlive the process. Without one, all is gone with the process.
    pub pins: Option<PathBuf>,
    /// How large the tables are, unless there are pinned ones.
    pub sizes: Sizes,
    /// New flows per second and CPU that are remembered; `None` is no limit.
    pub flow_rate: Option<u32>,
    /// Largest packet on the way to the servers; `None` takes the route's MTU.
    pub mtu: Option<u16>,
    /// Whether new flows are written to the journal, for other balancers.
    pub journal: bool,
}

impl Options {
    /// As a balancer's settings ask.
    ///
    /// # Errors
    ///
    /// [`Error::Access`]: the number of CPUs cannot be read.
    pub fn of(balancer: &Balancer) -> Result<Self, Error> {
        let sizes = Program::sizes_here(balancer.flows, balancer.nat_flows)?;
        let attach = balancer.interfaces.iter().flat_map(|interface| {
            let interface = interface.to_string();
            let hook = match balancer.hook {
                config::Hook::Tc => Hook::Tc,
                config::Hook::Xdp => Hook::Xdp,
                config::Hook::Auto => hook_for(&interface),
            };
            [hook, Hook::TcEgress].map(|hook| Attachment {
                interface: interface.clone(),
                hook,
            })
        });
        Ok(Self {
            attach: attach.collect(),
            pins: Some(Self::pins_of(&balancer.name)),
            sizes,
            flow_rate: balancer.flow_rate,
            mtu: balancer.mtu,
            journal: balancer.journal.is_some(),
        })
    }

    /// Where the balancer of a name keeps its pins.
    #[must_use]
    pub fn pins_of(name: &str) -> PathBuf {
        Path::new("/sys/fs/bpf").join(format!("carrick-lb-{name}"))
    }
}

/// XDP on a network card, TC on what is virtual: veth loses checksums that are
/// still to be made, and cuts large segments, when XDP takes its frames.
fn hook_for(interface: &str) -> Hook {
    let card = Path::new("/sys/class/net").join(interface).join("device");
    if fs::exists(card).unwrap_or(false) {
        Hook::Xdp
    } else {
        Hook::Tc
    }
}
