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
use crate::config::Setting;
use crate::parts::Parts;
use crate::{Config, Error};

/// How long an endpoint that a restarted registry does not name is held.
const REGISTRY_GRACE: Duration = Duration::from_secs(5);

/// The endpoint's own registry, where nobody else serves the domain's.
pub(super) async fn serve_registry(
    config: &Config,
    security: &Security,
    store: &Store,
    stages: &Stages,
) -> Result<Option<Url>, Error> {
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
        tokens: security.tokens(),
        ..Default::default()
    };
    let server = Arc::new(registry::Server::start(options)?);
    let health = Health::new(registry::Server::SERVICES).await;
    health.set_ready(true).await;
    for url in serve_registry_on.iter().chain([&own]) {
        let listener = listen(url, security).await?;
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
    let key = registry::Endpoint::KEY_LABEL.to_owned();
    labels.0.insert(key, token_key(parts));
    // A node without a name is known, too, but not to clients.
    let node = [(Mechanism::NODE_NAME.to_owned(), config.node.name.clone())];
    for (key, value) in config.client_info.0.clone().into_iter().chain(node) {
        labels.0.entry(key).or_insert(value);
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

/// The key that the endpoint's path tokens verify with: that of the X.509-SVID
/// where there is mutual TLS, else its own.
pub(super) fn token_key(parts: &Parts) -> String {
    let context = parts
        .security
        .source()
        .and_then(|source| source.current().ok());
    context.map_or_else(
        || parts.identity.public_key_text(),
        |context| context.svid().public_key_text().to_owned(),
    )
}

/// Registers the key of each new X.509-SVID, so that peers go on believing.
pub(super) async fn follow_key(
    parts: &Parts,
    registered: &mut String,
    registration: &registry::Registration,
) {
    let Some(mut source) = parts.security.source() else {
        return std::future::pending().await;
    };
    loop {
        let key = token_key(parts);
        if key != *registered {
            registered.clone_from(&key);
            registration.update(|endpoint| {
                for labels in endpoint.labels.values_mut() {
                    let label = registry::Endpoint::KEY_LABEL.to_owned();
                    labels.0.insert(label, key.clone());
                }
            });
        }
        source.changed().await;
    }
}
