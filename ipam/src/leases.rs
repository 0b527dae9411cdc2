//! The lease book of one endpoint: who has which address, durable before it is
//! answered.
//!
//! Leases are found by connection id, so a refresh or a restored connection
//! keeps its address; and by client ([`ClientId`]), so a client that heals with
//! a new id takes its address along, and one that closed gets it again while
//! nobody else does.

mod book;
mod history;
mod plan;
mod record;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use carrick_store::{Batch, Staged, Store, Table};
use carrick_types::{ConnectionId, Prefix};

use book::{Book, BookOptions};
pub(crate) use plan::Ask;
pub use plan::LeaseError;
pub use record::{ClientId, Former, Lease};

use crate::{Clock, EndpointMetrics, Grant, system_clock};

pub(crate) const LEASES: &str = "ipam.leases";
pub(crate) const HISTORY: &str = "ipam.history";

/// Between the scope and the rest of a key; no name holds it.
pub(crate) const SEPARATOR: char = '\u{1f}';

/// How leases are kept.
#[derive(Clone)]
pub struct LeaseOptions {
    /// Where the time is read.
    pub clock: Clock,
    /// Most extra prefixes of one connection, default 16.
    pub extra_prefixes: u32,
    /// How many former clients are remembered, default 16,384.
    pub history: usize,
    /// How long they are remembered, default 24 h.
    pub history_age: Duration,
    /// Where counters are kept.
    pub metrics: EndpointMetrics,
    /// How long a released address is kept from everybody but its former
    /// client, unless nothing else is left. Default none: NSM's endpoints give
    /// the lowest free address at once.
    pub rest: Duration,
    /// How long leases of an earlier run wait for their connections before
    /// they may be given to others, default 10 min (NSM's token lifetime).
    pub return_time: Duration,
    /// Tells the leases of one set of services from another's in the same
    /// store: two services may use the same network.
    pub scope: String,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self {
            clock: system_clock(),
            extra_prefixes: 16,
            history: 16_384,
            history_age: Duration::from_secs(24 * 3600),
            metrics: EndpointMetrics::default(),
            rest: Duration::ZERO,
            return_time: Duration::from_secs(600),
            scope: String::new(),
        }
    }
}

impl fmt::Debug for LeaseOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseOptions")
            .field("rest", &self.rest)
            .field("return_time", &self.return_time)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// The lease book; cheap to clone.
#[derive(Clone)]
pub struct Leases {
    inner: Arc<Inner>,
}

struct Inner {
    book: Mutex<Book>,
    store: Store,
    leases: Table<Lease>,
    history: Table<Former>,
    options: LeaseOptions,
}

/// What a connection has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leased {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) extra: Vec<Prefix>,
}

/// Leases that are on their way to the disk. Dropped, they may or may not get
/// there; the connection's next request or release sees to it.
#[derive(Debug)]
pub(crate) struct Unwritten {
    leases: Leases,
    staged: Staged,
    plan: plan::Plan,
}

impl Unwritten {
    /// Waits until they are durable.
    pub(crate) async fn written(self) -> Result<(), Error> {
        self.staged.written().await?;
        let (leases, put) = (self.leases, self.plan.put.len());
        leases.book().written(&self.plan, leases.now());
        leases.metrics().allocations.inc_by(put as u64);
        leases.count();
        Ok(())
    }
}

/// Why a lease could not be given or taken back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none to give.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The store refused.
    #[error("a lease cannot be written down")]
    Store(#[from] carrick_store::Error),
}

