mod address;
mod listen;
mod routes;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

pub use self::address::{Address, InvalidAddress};
pub use self::listen::Bound;
use crate::{Error, Metrics, Readiness};

/// What a subsystem says about itself under `/status`.
pub trait Status: Send + Sync + 'static {
    /// How things are now. It is called for each request and must not block.
    fn status(&self) -> Value;
}

impl<F> Status for F
where
    F: Fn() -> Value + Send + Sync + 'static,
{
    fn status(&self) -> Value {
        self()
    }
}

/// The admin requests, over HTTP/1.1:
///
/// - `/healthz`: 200 as long as the process runs.
/// - `/metrics`: [`Metrics`] in the text format of `OpenMetrics`.
/// - `/readyz`: 200 when [`Readiness`] is ready, otherwise 503 and what is missing,
///   a line each.
/// - `/status`: a JSON object of what each [`Status`] says, by its name.
#[derive(Clone)]
pub struct Admin {
    metrics: Metrics,
    readiness: Readiness,
    statuses: BTreeMap<&'static str, Arc<dyn Status>>,
}

impl Admin {
    /// Serves `metrics` and `readiness`.
    #[must_use]
    pub fn new(metrics: Metrics, readiness: Readiness) -> Self {
        Self {
            metrics,
            readiness,
            statuses: BTreeMap::new(),
        }
    }

    /// Adds what stands under `name` in `/status`.
    #[must_use]
    pub fn with_status(mut self, name: &'static str, status: impl Status) -> Self {
        self.statuses.insert(name, Arc::new(status));
        self
    }

    /// Opens the listener. Its socket, if it is one, is readable by its owner
    /// alone; one left by a killed process is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::SocketInUse`] when another process answers there, [`Error::Bind`]
    /// for what the operating system refuses.
    pub async fn bind(self, address: &Address) -> Result<Bound, Error> {
        Bound::new(routes::routes(self), address).await
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let statuses: Vec<_> = self.statuses.keys().collect();
        f.debug_struct("Admin")
            .field("statuses", &statuses)
            .finish_non_exhaustive()
    }
}
