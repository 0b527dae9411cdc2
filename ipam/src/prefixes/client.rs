use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use carrick_grpc::Channel;
use carrick_store::{Store, Table};
use carrick_types::{Invalid, IpFamily, Prefix};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::session::Link;
use super::{Further, Grant, Prefixes, Refusal};
use crate::leases::SEPARATOR;
use crate::{Clock, EndpointMetrics, system_clock};

pub(crate) const PREFIXES: &str = "ipam.prefixes";

/// A server to lease prefixes from.
#[derive(Clone, Debug)]
pub struct PrefixServer {
    /// Its name in logs and status, such as its URL.
    pub name: String,
    /// The way to it; should have HTTP/2 keep-alive.
    pub channel: Channel,
    /// The family to ask for, where the server has both; `None` takes what
    /// the server prefers.
    pub family: Option<IpFamily>,
}

/// How prefixes are leased.
#[derive(Clone)]
pub struct PrefixOptions {
    /// Time that a server has for an answer, default 10 s.
    pub answer_timeout: Duration,
    /// Pause after the first failure, default 200 ms; it doubles each time.
    pub back_off: Duration,
    /// Longest pause, default 10 s. Pauses are shortened by up to half at
    /// random, so that endpoints do not come back all at once.
    pub back_off_max: Duration,
    /// Where the time is read.
    pub clock: Clock,
    /// Prefixes that no grant may overlap.
    pub excluded: Vec<Prefix>,
    /// Where counters are kept.
    pub metrics: EndpointMetrics,
    /// Most prefixes from one server, default 16.
    pub most: usize,
    /// Name under which servers keep the prefixes: this endpoint's, the same
    /// after a restart.
    pub owner: String,
    /// Tells these prefixes from another endpoint's in the same store.
    pub scope: String,
    /// One server per prefix that there must be, so one per family.
    pub servers: Vec<PrefixServer>,
}

impl PrefixOptions {
    /// Leases for `owner` from `servers`, with the defaults for the rest.
    #[must_use]
    pub fn new(owner: impl Into<String>, servers: Vec<PrefixServer>) -> Self {
        Self {
            answer_timeout: Duration::from_secs(10),
            back_off: Duration::from_millis(200),
            back_off_max: Duration::from_secs(10),
            clock: system_clock(),
            excluded: Vec::new(),
            metrics: EndpointMetrics::default(),
            most: 16,
            owner: owner.into(),
            scope: String::new(),
            servers,
        }
    }
}

impl fmt::Debug for PrefixOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefixOptions")
            .field("owner", &self.owner)
            .field("scope", &self.scope)
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

/// Why prefixes cannot be leased at all.
#[derive(Debug, thiserror::Error)]
pub enum PrefixError {
    /// An option is wrong.
    #[error("the options of the prefix client are wrong")]
    Options(#[from] Invalid),
    /// The store cannot be read.
    #[error("the prefixes of an earlier run cannot be read")]
    Store(#[from] carrick_store::Error),
}

/// A prefix that a server granted, as it is kept for the next run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPrefix {
    /// The prefix and what is excluded of it.
    #[serde(flatten)]
    pub grant: Grant,
    /// Until when the server keeps it without a sign of us, where it says so.
    /// Before that the prefix may be used after a restart without asking.
    #[serde(with = "carrick_types::rfc3339::option")]
    pub valid_until: Option<SystemTime>,
}

/// How one server is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Its name.
    pub server: String,
    /// Whether its stream is up.
    pub connected: bool,
    /// Why it is not, or was not the last time.
    pub last_error: Option<String>,
    /// What it granted.
    pub prefixes: Vec<StoredPrefix>,
}

/// The tasks that keep the prefixes of an endpoint: one for each server.
/// Dropped, they end and the prefixes are kept by their servers.
#[derive(Debug)]
pub struct PrefixClient {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    release: watch::Sender<bool>,
    _end: DropGuard,
}

/// What the tasks of all servers share.
pub(super) struct Shared {
    pub(super) options: PrefixOptions,
    pub(super) store: Table<Vec<StoredPrefix>>,
    links: Mutex<Vec<LinkStatus>>,
    /// Per server what is being written down, so that two answers at once
    /// cannot both be believed. Locked before `links`.
    claims: Mutex<Vec<Option<Prefix>>>,
    grants: watch::Sender<Arc<[Grant]>>,
    refusals: watch::Sender<Refusal>,
    pub(super) end: CancellationToken,
}

