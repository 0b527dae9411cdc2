//! What nftables cannot do.

use super::layout::Ip;
use super::session::forwards;
use crate::dataplane::Error;
use crate::service::{Mode, Policy, Service};

/// Something a service asks for that nftables cannot do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The mode, policy or setting.
    pub what: String,
    /// The reason.
    pub why: &'static str,
}

/// Everything a service asks for that nftables cannot do; nothing if it can.
#[must_use]
pub fn unsupported(service: &Service) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut refuse = |what: String, why: Option<&'static str>| {
        refusals.extend(why.map(|why| Refusal { what, why }));
    };
    refuse(
        format!("mode {} by nftables", service.mode.name()),
        mode(&service.mode),
    );
    refuse(
        format!("policy {} by nftables", service.policy.name()),
        policy(service.policy),
    );
    for server in &service.servers {
        let why = "packets are sent to neighbours by the kernel's own neighbour table; \
                   leave `mac` out, or use the ebpf data plane";
        let what = format!("an Ethernet address for server {} by nftables", server.id);
        refuse(what, server.mac.map(|_| why));
    }
    refusals
}

/// Why a mode is not possible, if it is not.
pub(super) fn mode(mode: &Mode) -> Option<&'static str> {
    match mode {
        Mode::Gre | Mode::Gue { .. } | Mode::Ipip | Mode::Vxlan { .. } => Some(
            "no expression of nftables puts a packet into another one; use the ebpf data plane, \
             which needs CAP_BPF",
        ),
        Mode::L2 | Mode::L3Dsr { .. } | Mode::Nat { .. } => None,
    }
}

/// Why a policy is not possible, if it is not.
pub(super) fn policy(policy: Policy) -> Option<&'static str> {
    match policy {
        Policy::BoundedLoad { .. } | Policy::LeastConnections | Policy::Spill { .. } => Some(
            "no expression of nftables compares the loads of two servers; use \
             weighted-round-robin, maglev or source-hash, or the ebpf data plane",
        ),
        Policy::Maglev { .. } | Policy::SourceHash { .. } | Policy::WeightedRoundRobin => None,
    }
}

/// NAT and L3DSR are sent on by the kernel's own forwarding.
pub(super) fn forwarding(service: &Service) -> Result<(), Error> {
    if !matches!(service.mode, Mode::Nat { .. } | Mode::L3Dsr { .. }) {
        return Ok(());
    }
    for vip in &service.vips {
        let ip = Ip::of_net(vip.prefix);
        let forwards = forwards(ip).map_err(|e| Error::io("ask whether the kernel forwards", e))?;
        if !forwards {
            return Err(Error::Unsupported {
                what: format!("mode {} by nftables", service.mode.name()),
                why: match ip {
                    Ip::V4 => "the kernel does not forward; set sysctl net.ipv4.ip_forward=1",
                    Ip::V6 => {
                        "the kernel does not forward; set sysctl net.ipv6.conf.all.forwarding=1"
                    }
                }
                .to_owned(),
            });
        }
    }
    Ok(())
}
