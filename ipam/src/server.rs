//! The prefix server: `ipam.IPAM` for NSM's endpoints and `ippool.Allocator`
//! for Cisco's, over one durable book of grants.

mod allocator;
mod error;
mod grants;
mod network;
mod stream;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use carrick_proto::ipam::ipam_server::IpamServer;
use carrick_proto::ippool::allocator_server::AllocatorServer;
use carrick_store::{Batch, Store, Table};
use carrick_types::{Invalid, Prefix};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

pub use error::{GrantError, ServerError};
pub use grants::GrantRecord;
pub(crate) use grants::{Change, GrantAsk, GrantOptions, Granted, Grants};
pub use network::Network;

use crate::{Clock, ServerMetrics, system_clock};

pub(crate) const GRANTS: &str = "ipam.grants";

/// Metadata in which an endpoint that is not known by its certificate names
/// itself: the name under which its prefixes are kept over a lost stream.
pub const OWNER_HEADER: &str = "carrick-owner";

/// Metadata in which the server says how long it keeps an owner's prefixes
/// without a sign of the owner, in milliseconds.
pub const LEASE_HEADER: &str = "carrick-lease-ms";

/// How a server grants.
#[derive(Clone)]
pub struct ServerOptions {
    /// How long a prefix without an owner outlives its stream. Default none,
    /// as with NSM's server.
    pub anonymous_grace: Duration,
    /// Where the time is read.
    pub clock: Clock,
    /// What is never granted.
    pub excluded: Vec<Prefix>,
    /// How long an owner's prefix is kept without a sign of the owner: an open
    /// stream or a renewal. Default 10 min.
    pub lease: Duration,
    /// Where counters are kept.
    pub metrics: ServerMetrics,
    /// Most prefixes of one owner, default 64.
    pub most_per_owner: usize,
    /// What is divided, preferred first.
    pub networks: Vec<Network>,
    /// How long all prefixes of an earlier run are kept at least, so that their
    /// endpoints can come back. Default 1 min.
    pub restart_grace: Duration,
    /// Ends the streams when it is cancelled; their prefixes are kept.
    pub shutdown: CancellationToken,
    /// Lease of `ippool.Allocator`, in hours, at least 2: its clients renew an
    /// hour before the end. Default 24.
    pub subnet_lease_hours: u16,
}

impl ServerOptions {
    /// Divides `networks`, with the defaults for the rest.
    #[must_use]
    pub fn new(networks: Vec<Network>) -> Self {
        Self {
            anonymous_grace: Duration::ZERO,
            clock: system_clock(),
            excluded: Vec::new(),
            lease: Duration::from_secs(600),
            metrics: ServerMetrics::default(),
            most_per_owner: 64,
            networks,
            restart_grace: Duration::from_secs(60),
            shutdown: CancellationToken::new(),
            subnet_lease_hours: 24,
        }
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("networks", &self.networks)
            .field("excluded", &self.excluded)
            .field("lease", &self.lease)
            .field("anonymous_grace", &self.anonymous_grace)
            .field("restart_grace", &self.restart_grace)
            .finish_non_exhaustive()
    }
}

/// A granted prefix, as shown to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantStatus {
    /// The prefix.
    pub prefix: Prefix,
    /// Whose, since when, until when.
    #[serde(flatten)]
    pub record: GrantRecord,
    /// Whether a stream holds it.
    pub connected: bool,
}

/// A server of prefixes; cheap to clone.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    options: ServerOptions,
    grants: Mutex<Grants>,
    store: Store,
    table: Table<GrantRecord>,
    streams: AtomicU64,
    /// Counts changes that came to an end, for those who wait for one.
    changes: watch::Sender<u64>,
}

/// Why a prefix was not granted, renewed or given back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error("the grant cannot be written down")]
    Store(#[from] carrick_store::Error),
}

