//! From a configuration to a running endpoint, and its orderly end.

mod admin;
mod assemble;
mod network;
mod registry;
mod serve;
mod stages;
mod start;

use std::sync::Arc;

use carrick_chain::elements::OnIdle;
use carrick_chain::{Endpoint, EndpointOptions};
use carrick_lifecycle::{Lifecycle, Outcome, Signals};
use carrick_telemetry::{Metrics, Readiness};
use tracing::warn;

use self::admin::admin;
use self::assemble::{assemble, open_store};
use self::registry::{own_registry, serve_registry};
use self::serve::{advertised, open_listeners};
use self::stages::{Stages, at_end};
use self::start::{Ready, Start};
use crate::journal::Answers;
use crate::{Config, Error, metrics, serving};

#[cfg(test)]
pub(crate) use self::start::restore;

/// Runs an endpoint until a signal, and ends it in order.
///
/// # Errors
///
/// It cannot start; what was begun is given up.
pub async fn run(config: Config, signals: impl Signals) -> Result<Outcome, Error> {
    let config = Arc::new(config);
    if config.insecure {
        warn!("NSM_INSECURE is true: connections over TCP are neither encrypted nor authenticated");
    }
    let store = open_store(&config)?;
    let metrics = Metrics::new();
    let readiness = Readiness::new();
    let ready = Ready::new(&readiness);
    let (parts, prefix_client) = assemble(&config, &store, &metrics)?;
    metrics.section("store", |section| store.register(section));
    metrics::gauges(&metrics, &parts);
    let observer = metrics::requests(&metrics);
    let mut lifecycle = Lifecycle::new(config.times.grace);
    let stages = Stages::new(&mut lifecycle, config.times.grace);

    let embedded = serve_registry(&parts, &store, &stages).await?;
    let on_idle = OnIdle::new(config.times.idle);
    let chain = serving::chain(&parts, on_idle.clone())?;
    let answers = Answers::open(&store);
    let options = EndpointOptions::new(config.name.as_str(), Arc::clone(&parts.tokens))
        .max_connections(config.max_connections)
        .journal(answers.clone())
        .handle(&parts.handle)
        .is_stale({
            let parts = parts.clone();
            Arc::new(move |connection| serving::is_stale(&parts, connection))
        });
    // Without a forwarder a client's interface is ours to make, once.
    let options = match parts.plane {
        Some(_) => options.know_callers(),
        None => options,
    };
    let endpoint = Endpoint::new(options, chain);

    let prefix_client = prefix_client.map(Arc::new);
    admin(&parts, &metrics, &readiness, prefix_client.clone(), &stages).await?;
    let listeners = open_listeners(&config).await?;
    let url = advertised(&config, &listeners)?;
    let registry = own_registry(&parts, embedded)?;

    at_end(&parts, &endpoint, prefix_client, &stages);
    if let Some(on_idle) = on_idle {
        let trigger = stages.connections.trigger();
        stages.connections.spawn("idle", async move {
            on_idle.idle().await;
            trigger.shut_down("no client for NSM_IDLE_TIMEOUT");
        });
    }
    let failed = endpoint.clone();
    stages.connections.spawn("watch of the chain", {
        let (token, trigger) = (stages.connections.token(), stages.connections.trigger());
        async move {
            if token.run_until_cancelled(failed.failed()).await.is_some() {
                trigger.shut_down("an element of the chain panicked");
            }
        }
    });
    let start = Start {
        observer,
        parts,
        endpoint,
        answers,
        listeners,
        url,
        registry,
        ready,
    };
    let stages_of_start = stages.clone();
    stages
        .registration
        .spawn("start", async move { start.go(stages_of_start).await });
    Ok(lifecycle.run(signals).await)
}
