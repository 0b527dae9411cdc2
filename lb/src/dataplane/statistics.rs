use std::collections::BTreeMap;

use super::{ServerNumber, ServiceNumber, VipNumber};
use crate::service::Identity;

/// What a data plane holds: enough to go on numbering where another process
/// stopped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Installed {
    /// Services by number.
    pub services: BTreeMap<ServiceNumber, Identity>,
    /// VIPs by number, with their service.
    pub vips: BTreeMap<VipNumber, (Identity, ServiceNumber)>,
    /// Servers by number, with their service.
    pub servers: BTreeMap<ServerNumber, (Identity, ServiceNumber)>,
}

/// All counters of a data plane. Each only rises, except live flows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statistics {
    /// By VIP: what arrived for it.
    pub vips: BTreeMap<VipNumber, Counters>,
    /// By server: what was sent to it.
    pub servers: BTreeMap<ServerNumber, ServerCounters>,
    /// Packets by reason, dropped or let pass or chosen without memory; the
    /// names are those of docs/load-balancer.md.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// Packets and bytes (of the IP packet as it arrived), and flows begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Flows begun.
    pub flows: u64,
}

/// What one server got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerCounters {
    /// Since it was first installed.
    pub total: Counters,
    /// Flows that are remembered now.
    pub live: u64,
}
