//! Long-lived flows: each is asked again and again, and what happens to it is noted.

mod flow;
mod report;
mod talk;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::check_sources;
use crate::{Error, Sources, Transport, allow_open_files};

pub use flow::{End, Event, Flow, Happened};
pub use report::{Held, WatchReport};

/// Holds flows to a target and notes resets, stalls and what resumes.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Where to.
    pub target: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// How many flows.
    pub flows: u64,
    /// How many are being opened at a time, at least 1.
    pub concurrency: usize,
    /// Pause between two questions of a flow.
    pub interval: Duration,
    /// A flow without an answer for this long is stalled.
    pub stall: Duration,
    /// How long to wait for a flow to open.
    pub open_timeout: Duration,
    /// How long to watch, from the moment all flows are open; without it until it is stopped.
    pub duration: Option<Duration>,
    /// Where from; every address must be local. Without it the kernel chooses.
    pub sources: Option<IpNet>,
    /// What the order of sources is made from.
    pub seed: u64,
}

/// Counted while a watch runs, for whoever wants to show it.
#[derive(Debug, Default)]
pub struct Gauge {
    opened: AtomicU64,
    failed: AtomicU64,
    stalled: AtomicU64,
    broken: AtomicU64,
    exchanges: AtomicU64,
}

/// What is so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flowing {
    /// Flows that were opened.
    pub opened: u64,
    /// Flows that could not be opened.
    pub failed: u64,
    /// Flows that wait for an answer for too long.
    pub stalled: u64,
    /// Flows that were reset, closed or moved to another server.
    pub broken: u64,
    /// Questions that were answered.
    pub exchanges: u64,
}

impl Gauge {
    /// What is so far.
    #[must_use]
    pub fn seen(&self) -> Flowing {
        Flowing {
            opened: self.opened.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            stalled: self.stalled.load(Ordering::Relaxed),
            broken: self.broken.load(Ordering::Relaxed),
            exchanges: self.exchanges.load(Ordering::Relaxed),
        }
    }

    /// Whether every one of `flows` flows was tried.
    #[must_use]
    pub fn all_tried(&self, flows: u64) -> bool {
        let seen = self.seen();
        seen.opened + seen.failed >= flows
    }

    fn follow(&self, event: &Event) {
        match event.happened {
            Happened::Stalled => self.stalled.fetch_add(1, Ordering::Relaxed),
            Happened::Resumed { .. } => self.stalled.fetch_sub(1, Ordering::Relaxed),
            Happened::Reset | Happened::Closed | Happened::Moved { .. } => {
                self.broken.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// What the flows share.
pub(crate) struct Shared {
    pub(crate) watch: Watch,
    pub(crate) start: Instant,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) stop: CancellationToken,
    opening: Semaphore,
}

impl Watch {
    /// One TCP flow to `target`, asked once a second.
    #[must_use]
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            transport: Transport::Tcp,
            flows: 1,
            concurrency: 64,
            interval: Duration::from_secs(1),
            stall: Duration::from_secs(1),
            open_timeout: Duration::from_secs(5),
            duration: None,
            sources: None,
            seed: 0,
        }
    }

    /// Watches until the time is over or `stop` is cancelled. Every event is given to `tell` when it happens.
    ///
    /// # Errors
    ///
    /// The kernel lacks the transport, the sources do not fit or are not local, or too few files may be open.
    pub async fn run(
        &self,
        gauge: Arc<Gauge>,
        stop: CancellationToken,
        mut tell: impl FnMut(&Event),
    ) -> Result<WatchReport, Error> {
        self.transport.check()?;
        check_sources(self.sources, self.target, self.seed)?;
        allow_open_files(self.flows)?;
        let (started, start) = (SystemTime::now(), Instant::now());
        let sources = self.sources.map(|prefix| Sources::new(prefix, self.seed));
        let shared = Arc::new(Shared {
            watch: self.clone(),
            start,
            gauge,
            stop: stop.child_token(),
            opening: Semaphore::new(self.concurrency.max(1)),
        });
        // Holds what the flows of one moment tell; a flow waits when it is full.
        let (events, mut told) = tokio::sync::mpsc::channel(1024);
        let mut tasks = JoinSet::new();
        for number in 0..self.flows {
            let source = sources.as_ref().map(|sources| sources.address(number));
            tasks.spawn(talk::keep(shared.clone(), number, source, events.clone()));
        }
        drop(events);
        let clock = tokio::spawn(end_in_time(shared.clone()));
        let mut all = Vec::new();
        while let Some(event) = told.recv().await {
            tell(&event);
            all.push(event);
        }
        clock.abort();
        let flows = tasks.join_all().await;
        Ok(WatchReport::new(
            self,
            started,
            start.elapsed(),
            &flows,
            all,
        ))
    }
}

/// Stops the watch when its time is over.
async fn end_in_time(shared: Arc<Shared>) {
    let Some(duration) = shared.watch.duration else {
        return;
    };
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while !shared.gauge.all_tried(shared.watch.flows) {
        tick.tick().await;
    }
    tokio::time::sleep(duration).await;
    shared.stop.cancel();
}
