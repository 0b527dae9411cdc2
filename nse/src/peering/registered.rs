use std::sync::{Arc, Mutex, PoisonError};

use carrick_chain::{Error, Events, Remote, Selector, Tokens};
use carrick_grpc::{Channels, RemoteEndpoint};
use carrick_policy::Policies;
use carrick_types::Connection;
use carrick_vl3::Vl3;
use carrick_vl3::peers::{Endpoint, PeerId};
use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::parts::Parts;

/// A peer where it is registered at each call: one that was started again may
/// listen elsewhere, and what it has of the connection is asked for there.
pub(super) struct Registered {
    vl3: Vl3,
    channels: Channels,
    tokens: Arc<dyn Tokens>,
    policies: Policies,
    peer: PeerId,
    last: Mutex<(String, RemoteEndpoint)>,
}

impl Registered {
    /// The peer `endpoint`, which is `at` its URL now.
    pub(super) fn new(parts: &Parts, endpoint: &Endpoint, at: RemoteEndpoint) -> Self {
        Self {
            vl3: parts.vl3.clone(),
            channels: parts.channels.clone(),
            tokens: Arc::clone(&parts.tokens),
            policies: parts.rules.client.clone(),
            peer: endpoint.id.clone(),
            last: Mutex::new((endpoint.url.clone(), at)),
        }
    }

    fn now(&self) -> RemoteEndpoint {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let url = self.vl3.url_of(&self.peer);
        if let Some(url) = url.filter(|url| *url != last.0) {
            match self.dial(&url) {
                Ok(remote) => {
                    info!(peer = %self.peer, url, "the peer listens elsewhere now");
                    *last = (url, remote);
                }
                Err(error) => debug!(peer = %self.peer, url, error, "not dialled"),
            }
        }
        last.1.clone()
    }

    fn dial(&self, url: &str) -> Result<RemoteEndpoint, Box<dyn std::error::Error>> {
        let tokens = Arc::clone(&self.tokens);
        let remote = RemoteEndpoint::dial(&self.channels, &url.parse()?, tokens)?;
        Ok(remote.judged(self.policies.clone()))
    }
}

impl Remote for Registered {
    fn request(
        &self,
        request: Connection,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Connection, Error>> {
        let remote = self.now();
        Box::pin(async move { remote.request(request, deadline).await })
    }

    fn close(&self, connection: Connection, deadline: Instant) -> BoxFuture<'_, Result<(), Error>> {
        let remote = self.now();
        Box::pin(async move { remote.close(connection, deadline).await })
    }

    fn monitor(&self, selector: Selector) -> BoxFuture<'_, Result<Events, Error>> {
        let remote = self.now();
        Box::pin(async move { remote.monitor(selector).await })
    }
}