impl Leases {
    /// The leases that `store` holds.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub fn open(store: &Store, options: LeaseOptions) -> Result<Self, carrick_store::Error> {
        let leases = store.table::<Lease>(LEASES);
        let history = store.table::<Former>(HISTORY);
        let scope = format!("{}{SEPARATOR}", options.scope);
        let known = leases.all()?.into_iter().filter_map(|(key, lease)| {
            Some((key.strip_prefix(&scope)?.parse::<Prefix>().ok()?, lease))
        });
        let former = history
            .all()?
            .into_iter()
            .filter(|(key, _)| key.starts_with(&scope));
        let book_options = BookOptions {
            rest: options.rest,
            history: options.history,
            history_age: options.history_age,
            return_time: options.return_time,
            extra_prefixes: options.extra_prefixes,
        };
        let former = former.map(|(_, former)| former);
        let book = Book::new(book_options, known, former, (options.clock)());
        let leases = Self {
            inner: Arc::new(Inner {
                book: Mutex::new(book),
                store: store.clone(),
                leases,
                history,
                options,
            }),
        };
        leases.count();
        Ok(leases)
    }

    /// What the connection has from now on; durable when this returns.
    #[cfg(test)]
    pub(crate) async fn lease(
        &self,
        ask: &Ask<'_>,
        grants: &Arc<[Grant]>,
    ) -> Result<Leased, Error> {
        let (leased, unwritten) = self.begin(ask, grants).await?;
        if let Some(unwritten) = unwritten {
            unwritten.written().await?;
        }
        Ok(leased)
    }

    /// What the connection has from now on, and what has to be written before
    /// anybody is told.
    pub(crate) async fn begin(
        &self,
        ask: &Ask<'_>,
        grants: &Arc<[Grant]>,
    ) -> Result<(Leased, Option<Unwritten>), Error> {
        let mut plan = match self.plan(ask, grants) {
            Err(LeaseError::Full { .. } | LeaseError::Excluded { .. })
                if self.release_absent(false).await? =>
            {
                self.plan(ask, grants)
            }
            plan => plan,
        }?;
        let leased = Leased {
            addresses: std::mem::take(&mut plan.addresses),
            extra: std::mem::take(&mut plan.extra),
        };
        if plan.is_written() {
            return Ok((leased, None));
        }
        let mut batch = Batch::new();
        for (prefix, lease) in plan.put.iter().chain(&plan.give_back) {
            batch = batch.put(&self.inner.leases, &self.key(prefix), lease)?;
        }
        for prefix in &plan.remove {
            batch = batch.remove(&self.inner.leases, &self.key(prefix));
        }
        let unwritten = Unwritten {
            leases: self.clone(),
            staged: self.inner.store.stage(batch),
            plan,
        };
        Ok((leased, Some(unwritten)))
    }

    fn plan(&self, ask: &Ask<'_>, grants: &Arc<[Grant]>) -> Result<plan::Plan, LeaseError> {
        let now = self.now();
        let mut book = self.book();
        book.set_grants(grants, now);
        book.request(ask, now)
    }

    /// Takes back what the connection has; its client is remembered. Nothing
    /// to take back is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]; the connection still has its leases then.
    pub async fn release(&self, connection: &ConnectionId) -> Result<(), Error> {
        let now = self.now();
        loop {
            let release = self.book().release(connection);
            if release.is_empty() {
                return Ok(());
            }
            if !release.give_back.is_empty() {
                let mut batch = Batch::new();
                for (prefix, lease) in &release.give_back {
                    batch = batch.put(&self.inner.leases, &self.key(prefix), lease)?;
                }
                self.inner.store.commit(batch).await?;
                self.book().given_back(&release.give_back);
            }
            let former = self.book().former(&release.remove, now);
            self.take_off(release.remove, former, now).await?;
        }
    }

    /// Takes leases off the disk and only then out of the book: what may still
    /// be on disk is not given to another.
    async fn take_off(
        &self,
        prefixes: Vec<Prefix>,
        former: Option<Former>,
        now: SystemTime,
    ) -> Result<(), Error> {
        if prefixes.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for prefix in &prefixes {
            batch = batch.remove(&self.inner.leases, &self.key(prefix));
        }
        if let Some(former) = &former {
            for client in self.book().history_overflow(former, now) {
                batch = batch.remove(&self.inner.history, &self.key(&client));
            }
            batch = batch.put(&self.inner.history, &self.key(&former.client), former)?;
        }
        self.inner.store.commit(batch).await?;
        self.book().released(&prefixes, former, now);
        self.count();
        Ok(())
    }

    /// Takes back the leases of connections that have not come back since the
    /// store was opened: all of them, or those that are overdue. Says whether
    /// there were any. For after the connections of an earlier run were
    /// restored; without it, overdue leases go when addresses run out.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn release_absent(&self, all: bool) -> Result<bool, Error> {
        let now = self.now();
        let overdue = self.book().overdue(all, now);
        let any = !overdue.is_empty();
        self.take_off(overdue, None, now).await?;
        Ok(any)
    }

    /// Connections of an earlier run that hold leases and have not come back.
    #[must_use]
    pub fn absent(&self) -> Vec<ConnectionId> {
        self.book().waited_for()
    }

    /// All leases, in order of their addresses.
    #[must_use]
    pub fn all(&self) -> Vec<(Prefix, Lease)> {
        self.book()
            .leases()
            .map(|(prefix, lease)| (prefix, lease.clone()))
            .collect()
    }

    pub(crate) fn metrics(&self) -> &EndpointMetrics {
        &self.inner.options.metrics
    }

    fn key(&self, what: &impl fmt::Display) -> String {
        format!("{}{SEPARATOR}{what}", self.inner.options.scope)
    }

    fn now(&self) -> SystemTime {
        (self.inner.options.clock)()
    }

    fn count(&self) {
        let leases = self.book().count();
        self.metrics()
            .leases
            .set(i64::try_from(leases).unwrap_or(i64::MAX));
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.inner
            .book
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases")
            .field("options", &self.inner.options)
            .field("leases", &self.book().count())
            .finish_non_exhaustive()
    }
}
