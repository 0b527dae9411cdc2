//! What this node and process can balance, mode by mode, found out by trying.
//!
//! Read first: [`preflight`]. Trying changes nothing: the packet programs are
//! loaded and not attached, and tables are taken back in the transaction that
//! makes them.

use carrick_types::Vni;

use crate::dataplane::Error;
use crate::kernel::{Hook, Program};
use crate::nft;
use crate::service::{Mode, Snat};
use crate::tables::Sizes;

/// A mode, and which data planes can do it here.
#[derive(Debug)]
pub struct Ability {
    /// The mode's name, such as `nat`.
    pub mode: &'static str,
    /// What it is good for.
    pub purpose: &'static str,
    /// The data planes, the better first.
    pub ways: Vec<Way>,
}

/// A data plane for a mode.
#[derive(Debug)]
pub struct Way {
    /// The data plane's name.
    pub plane: &'static str,
    /// What is in its way, and where it helps what would change it; `None`
    /// if it can do the mode.
    pub missing: Option<String>,
}

impl Ability {
    /// Whether any data plane can do it.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.ways.iter().any(|way| way.missing.is_none())
    }
}

/// Tries every mode with every data plane, in the calling thread's network
/// namespace. Takes some hundred milliseconds; blocks.
#[must_use]
pub fn preflight() -> Vec<Ability> {
    let programs = programs().map_err(|e| sentence(&e, "CAP_BPF and CAP_NET_ADMIN"));
    let ways = |mode: &Mode| {
        let tables = nft::preflight(mode).map_err(|e| sentence(&e, "CAP_NET_ADMIN"));
        let way = |plane, tried: Result<(), String>| Way {
            plane,
            missing: tried.err(),
        };
        // A program that does one mode does them all.
        vec![way("ebpf", programs.clone()), way("nftables", tables)]
    };
    modes()
        .into_iter()
        .map(|(mode, purpose)| Ability {
            mode: mode.name(),
            purpose,
            ways: ways(&mode),
        })
        .collect()
}

/// What is in the way, in a sentence for those who run things.
fn sentence(error: &Error, capabilities: &str) -> String {
    let Error::Access { what, source } = error else {
        return match error {
            Error::Unsupported { why, .. } => why.clone(),
            other => other.to_string(),
        };
    };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
    let mut last = String::new();
    while let Some(error) = cause {
        if is_refusal(error) {
            return format!("failed to {what}: the process needs {capabilities}");
        }
        // The first line: a verifier's log is for those who debug.
        let text = error.to_string();
        text.lines()
            .next()
            .unwrap_or_default()
            .clone_into(&mut last);
        cause = error.source();
    }
    format!("failed to {what}: {last}")
}

fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    let netlink = error.downcast_ref::<nlink::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
        || netlink.is_some_and(nlink::Error::is_permission_denied)
}

/// Loads the packet programs, each of which does every mode.
fn programs() -> Result<(), Error> {
    let at_interface = Program::load(Hook::Xdp, Sizes::small());
    // Either suffices.
    match at_interface {
        Ok(_) => Ok(()),
        Err(error) => Program::load(Hook::Tc, Sizes::small())
            .map(drop)
            .map_err(|_| error),
    }
}

fn modes() -> [(Mode, &'static str); 7] {
    let vni = Vni::new(1).expect("1 is an identifier");
    [
        (Mode::Gre, "servers anywhere, direct return"),
        (
            Mode::Gue { port: 6080 },
            "servers anywhere, direct return, spread by routers",
        ),
        (
            Mode::Ipip,
            "servers anywhere, direct return, least overhead",
        ),
        (Mode::L2, "servers on the same link, direct return"),
        (
            Mode::L3Dsr { dscp: Vec::new() },
            "servers anywhere, direct return, no overhead",
        ),
        (
            Mode::Nat { snat: Snat::Never },
            "servers that know nothing of it, other ports",
        ),
        (
            Mode::Vxlan { vni, port: 4789 },
            "servers of an overlay, direct return",
        ),
    ]
}
