use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use carrick_types::{Connection, Invalid, Mechanism};
use futures::future::join_all;
use tracing::debug;

use crate::{Descriptors, Url};

/// What keeps a namespace found as long as it is not dropped.
pub type Held = Box<dyn Send + Sync>;

type Hold = Arc<dyn Fn(OwnedFd) -> Result<Held, Invalid> + Send + Sync>;

/// Who keeps the network namespaces that come with a Request while it is
/// served. By default nobody does, and they are not waited for.
#[derive(Clone, Default)]
pub struct Namespaces(Option<Hold>);

impl fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Namespaces")
            .field(&self.0.is_some())
            .finish()
    }
}

impl Namespaces {
    /// Gives each to `hold`, which refuses what is no network namespace and
    /// must not block.
    #[must_use]
    pub fn new(hold: impl Fn(OwnedFd) -> Result<Held, Invalid> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hold)))
    }

    /// Receives the namespaces that the mechanisms of a Request name. One that
    /// does not come may still be found by its inode.
    pub(super) async fn receive(
        &self,
        descriptors: Option<&Descriptors>,
        request: &Connection,
    ) -> Result<Vec<Held>, Invalid> {
        let (Some(hold), Some(descriptors)) = (&self.0, descriptors) else {
            return Ok(Vec::new());
        };
        let mechanisms = request.preferences.iter().chain(&request.mechanism);
        let urls = mechanisms.filter_map(|it| it.parameter(Mechanism::INODE_URL)?.parse().ok());
        let mut urls: Vec<Url> = urls.filter(|url| matches!(url, Url::Inode(..))).collect();
        urls.sort_unstable();
        urls.dedup();
        let received = urls.iter().map(|url| async {
            let received = descriptors.receive(url).await;
            let received = received.inspect_err(|error| debug!(%error, "going on without it"));
            received.ok().map(|file| hold(file))
        });
        join_all(received).await.into_iter().flatten().collect()
    }
}
