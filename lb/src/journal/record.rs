use std::net::SocketAddr;
use std::time::Duration;

use crate::dataplane::{FlowKey, FlowRecord, FlowState, ServerNumber};
use crate::service::Identity;

/// A flow as balancers speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Which flow.
    pub key: FlowKey,
    /// Whose it is.
    pub server: Identity,
    /// How far it has come.
    pub state: FlowState,
    /// How long ago its last packet came; whole seconds travel.
    pub idle: Duration,
    /// NAT with SNAT: what the server sees as its source.
    pub translated: Option<SocketAddr>,
}

impl Record {
    /// The record of a flow, its server's number made an identity.
    #[must_use]
    pub fn of(flow: &FlowRecord, server: Identity) -> Self {
        Self {
            key: flow.key,
            server,
            state: flow.state,
            idle: flow.idle,
            translated: flow.translated,
        }
    }

    /// The flow of a record, its server's identity made a number.
    #[must_use]
    pub fn flow(&self, server: ServerNumber) -> FlowRecord {
        FlowRecord {
            key: self.key,
            vip: None,
            server,
            state: self.state,
            idle: self.idle,
            translated: self.translated,
        }
    }
}
