use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{ServerNumber, VipNumber};

/// What tells one flow from another, as it arrives from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// The client.
    pub source: IpAddr,
    /// The VIP.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The client's port; ICMP echo: the identifier; 0 without ports.
    pub source_port: u16,
    /// The VIP's port; 0 for ICMP and without ports.
    pub destination_port: u16,
}

/// How far a flow has come, which decides its idle timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FlowState {
    /// TCP: a FIN or RST was seen.
    Closing,
    /// Anything else.
    #[default]
    Established,
    /// TCP: only SYNs were seen.
    Opening,
}

/// One live flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowRecord {
    /// Which flow.
    pub key: FlowKey,
    /// The VIP it came by, where the data plane still knows.
    pub vip: Option<VipNumber>,
    /// The server it goes to.
    pub server: ServerNumber,
    /// How far it has come.
    pub state: FlowState,
    /// How long ago its last packet came; 0 where the data plane cannot tell.
    pub idle: Duration,
    /// NAT with SNAT: what the server sees as its source.
    pub translated: Option<SocketAddr>,
}
