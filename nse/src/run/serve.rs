//! The sockets that clients and peers dial.

use std::sync::Arc;

use carrick_chain::Endpoint;
use carrick_grpc::{
    Health, Listener, Namespaces, Observer, Security, ServerOptions, Url, listen, routes, serve,
};
use carrick_telemetry::Readiness;
use tracing::info;

use super::stages::Stages;
use super::start::Ready;
use crate::parts::Parts;
use crate::{Config, Error};

pub(super) async fn open_listeners(config: &Config) -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    for url in &config.listen_on {
        listeners.push(listen(url, &Security::plaintext(config.insecure)).await?);
    }
    Ok(listeners)
}

/// The URL under which others reach the endpoint.
pub(super) fn advertised(config: &Config, listeners: &[Listener]) -> Result<Url, Error> {
    if let Some(url) = &config.advertise {
        return Ok(url.clone());
    }
    let tcp = listeners
        .iter()
        .find(|listener| matches!(listener.url(), Url::Tcp { .. }));
    let url = tcp
        .or(listeners.first())
        .map(|listener| listener.url().clone());
    match url {
        Some(Url::Tcp { host, port }) if matches!(host.as_str(), "" | "0.0.0.0" | "::") => {
            let host = config.node.tunnel_ip.ok_or_else(|| {
                let expected =
                    "the URL by which others reach this endpoint, as it listens on every address";
                carrick_types::Invalid::new("CARRICK_ADVERTISE", "", expected)
            })?;
            Ok(Url::tcp(host.to_string(), port))
        }
        Some(url) => Ok(url),
        None => unreachable!("a configuration has at least one address to listen on"),
    }
}

pub(super) async fn serve_all(
    parts: &Parts,
    endpoint: &Endpoint,
    listeners: Vec<Listener>,
    observer: Observer,
    ready: &Ready,
    stages: &Stages,
) {
    let namespaces = parts.plane.as_ref().map(|plane| {
        let agent = Arc::clone(&plane.agent);
        Namespaces::new(move |namespace| agent.hold(namespace))
    });
    let options = ServerOptions {
        namespaces: namespaces.unwrap_or_default(),
        authorization: parts.rules.server.clone(),
        observer,
        ..ServerOptions::default()
    };
    let health = Health::new(Health::ENDPOINT).await;
    for listener in listeners {
        info!(url = %listener.url(), name = %parts.config.name, "listening");
        let stop = stages.server.token();
        let (routes, options) = (routes(endpoint, &options, &health, &stop), options.clone());
        stages.server.spawn_fatal("gRPC server", async move {
            serve(listener, routes, &options, stop).await
        });
    }
    let (readiness, stop) = (ready.all.clone(), stages.server.token());
    stages.server.spawn("health", async move {
        stop.run_until_cancelled(tell(readiness, health)).await;
    });
    ready.listening.met();
}

/// What `/readyz` says, gRPC's health says too.
async fn tell(readiness: Readiness, health: Health) {
    loop {
        readiness.wait_ready().await;
        health.set_ready(true).await;
        readiness.wait_not_ready().await;
        health.set_ready(false).await;
    }
}
