use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;

use carrick_grpc::{Descriptors, Url};
use carrick_types::{EndpointName, Invalid};
use tracing::warn;

use crate::Endpoint;

/// The sockets of endpoints whose URL is an inode (NSM `recvfd`): one for each
/// name, which goes with what is found under it. A refresh need not bring it
/// again.
///
/// They outlive neither the entry nor the registry; after a restart an endpoint
/// brings its socket when it registers.
#[derive(Debug, Default)]
pub(super) struct Sockets(HashMap<EndpointName, Socket>);

/// The socket that a URL names.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    url: Url,
    file: Arc<File>,
}

impl Socket {
    /// Waits for the socket of an endpoint that is about to be registered;
    /// `None` if its URL needs none. `known` is the one that the name has.
    pub(super) async fn receive(
        endpoint: &Endpoint,
        known: Option<Self>,
        descriptors: Option<&Descriptors>,
    ) -> Result<Option<Self>, Invalid> {
        let Some(url) = inode(endpoint) else {
            return Ok(None);
        };
        if let Some(known) = known.filter(|known| known.url == url) {
            return Ok(Some(known));
        }
        let descriptors = descriptors.ok_or_else(|| {
            let expected = "reachable: an inode URL goes with a descriptor over a unix socket";
            Invalid::new(URL, &url, expected)
        })?;
        let received = descriptors.receive(&url).await;
        let file =
            received.map_err(|error| Invalid::new(URL, error, "accompanied by its socket"))?;
        let file = File::from(file);
        let found = file.metadata();
        if !found.is_ok_and(|found| found.file_type().is_socket()) {
            return Err(Invalid::new(URL, &url, "the inode of a socket"));
        }
        let file = Arc::new(file);
        Ok(Some(Self { url, file }))
    }

    /// Sends it to who found the endpoint, ahead of the answer.
    pub(super) fn give(&self, descriptors: &Descriptors) {
        let sent = self
            .file
            .try_clone()
            .and_then(|file| descriptors.send(file));
        if let Err(error) = sent {
            warn!(%error, url = %self.url, "a socket does not go along with what was found");
        }
    }
}

impl Sockets {
    pub(super) fn get(&self, name: &EndpointName) -> Option<Socket> {
        self.0.get(name).cloned()
    }

    /// What an endpoint that was registered brought; the former one goes.
    pub(super) fn put(&mut self, name: &EndpointName, socket: Option<Socket>) {
        match socket {
            Some(socket) => _ = self.0.insert(name.clone(), socket),
            None => _ = self.0.remove(name),
        }
    }
}

const URL: &str = "network_service_endpoint.url";

fn inode(endpoint: &Endpoint) -> Option<Url> {
    let url = endpoint.url.as_ref()?.parse().ok()?;
    matches!(url, Url::Inode(..)).then_some(url)
}
