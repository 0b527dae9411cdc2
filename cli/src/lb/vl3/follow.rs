//! Follows the endpoints of a network and the connections of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use carrick_chain::{ConnectionEvent, EventKind, Remote, Selector, Tokens};
use carrick_grpc::{Channels, RemoteEndpoint, Url};
use carrick_lb::members::Members;
use carrick_registry::{Backoff, Client, EndpointQuery, Event};
use carrick_types::{EndpointName, ServiceName};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

/// What the endpoints of one network tell.
pub(super) enum Told {
    Event(EndpointName, ConnectionEvent),
    Gone(EndpointName),
    Lost(EndpointName),
}

impl Told {
    pub(super) fn tell(self, members: &mut Members, now: Instant) {
        match self {
            Self::Event(endpoint, event) => tell(members, &endpoint, &event),
            Self::Gone(endpoint) => members.gone(&endpoint),
            Self::Lost(endpoint) => members.lost(&endpoint, now),
        }
    }
}

fn tell(members: &mut Members, endpoint: &EndpointName, event: &ConnectionEvent) {
    let connections = event.connections.iter().map(Arc::as_ref);
    match event.kind {
        EventKind::InitialStateTransfer => members.all(endpoint, connections),
        EventKind::Update => connections.for_each(|it| members.updated(endpoint, it)),
        EventKind::Delete => connections.for_each(|it| members.closed(endpoint, &it.id)),
    }
}

/// Where the news of one network go: to all networks' queue, under its number.
#[derive(Clone)]
pub(super) struct News {
    number: usize,
    queue: mpsc::Sender<(usize, Told)>,
}

impl News {
    pub(super) fn new(number: usize, queue: mpsc::Sender<(usize, Told)>) -> Self {
        Self { number, queue }
    }

    /// Whether anybody still listens.
    async fn tell(&self, told: Told) -> bool {
        self.queue.send((self.number, told)).await.is_ok()
    }
}

/// By which endpoints are found and asked.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) registry: Client,
    pub(super) channels: Channels,
    pub(super) tokens: Arc<dyn Tokens>,
}

/// Tells what the endpoints of `service` tell. Never ends by itself; its
/// streams end with it.
pub(super) async fn follow(access: Access, service: ServiceName, news: News) {
    let query = EndpointQuery {
        services: vec![service],
        ..EndpointQuery::default()
    };
    let mut watch = access.registry.watch_endpoints(query);
    let mut streams = BTreeMap::<EndpointName, (String, AbortOnDropHandle<()>)>::new();
    loop {
        match watch.recv().await {
            Event::Deleted(name) => {
                streams.remove(&name);
                if !news.tell(Told::Gone(name)).await {
                    return;
                }
            }
            Event::Updated(endpoint) => {
                let (name, url) = (endpoint.name, endpoint.url.unwrap_or_default());
                if streams.get(&name).is_none_or(|(known, _)| *known != url) {
                    let stream = stream(access.clone(), name.clone(), url.clone(), news.clone());
                    let task = AbortOnDropHandle::new(tokio::spawn(stream));
                    streams.insert(name, (url, task));
                }
            }
            // What was told before still stands.
            Event::Failed | Event::Synced => {}
        }
    }
}

/// Follows the connections of one endpoint, again and again.
async fn stream(access: Access, endpoint: EndpointName, url: String, news: News) {
    let back_off = Backoff::default();
    let mut failures = 0;
    loop {
        match open(&access, &endpoint, &url).await {
            Ok(mut events) => {
                info!(%endpoint, url, "following the connections of an endpoint");
                while let Some(Ok(event)) = events.next().await {
                    failures = 0;
                    if !news.tell(Told::Event(endpoint.clone(), event)).await {
                        return;
                    }
                }
            }
            Err(error) => debug!(%endpoint, url, "cannot follow an endpoint: {error:#}"),
        }
        if !news.tell(Told::Lost(endpoint.clone())).await {
            return;
        }
        failures += 1;
        tokio::time::sleep(back_off.after(failures)).await;
    }
}

async fn open(
    access: &Access,
    endpoint: &EndpointName,
    url: &str,
) -> anyhow::Result<carrick_chain::Events> {
    let url: Url = url.parse()?;
    let remote = RemoteEndpoint::dial(&access.channels, &url, Arc::clone(&access.tokens))?;
    let selector = Selector::segment(endpoint.as_str(), "");
    Ok(remote.monitor(selector).await?)
}
