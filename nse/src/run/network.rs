//! The other endpoints of the service, and the prefixes that all of them route.

use std::sync::Arc;

use carrick_registry as registry;
use carrick_vl3::health::{self, Probing};
use carrick_vl3::peers::{Domain, Peers};
use futures::stream::{self, StreamExt};
use tracing::{error, info};

use super::registry::registry_at;
use super::stages::Stages;
use crate::parts::{Parts, router};
use crate::peering::{Ask, PeerDialer};
use crate::serving;

/// Finds the other endpoints, links to them and probes the links.
pub(super) fn network(parts: &Parts, own: &registry::Client, stages: &Stages) {
    let service = &parts.config.services[0];
    let mut domains = vec![crate::discovery::follow(
        &parts.vl3,
        own,
        Domain::own(),
        service.clone(),
    )];
    for (name, url) in &parts.config.domains {
        match registry_at(parts, url) {
            Ok(client) => domains.push(crate::discovery::follow(
                &parts.vl3,
                &client,
                Domain::named(name),
                service.clone(),
            )),
            Err(error) => {
                error!(
                    domain = name,
                    error = &error as &dyn std::error::Error,
                    "the domain's registry cannot be dialled"
                );
            }
        }
    }
    let dialer = Arc::new(PeerDialer::new(parts.clone()));
    let peers = Peers::new(parts.vl3.clone(), dialer);
    let stop = stages.registration.token();
    stages.registration.spawn(
        "peers",
        peers.run(stream::select_all(domains).boxed(), stop),
    );
    let Some(plane) = parts.plane.clone() else {
        return;
    };
    if parts.config.times.liveness {
        let (vl3, agent, netns) = (
            parts.vl3.clone(),
            plane.agent.clone(),
            router(&parts.config),
        );
        let probing = Probing {
            interval: parts.config.times.liveness_interval,
            timeout: parts.config.times.liveness_timeout,
        };
        let probes = health::run(vl3, agent, netns, probing, stages.network.token());
        stages.network.spawn("probes of peers", probes);
    }
    let stop = stages.network.token();
    stages
        .network
        .spawn("adoption of links to peers", async move {
            stop.run_until_cancelled(plane.sweep_peers()).await;
        });
}

/// Follows the prefixes: the router's addresses, the clients' and the peers' routes.
pub(super) async fn follow_prefixes(parts: Parts, stop: tokio_util::sync::CancellationToken) {
    let mut changed = parts.prefixes.changed();
    while let Some(Ok(())) = stop.run_until_cancelled(changed.changed()).await {
        let prefixes = parts.prefixes.current();
        info!(?prefixes, "the prefixes changed");
        parts.vl3.set_prefixes(&prefixes);
        if let Some(plane) = &parts.plane
            && stop
                .run_until_cancelled(plane.put_router(&parts))
                .await
                .is_none()
        {
            return;
        }
        let ask = Ask {
            handle: parts.handle.clone(),
            dials: parts.dials.clone(),
        };
        let which = |connection: &carrick_types::Connection| {
            // Peers route each prefix, clients only the network.
            serving::is_peer(&parts.vl3, connection) || parts.addresses.is_stale(connection)
        };
        ask.handle.ask_refresh(&which, &|connection| {
            connection.state = carrick_types::State::RefreshRequested;
        });
        ask.dials.refresh(&|_| true);
    }
}
