use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use carrick_agent::Netns;
use carrick_types::{Mechanism, Mtu};

/// What an endpoint knows of the node it runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Name of the node. Network namespaces have a meaning within it only, so
    /// a `KERNEL` offer from another node is passed over.
    pub node: String,
    /// Who owns the links in the agent's eyes: the endpoint's name.
    pub owner: String,
    /// The namespace in which the links of the service meet.
    pub router: Netns,
    /// The underlay address for tunnels; without one there are no links to other nodes.
    pub underlay: Option<IpAddr>,
    /// Largest packet of the underlay.
    pub underlay_mtu: Mtu,
    /// UDP port of VXLAN (RFC 7348: 4789).
    pub vxlan_port: u16,
}

impl Site {
    /// Whether a namespace is the router, by whichever of its names.
    pub(crate) fn is_router(&self, netns: &Netns) -> bool {
        let router = identity(&self.router);
        self.is_named_as_router(netns) || (router.is_some() && identity(netns) == router)
    }

    fn is_named_as_router(&self, netns: &Netns) -> bool {
        let Netns::Path(path) = netns else {
            return *netns == self.router;
        };
        match &self.router {
            Netns::Named(name) => ["/run/netns", "/var/run/netns"]
                .iter()
                .any(|pinned| *path == Path::new(pinned).join(name)),
            Netns::Own => is_own(path),
            Netns::Path(router) => path == router || (is_own(path) && is_own(router)),
            Netns::Inode(..) => false,
        }
    }

    /// Largest packet that a link of this mechanism carries.
    pub(crate) fn mtu_of(&self, mechanism: &Mechanism) -> Mtu {
        use carrick_types::MechanismType::Vxlan;

        match (&mechanism.kind, self.underlay) {
            (Vxlan, Some(IpAddr::V6(_))) => self.underlay_mtu.less(Mtu::VXLAN_OVERHEAD_V6),
            (Vxlan, _) => self.underlay_mtu.less(Mtu::VXLAN_OVERHEAD_V4),
            _ => Mtu::JUMBO,
        }
    }
}

/// Device and inode of a namespace, as far as this process sees it.
fn identity(netns: &Netns) -> Option<(u64, u64)> {
    let of = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    match netns {
        Netns::Inode(device, inode) => Some((*device, *inode)),
        Netns::Named(name) => of(&Path::new("/run/netns").join(name)),
        Netns::Own => of(Path::new("/proc/self/ns/net")),
        Netns::Path(path) => of(path),
    }
}

/// Whether a path names this process's namespace.
fn is_own(path: &Path) -> bool {
    let own = format!("/proc/{}", std::process::id());
    path.starts_with(own) && path.ends_with("ns/net")
}