impl Prefixes {
    /// Leases prefixes from servers. Those of an earlier run are asked for
    /// again, and used at once as long as their lease surely holds; nothing is
    /// published before every server has granted something.
    ///
    /// # Errors
    ///
    /// See [`PrefixError`].
    pub fn lease(
        options: PrefixOptions,
        store: &Store,
    ) -> Result<(Self, PrefixClient), PrefixError> {
        let owner_fits =
            !options.owner.is_empty() && options.owner.bytes().all(|b| b.is_ascii_graphic());
        if !owner_fits {
            let expected = "a name of printable ASCII characters without spaces";
            return Err(Invalid::new("owner", &options.owner, expected).into());
        }
        if options.servers.is_empty() {
            return Err(Invalid::new("prefix servers", "", "at least one server").into());
        }
        let table = store.table::<Vec<StoredPrefix>>(PREFIXES);
        let stored = |index: usize| table.value(&key(&options.scope, index));
        let stored: Vec<Vec<StoredPrefix>> = (0..options.servers.len())
            .map(|index| Ok(stored(index)?.unwrap_or_default()))
            .collect::<Result<_, carrick_store::Error>>()?;
        let (grants, seen) = watch::channel(Arc::from([]));
        let (refusals, refused) = watch::channel(Refusal::default());
        let end = CancellationToken::new();
        let now = (options.clock)();
        let links = options
            .servers
            .iter()
            .zip(&stored)
            .map(|(server, stored)| LinkStatus {
                server: server.name.clone(),
                connected: false,
                last_error: None,
                prefixes: stored
                    .iter()
                    .filter(|prefix| prefix.valid_until > Some(now))
                    .cloned()
                    .collect(),
            });
        let shared = Arc::new(Shared {
            links: Mutex::new(links.collect()),
            claims: Mutex::new(vec![None; options.servers.len()]),
            options,
            store: table,
            grants,
            refusals,
            end: end.clone(),
        });
        shared.publish();
        let (tasks, (release, releasing)) = (TaskTracker::new(), watch::channel(false));
        let mut further = Vec::new();
        for (index, stored) in stored.into_iter().enumerate() {
            let (sender, asked) = mpsc::channel(1);
            further.push(sender);
            let link = Link::new(Arc::clone(&shared), index, stored, asked, releasing.clone());
            tasks.spawn(link.run());
        }
        tasks.close();
        let prefixes = Self {
            grants: seen,
            further: further.into(),
            refusals: refused,
        };
        let client = PrefixClient {
            shared,
            tasks,
            release,
            _end: end.drop_guard(),
        };
        Ok((prefixes, client))
    }
}

impl PrefixClient {
    /// Ends the tasks; with `release` the servers are told that the prefixes
    /// are free, else they keep them for a while. Says whether all of it was
    /// done within `grace`.
    pub async fn shutdown(&self, release: bool, grace: Duration) -> bool {
        self.release.send_replace(release);
        self.shared.end.cancel();
        timeout(grace, self.tasks.wait()).await.is_ok()
    }

    /// How each server is doing.
    #[must_use]
    pub fn status(&self) -> Vec<LinkStatus> {
        self.shared.lock().clone()
    }
}

impl Shared {
    /// Changes the status of one server; publishes if prefixes changed.
    pub(super) fn update(&self, index: usize, change: impl FnOnce(&mut LinkStatus)) {
        change(&mut self.lock()[index]);
        self.publish();
    }

    pub(super) fn grants(&self) -> Arc<[Grant]> {
        Arc::clone(&self.grants.borrow())
    }

    /// Keeps `prefix` for one server until [`Shared::settle`], unless it overlaps
    /// what another server granted; says whether it did.
    pub(super) fn claim(&self, index: usize, prefix: Prefix) -> bool {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let mut others = self.others(index);
        others.extend(claims.iter().flatten());
        let free = !others.iter().any(|other| other.overlaps(prefix));
        if free {
            claims[index] = Some(prefix);
        }
        free
    }

    /// Ends a claim: the prefix is published, or not granted after all.
    pub(super) fn settle(&self, index: usize) {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)[index] = None;
    }

    /// Prefixes of other servers, which a grant must not overlap.
    fn others(&self, index: usize) -> Vec<Prefix> {
        let links = self.lock();
        let others = links
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index);
        others
            .flat_map(|(_, link)| &link.prefixes)
            .map(|stored| stored.grant.prefix)
            .collect()
    }

    pub(super) fn refuse(&self, family: IpFamily, reason: String) {
        self.refusals.send_replace(Refusal(Some((family, reason))));
    }

    fn publish(&self) {
        let links = self.lock();
        let ready = links.iter().all(|link| !link.prefixes.is_empty());
        let all = links
            .iter()
            .flat_map(|link| &link.prefixes)
            .filter(|_| ready);
        let now: Arc<[Grant]> = all.map(|stored| stored.grant.clone()).collect();
        self.grants.send_if_modified(|grants| {
            let modified = **grants != *now;
            if modified {
                self.options
                    .metrics
                    .prefixes
                    .set(i64::try_from(now.len()).unwrap_or(i64::MAX));
                *grants = now;
            }
            modified
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<LinkStatus>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("links", &self.lock())
            .finish_non_exhaustive()
    }
}

/// Key of the prefixes of the server at `index` of the list: a server that
/// moved to another URL is asked for them too.
pub(super) fn key(scope: &str, index: usize) -> String {
    format!("{scope}{SEPARATOR}{index}")
}

/// What a task is asked for by [`Prefixes::further`].
pub(super) type Asked = mpsc::Receiver<Further>;
