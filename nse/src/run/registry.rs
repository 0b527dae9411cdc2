//! The registry: the endpoint's own, or that of its domain; and its entry there.

use std::sync::Arc;
use std::time::Duration;

use carrick_grpc::{DialError, Health, Security, ServerOptions, Url, listen, serve};
use carrick_registry as registry;
use carrick_store::Store;
use carrick_types::Mechanism;
use tracing::info;

use super::assemble::file_name;
use super::stages::Stages;
use crate::Error;
use crate::config::Setting;
use crate::parts::Parts;

/// How long an endpoint that a restarted registry does not name is held.
const REGISTRY_GRACE: Duration = Duration::from_secs(5);

/// The endpoint's own registry, where nobody else serves the domain's.
pub(super) async fn serve_registry(
    parts: &Parts,
    store: &Store,
    stages: &Stages,
) -> Result<Option<Url>, Error> {
    let config = &parts.config;
    let Setting::StandAlone {
        registry: None,
        serve_registry_on,
    } = &config.setting
    else {
        return Ok(None);
    };
    let own = Url::unix(format!(
        "/run/carrick/{}.registry.sock",
        file_name(config.name.as_str())
    ));
    let options = registry::ServerOptions {
        store: Some(store.clone()),
        policies: parts.rules.registry_server.clone(),
        ..Default::default()
    };
    let server = Arc::new(registry::Server::start(options)?);
    let health = Health::new(registry::Server::SERVICES).await;
    health.set_ready(true).await;
    for url in serve_registry_on.iter().chain([&own]) {
        let listener = listen(url, &Security::plaintext(config.insecure)).await?;
        info!(url = %listener.url(), "serving the domain's registry");
        let (routes, stop) = (server.beside(health.routes()), stages.registry.token());
        stages.registry.spawn_fatal("registry", async move {
            serve(listener, routes, &ServerOptions::default(), stop).await
        });
    }
    stages
        .registry
        .at_shutdown("registry's records", async move {
            server.shutdown(Duration::from_secs(2)).await;
            Ok::<_, std::io::Error>(())
        });
    Ok(Some(own))
}

pub(super) fn own_registry(
    parts: &Parts,
    embedded: Option<Url>,
) -> Result<registry::Client, Error> {
    let url = match (&parts.config.setting, embedded) {
        (Setting::Mesh(manager), _) => manager.clone(),
        (
            Setting::StandAlone {
                registry: Some(url),
                ..
            },
            _,
        ) => url.clone(),
        (_, Some(url)) => url,
        (Setting::StandAlone { registry: None, .. }, None) => {
            unreachable!("without a registry the endpoint serves its own")
        }
    };
    Ok(registry_at(parts, &url)?)
}

pub(super) fn registry_at(parts: &Parts, url: &Url) -> Result<registry::Client, DialError> {
    let options = registry::ClientOptions {
        tokens: Some(Arc::clone(&parts.tokens)),
        policies: parts.rules.registry_client.clone(),
        timeout: parts.config.times.request,
        // A registry that keeps nothing knows nobody for a moment after its restart.
        grace: REGISTRY_GRACE,
        ..registry::ClientOptions::default()
    };
    let mut channel = parts.channels.dialled(url)?;
    // A manager may live where it does not see our sockets, and knows what to do
    // with them; peers in a domain without one dial each other by path.
    if matches!(parts.config.setting, Setting::StandAlone { .. }) {
        channel.attachments = None;
    }
    Ok(registry::Client::new(channel, options))
}

pub(super) fn register(
    parts: &Parts,
    registry: &registry::Client,
    url: &Url,
) -> registry::Registration {
    let config = &parts.config;
    let mut labels = config.labels.clone();
    let own = [
        (
            registry::Endpoint::KEY_LABEL,
            parts.identity.public_key_text(),
        ),
        (Mechanism::NODE_NAME, config.node.name.clone()),
    ];
    for (key, value) in own {
        labels.0.insert(key.to_owned(), value);
    }
    let mut endpoint = registry::Endpoint::new(config.name.clone(), config.services.clone());
    endpoint.labels = config
        .services
        .iter()
        .map(|name| (name.clone(), labels.clone()))
        .collect();
    endpoint.url = Some(url.to_string());
    let services = config.services.iter().cloned().map(registry::Service::new);
    let services = services.filter(|_| config.register_service).collect();
    registry.keep_registered(endpoint, services, registry::RegistrationOptions::default())
}
