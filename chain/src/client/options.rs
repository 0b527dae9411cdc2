use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{BackOff, Liveness};
use crate::Tokens;

/// What a reselect asks for (NSM `begin.WithReselectFunc`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reselect {
    /// Any endpoint of the service.
    #[default]
    AnyEndpoint,
    /// The same endpoint again, as between vL3 peers.
    SameEndpoint,
}

/// How a [`Client`](super::Client) keeps its connections.
#[derive(Clone)]
pub struct ClientOptions {
    pub(super) name: String,
    pub(super) tokens: Arc<dyn Tokens>,
    pub(super) request_timeout: Duration,
    pub(super) back_off: BackOff,
    pub(super) reselect: Reselect,
    pub(super) keep_addresses: bool,
    pub(super) liveness: Option<Arc<dyn Liveness>>,
    pub(super) liveness_interval: Duration,
    pub(super) liveness_timeout: Duration,
    pub(super) liveness_misses: u32,
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("name", &self.name)
            .field("request_timeout", &self.request_timeout)
            .field("back_off", &self.back_off)
            .field("reselect", &self.reselect)
            .field("keep_addresses", &self.keep_addresses)
            .field("liveness", &self.liveness.is_some())
            .field("liveness_interval", &self.liveness_interval)
            .field("liveness_timeout", &self.liveness_timeout)
            .field("liveness_misses", &self.liveness_misses)
            .finish_non_exhaustive()
    }
}

impl ClientOptions {
    /// Options of the client `name`, which is its name in the path, with path
    /// tokens from `tokens`.
    #[must_use]
    pub fn new(name: impl Into<String>, tokens: impl Tokens) -> Self {
        Self {
            name: name.into(),
            tokens: Arc::new(tokens),
            request_timeout: Duration::from_secs(15),
            back_off: BackOff::default(),
            reselect: Reselect::default(),
            keep_addresses: true,
            liveness: None,
            liveness_interval: Duration::from_millis(200),
            liveness_timeout: Duration::from_secs(1),
            liveness_misses: 3,
        }
    }

    /// Time for one try of a Request; 15 s unless said otherwise.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Waiting times between failed tries; 200 ms to 15 s unless said otherwise.
    #[must_use]
    pub fn back_off(mut self, back_off: BackOff) -> Self {
        self.back_off = back_off;
        self
    }

    /// What a reselect asks for; any endpoint unless said otherwise.
    #[must_use]
    pub fn reselect(mut self, reselect: Reselect) -> Self {
        self.reselect = reselect;
        self
    }

    /// Whether a reselect asks for the addresses that the connection had, as in
    /// NSM and unless said otherwise. Without them the new endpoint sees the
    /// context of the first Request.
    #[must_use]
    pub fn keep_addresses(mut self, keep: bool) -> Self {
        self.keep_addresses = keep;
        self
    }

    /// How [`ClientOptions::liveness`] probes: every `interval`, each time for
    /// at most `timeout`; `misses` failures in a row, at least one, mean that
    /// the data path is dead. Unless said otherwise 200 ms and 1 s, as in NSM,
    /// and 3 misses.
    #[must_use]
    pub fn liveness_every(mut self, interval: Duration, timeout: Duration, misses: u32) -> Self {
        self.liveness_interval = interval;
        self.liveness_timeout = timeout;
        self.liveness_misses = misses.max(1);
        self
    }

    /// Probes the data path with `liveness`. Without it a lost control plane
    /// counts as a lost connection (NSM `heal`).
    #[must_use]
    pub fn liveness(mut self, liveness: impl Liveness) -> Self {
        self.liveness = Some(Arc::new(liveness));
        self
    }
}