impl Server {
    /// A server with the grants that `store` holds.
    ///
    /// # Errors
    ///
    /// See [`ServerError`].
    pub fn open(store: &Store, options: ServerOptions) -> Result<Self, ServerError> {
        if options.subnet_lease_hours < 2 {
            let hours = options.subnet_lease_hours;
            return Err(Invalid::new("subnet lease hours", hours, "2 or more").into());
        }
        if options.lease.is_zero() {
            return Err(Invalid::new("lease", "0s", "longer than nothing").into());
        }
        let table = store.table::<GrantRecord>(GRANTS);
        let known = table.all()?;
        let known = known
            .into_iter()
            .filter_map(|(key, record)| Some((key.parse().ok()?, record)));
        let grant_options = GrantOptions {
            lease: options.lease,
            anonymous_grace: options.anonymous_grace,
            restart_grace: options.restart_grace,
            most: options.most_per_owner,
        };
        let now = (options.clock)();
        let grants = Grants::new(
            &options.networks,
            &options.excluded,
            grant_options,
            known,
            now,
        )?;
        let server = Self {
            inner: Arc::new(Inner {
                options,
                grants: Mutex::new(grants),
                store: store.clone(),
                table,
                streams: AtomicU64::new(0),
                changes: watch::channel(0).0,
            }),
        };
        server.count();
        Ok(server)
    }

    /// The `ipam.IPAM` service.
    #[must_use]
    pub fn ipam(&self) -> IpamServer<Self> {
        IpamServer::new(self.clone())
    }

    /// The `ippool.Allocator` service.
    #[must_use]
    pub fn allocator(&self) -> AllocatorServer<Self> {
        AllocatorServer::new(self.clone())
    }

    /// What is granted, in order.
    #[must_use]
    pub fn status(&self) -> Vec<GrantStatus> {
        let grants = self.grants();
        let status = grants
            .iter()
            .map(|(prefix, record, connected)| GrantStatus {
                prefix,
                record: record.clone(),
                connected,
            });
        status.collect()
    }

    /// Takes back what nobody has shown a sign of for its time. Happens also
    /// whenever a prefix is asked for; called now and then it keeps the status
    /// and the gauge true.
    pub async fn sweep(&self) {
        let change = self.grants().expire(self.now());
        self.inner
            .options
            .metrics
            .expired
            .inc_by(change.remove.len() as u64);
        self.commit(change).await;
    }

    /// Sweeps every `interval` until the server is shut down.
    pub async fn run(&self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        let sweeping = async {
            loop {
                ticks.tick().await;
                self.sweep().await;
            }
        };
        self.inner
            .options
            .shutdown
            .run_until_cancelled(sweeping)
            .await;
    }

    /// Grants what is asked for; durable when this returns.
    async fn grant(&self, ask: &GrantAsk<'_>) -> Result<Granted, Refused> {
        self.sweep().await;
        let mut changes = self.inner.changes.subscribe();
        let granted = loop {
            changes.borrow_and_update();
            let result = self.grants().allocate(ask, self.now());
            match result {
                // The server holds the sender, so waiting ends with the change.
                Err(GrantError::Busy(_)) if changes.changed().await.is_ok() => {}
                result => break result,
            }
        };
        let metrics = &self.inner.options.metrics;
        let granted = granted.inspect_err(|_| {
            metrics.exhausted.inc();
        })?;
        self.put(&granted).await?;
        let counter = if granted.renewed {
            &metrics.renewals
        } else {
            &metrics.allocations
        };
        counter.inc();
        Ok(granted)
    }

    async fn put(&self, granted: &Granted) -> Result<(), Refused> {
        let key = granted.prefix.to_string();
        let written = self.inner.table.put(&key, &granted.record).await;
        if written.is_err() && !granted.renewed {
            let mut grants = self.grants();
            let unwritten = grants.withdraw(granted.prefix);
            grants.unwritten(&unwritten, self.now());
        }
        self.count();
        Ok(written?)
    }

    /// Writes `change` and ends it either way.
    async fn commit(&self, change: Change) {
        if change.put.is_empty() && change.remove.is_empty() {
            return;
        }
        let written = match self.batch(&change) {
            Ok(batch) => self.inner.store.commit(batch).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => self.grants().written(&change),
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    "grants cannot be written"
                );
                self.grants().unwritten(&change, self.now());
            }
        }
        self.inner.changes.send_modify(|changes| *changes += 1);
        self.count();
    }

    fn batch(&self, change: &Change) -> Result<Batch, carrick_store::Error> {
        let mut batch = Batch::new();
        for (prefix, record) in &change.put {
            batch = batch.put(&self.inner.table, &prefix.to_string(), record)?;
        }
        for prefix in &change.remove {
            batch = batch.remove(&self.inner.table, &prefix.to_string());
        }
        Ok(batch)
    }

    fn now(&self) -> SystemTime {
        (self.inner.options.clock)()
    }

    fn count(&self) {
        let count = i64::try_from(self.grants().count()).unwrap_or(i64::MAX);
        self.inner.options.metrics.leases.set(count);
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.inner
            .grants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}
