//! The prefixes of one endpoint: fixed, or leased from prefix servers.

mod client;
mod session;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use carrick_types::{Invalid, IpFamily, Prefix};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tracing::Span;

pub(crate) use client::PREFIXES;
pub use client::{
    LinkStatus, PrefixClient, PrefixError, PrefixOptions, PrefixServer, StoredPrefix,
};

/// A prefix of the endpoint, and what of it is not to be handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The prefix.
    pub prefix: Prefix,
    /// Prefixes that its clients must not get.
    pub excluded: Vec<Prefix>,
}

impl From<Prefix> for Grant {
    fn from(prefix: Prefix) -> Self {
        Self {
            prefix,
            excluded: Vec::new(),
        }
    }
}

/// Why there is no further prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FurtherError {
    /// The prefixes are fixed, or no server has prefixes of this family.
    #[error("no prefix server gives further {0:?} prefixes")]
    NoServer(IpFamily),
    /// The server said no.
    #[error("the prefix server gives no further prefix: {0}")]
    Refused(String),
    /// The endpoint is shutting down.
    #[error("the prefix client has stopped")]
    Stopped,
}

/// A wish for a further prefix by who found those that it saw full.
#[derive(Clone, Debug)]
struct Further {
    family: IpFamily,
    seen: Arc<[Grant]>,
    /// The Request that waits for it.
    asker: Span,
}

/// The last time a further prefix was refused, and why.
#[derive(Clone, Debug, Default)]
struct Refusal(Option<(IpFamily, String)>);

/// The prefixes of one endpoint, in the order in which they were got; cheap to
/// clone. Nobody guesses a prefix: without a server's grant there is none.
#[derive(Clone)]
pub struct Prefixes {
    grants: watch::Receiver<Arc<[Grant]>>,
    /// One for each server; none if the prefixes are fixed.
    further: Arc<[mpsc::Sender<Further>]>,
    refusals: watch::Receiver<Refusal>,
}

impl Prefixes {
    /// Prefixes that never change, for an endpoint without a prefix server.
    ///
    /// # Errors
    ///
    /// There is none, two of them overlap, or one has no room for a client.
    pub fn fixed(prefixes: impl IntoIterator<Item = Prefix>) -> Result<Self, Invalid> {
        let prefixes: Vec<Prefix> = prefixes.into_iter().collect();
        validate(&prefixes)?;
        let grants: Arc<[Grant]> = prefixes.into_iter().map(Grant::from).collect();
        let (_, grants) = watch::channel(grants);
        Ok(Self {
            grants,
            further: Arc::from([]),
            refusals: watch::channel(Refusal::default()).1,
        })
    }

    /// Prefixes that a test changes.
    #[cfg(test)]
    pub(crate) fn watched(grants: watch::Receiver<Arc<[Grant]>>) -> Self {
        Self {
            grants,
            further: Arc::from([]),
            refusals: watch::channel(Refusal::default()).1,
        }
    }

    /// The prefixes now; empty before the first was granted.
    #[must_use]
    pub fn current(&self) -> Arc<[Prefix]> {
        self.grants
            .borrow()
            .iter()
            .map(|grant| grant.prefix)
            .collect()
    }

    /// The same with what is excluded of each.
    #[must_use]
    pub fn grants(&self) -> Arc<[Grant]> {
        Arc::clone(&self.grants.borrow())
    }

    /// A view of all changes from now on. With fixed prefixes it ends at once.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<Arc<[Grant]>> {
        let mut grants = self.grants.clone();
        grants.mark_unchanged();
        grants
    }

    /// Waits until there is a prefix; `false` if there will be none.
    pub async fn wait_ready(&self) -> bool {
        self.grants
            .clone()
            .wait_for(|grants| !grants.is_empty())
            .await
            .is_ok()
    }

    /// Asks for a further prefix of `family`, unless the prefixes are others
    /// than `seen` already, and waits until they are.
    ///
    /// # Errors
    ///
    /// [`FurtherError`].
    pub async fn further(&self, family: IpFamily, seen: &Arc<[Grant]>) -> Result<(), FurtherError> {
        let (mut grants, mut refusals) = (self.grants.clone(), self.refusals.clone());
        refusals.mark_unchanged();
        {
            let now = grants.borrow_and_update();
            if !Arc::ptr_eq(&now, seen) {
                return Ok(());
            }
            if self.further.is_empty() || now.iter().all(|grant| grant.prefix.family() != family) {
                return Err(FurtherError::NoServer(family));
            }
        }
        for server in self.further.iter() {
            // A full queue means that others have asked already.
            let _ = server.try_send(Further {
                family,
                seen: Arc::clone(seen),
                asker: Span::current(),
            });
        }
        tokio::select! {
            changed = grants.changed() => changed.map_err(|_| FurtherError::Stopped),
            reason = refused(&mut refusals, family) => {
                Err(reason.map_or(FurtherError::Stopped, FurtherError::Refused))
            }
        }
    }
}

/// Waits for a refusal of `family`; `None` when the client has stopped.
async fn refused(refusals: &mut watch::Receiver<Refusal>, family: IpFamily) -> Option<String> {
    loop {
        refusals.changed().await.ok()?;
        if let Some((refused, reason)) = &refusals.borrow_and_update().0
            && *refused == family
        {
            return Some(reason.clone());
        }
    }
}

impl fmt::Debug for Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Prefixes")
            .field(&*self.grants.borrow())
            .finish()
    }
}

fn validate(prefixes: &[Prefix]) -> Result<(), Invalid> {
    if prefixes.is_empty() {
        return Err(Invalid::new("prefixes", "", "at least one prefix"));
    }
    if let Some((one, other)) = carrick_types::overlaps(prefixes) {
        let value = format!("{one},{other}");
        return Err(Invalid::new(
            "prefixes",
            value,
            "prefixes that do not overlap",
        ));
    }
    let bad = prefixes
        .iter()
        .find(|prefix| prefix.length() == 0 || prefix.length() == prefix.width());
    match bad {
        Some(prefix) => Err(Invalid::new(
            "prefixes",
            prefix,
            "prefixes with room for a client",
        )),
        None => Ok(()),
    }
}
