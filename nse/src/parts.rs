use std::sync::Arc;

use carrick_agent::{Agent, Netns};
use carrick_chain::{Handle, Tokens};
use carrick_grpc::{Channels, Identity};
use carrick_ipam::{Addresses, Leases, Prefixes};
use carrick_link::{LinkBook, Site, Vnis};
use carrick_vl3::Vl3;
use carrick_vl3::dns::Records;
use carrick_vl3::elements::MtuElement;

use crate::Config;
use crate::config::AgentKind;
use crate::peering::Dials;
use crate::policies::Rules;

/// What the parts of an endpoint share.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    /// Makes links; `None` where an NSM forwarder does.
    pub(crate) plane: Option<Plane>,
    pub(crate) vl3: Vl3,
    pub(crate) prefixes: Prefixes,
    pub(crate) leases: Leases,
    pub(crate) addresses: Addresses,
    pub(crate) records: Records,
    pub(crate) mtu: MtuElement,
    pub(crate) handle: Handle,
    pub(crate) tokens: Arc<dyn Tokens>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) channels: Channels,
    pub(crate) dials: Dials,
    pub(crate) rules: Rules,
}

/// The data plane of an endpoint that is its own forwarder.
#[derive(Clone)]
pub(crate) struct Plane {
    pub(crate) agent: Arc<dyn Agent>,
    pub(crate) book: LinkBook,
    pub(crate) site: Site,
    pub(crate) vnis: Vnis,
}

impl Plane {
    pub(crate) fn new(agent: Arc<dyn Agent>, config: &Config) -> Self {
        let site = Site {
            node: config.node.name.clone(),
            owner: config.name.to_string(),
            router: router(config),
            underlay: config.node.tunnel_ip,
            underlay_mtu: config.node.underlay_mtu,
            vxlan_port: config.node.vxlan_port,
        };
        Self {
            book: LinkBook::new(Arc::clone(&agent)),
            agent,
            site,
            vnis: Vnis::default(),
        }
    }
}

/// The namespace in which the service is routed.
pub(crate) fn router(config: &Config) -> Netns {
    match (&config.node.router, &config.agent) {
        (Some(name), _) => Netns::Named(name.clone()),
        // What is its own to the agent is not what is our own.
        (None, AgentKind::Remote(_)) => {
            Netns::Path(format!("/proc/{}/ns/net", std::process::id()).into())
        }
        (None, _) => Netns::Own,
    }
}
