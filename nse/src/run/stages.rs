//! The order in which an endpoint ends.

use std::sync::Arc;
use std::time::Duration;

use carrick_agent::Change;
use carrick_chain::Endpoint;
use carrick_ipam::PrefixClient;
use carrick_lifecycle::{Lifecycle, Subsystem};

use crate::parts::Parts;

/// The subsystems, in the order in which they end.
#[derive(Clone)]
pub(super) struct Stages {
    pub(super) registration: Subsystem,
    pub(super) connections: Subsystem,
    pub(super) server: Subsystem,
    pub(super) network: Subsystem,
    pub(super) prefixes: Subsystem,
    pub(super) router: Subsystem,
    pub(super) registry: Subsystem,
    pub(super) admin: Subsystem,
}

impl Stages {
    pub(super) fn new(lifecycle: &mut Lifecycle, grace: Duration) -> Self {
        let mut stage = |name, share: u32| lifecycle.subsystem(name, grace * share / 20);
        Self {
            registration: stage("registration", 3),
            connections: stage("connections", 8),
            server: stage("server", 6),
            network: stage("network", 2),
            prefixes: stage("prefixes", 3),
            router: stage("router", 4),
            registry: stage("registry", 3),
            admin: stage("admin", 2),
        }
    }
}

/// What is done at the end, stage by stage.
pub(super) fn at_end(
    parts: &Parts,
    endpoint: &Endpoint,
    prefix_client: Option<Arc<PrefixClient>>,
    stages: &Stages,
) {
    let leave = parts.config.unregister_itself;
    let (dials, endpoint) = (parts.dials.clone(), endpoint.clone());
    let grace = stages.connections.deadline().mul_f32(0.9);
    stages.connections.at_shutdown("connections", async move {
        let served = async {
            if leave {
                endpoint.shutdown(grace).await
            } else {
                endpoint.stop(grace).await
            }
        };
        let (served, dialled) = tokio::join!(served, dials.end(leave, grace));
        let all = served && dialled;
        all.then_some(())
            .ok_or_else(|| std::io::Error::other("connections are left open"))
    });
    if let Some(client) = prefix_client {
        let grace = stages.prefixes.deadline().mul_f32(0.9);
        stages.prefixes.at_shutdown("prefixes", async move {
            let ended = client.shutdown(leave, grace).await;
            ended
                .then_some(())
                .ok_or_else(|| std::io::Error::other("a prefix server was not told"))
        });
    }
    if let Some(plane) = parts.plane.clone().filter(|_| leave) {
        stages.router.at_shutdown("router", async move {
            let netns = plane.site.router.clone();
            plane
                .agent
                .apply(vec![Change::DeleteRouter { netns }])
                .await
        });
    }
}
