//! The client: many connections, each asks for the server's name.

mod attempt;
mod pace;
mod progress;
mod tally;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::report::{Held, Latency};
use crate::{Error, Report, Sources, Transport, allow_open_files};
use attempt::{Attempt, Failure, Stage};
use pace::Pace;
use tally::Tally;

pub(crate) use attempt::{Gone, fate, host};
pub use progress::{Progress, Seen};

/// Opens connections to a target and counts which server answers each.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where to.
    pub target: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// How many connections.
    pub connections: u64,
    /// How many are being made at a time, at least 1.
    pub concurrency: usize,
    /// Connections begun per second at most.
    pub rate: Option<f64>,
    /// Where from; every address must be local. Without it the kernel chooses.
    pub sources: Option<IpNet>,
    /// What the order of sources is made from.
    pub seed: u64,
    /// For all connections together; see [`Self::default_timeout`].
    pub timeout: Option<Duration>,
    /// For one connection, from its first packet to the name.
    pub connection_timeout: Option<Duration>,
    /// For UDP: how long to wait for an answer before the question is repeated.
    pub patience: Duration,
    /// For UDP: how often the question is repeated.
    pub retries: u32,
    /// Keep the connections open this long after the last was made, and count those that are lost meanwhile. Not UDP.
    pub hold: Option<Duration>,
}

/// What the workers share.
struct Work {
    client: Client,
    sources: Option<Sources>,
    next: AtomicU64,
    pace: Pace,
    deadline: Instant,
    progress: Arc<Progress>,
    stop: CancellationToken,
}

impl Client {
    /// One TCP connection to `target`, 64 at a time if more are asked for.
    #[must_use]
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            transport: Transport::Tcp,
            connections: 1,
            concurrency: 64,
            rate: None,
            sources: None,
            seed: 0,
            timeout: None,
            connection_timeout: None,
            patience: Duration::from_secs(1),
            retries: 2,
            hold: None,
        }
    }

    /// The time for all connections together if none is set: 2 s, and 1 s for every thousand; with a rate, what it
    /// takes besides.
    #[must_use]
    pub fn default_timeout(&self) -> Duration {
        let connections = crate::statistics::float(self.connections);
        let paced = self
            .rate
            .map_or(0.0, |rate| connections / rate.max(f64::MIN_POSITIVE));
        Duration::from_secs(2)
            + Duration::try_from_secs_f64(connections / 1000.0 + paced).unwrap_or(Duration::MAX / 4)
    }

    /// Makes the connections. Ends early, with what is not made counted as failed, when `stop` is cancelled; held
    /// connections are then let go.
    ///
    /// # Errors
    ///
    /// The kernel lacks the transport, the sources do not fit or are not local, or too few files may be open.
    pub async fn run(
        &self,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> Result<Report, Error> {
        self.check()?;
        let timeout = self.timeout.unwrap_or_else(|| self.default_timeout());
        let (start_time, start) = (SystemTime::now(), Instant::now());
        progress.expect(self.connections);
        let work = Arc::new(Work {
            client: self.clone(),
            sources: self.sources.map(|prefix| Sources::new(prefix, self.seed)),
            next: AtomicU64::new(0),
            pace: Pace::new(start, self.rate),
            deadline: start + timeout,
            progress,
            stop,
        });
        let mut tally = work.clone().make_all().await;
        let held = match self.hold {
            Some(hold) => Some(work.hold(&mut tally, hold).await),
            None => None,
        };
        Ok(Report {
            connects: self.connections,
            failed_connects: tally.failed_connects,
            failed_reads: tally.failed_reads,
            start_time,
            timeout,
            duration: start.elapsed(),
            transport: self.transport,
            target: self.target.to_string(),
            seed: self.sources.map(|_| self.seed),
            errors: tally.errors,
            retried: tally.retried,
            held,
            connect_latency: Latency::of(&mut tally.connect_times),
            answer_latency: Latency::of(&mut tally.answer_times),
            hosts: tally.hosts,
        })
    }

    fn check(&self) -> Result<(), Error> {
        self.transport.check()?;
        check_sources(self.sources, self.target, self.seed)?;
        let at_a_time = u64::try_from(self.concurrency).unwrap_or(u64::MAX);
        let open = if self.hold.is_some() {
            self.connections
        } else {
            at_a_time.min(self.connections)
        };
        allow_open_files(open)
    }
}

/// Whether sources and target go together, and an address of the sources can be used.
pub(crate) fn check_sources(
    sources: Option<IpNet>,
    target: SocketAddr,
    seed: u64,
) -> Result<(), Error> {
    let Some(sources) = sources else {
        return Ok(());
    };
    if sources.addr().is_ipv4() != target.is_ipv4() {
        return Err(Error::Family { sources, target });
    }
    let address = Sources::new(sources, seed).address(0);
    // Without free binding, which would hide that no answer ever comes back; IPv6 takes only addresses of interfaces
    // so, hence it is tried by asking for a route from there.
    let tried = std::net::UdpSocket::bind((address, 0)).map(drop);
    match tried {
        Err(source) if address.is_ipv4() => Err(Error::Source {
            address,
            sources,
            source,
        }),
        _ => Ok(()),
    }
}

impl Work {
    async fn make_all(self: Arc<Self>) -> Tally {
        let workers = self.client.concurrency.max(1);
        let workers = u64::try_from(workers)
            .unwrap_or(u64::MAX)
            .min(self.client.connections);
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            tasks.spawn(self.clone().make_some());
        }
        let mut all = Tally::default();
        while let Some(done) = tasks.join_next().await {
            // A worker only ends by a panic if this program is wrong; what it did then counts as not made.
            if let Ok(tally) = done {
                all.add(tally);
            }
        }
        let tried = all.tried();
        let kind = if self.stop.is_cancelled() {
            "interrupted"
        } else {
            "no time left"
        };
        all.never_tried(self.client.connections - tried, kind);
        all
    }

    /// One worker: takes the next connection until there is none.
    async fn make_some(self: Arc<Self>) -> Tally {
        let mut tally = Tally::default();
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.client.connections || !self.may_begin(index).await {
                return tally;
            }
            let source = self.sources.as_ref().map(|sources| sources.address(index));
            let made = self.attempt(source).await;
            self.progress.count(made.is_ok());
            match made {
                Ok(attempt) => tally.made(attempt, self.client.hold.is_some()),
                Err(failure) => tally.failed(&failure),
            }
        }
    }

    /// Waits for its turn; whether there is time left then.
    async fn may_begin(&self, index: u64) -> bool {
        let due = self.pace.due(index).min(self.deadline);
        if due > Instant::now() {
            let turn = tokio::time::sleep_until(due);
            let _ = self.stop.run_until_cancelled(turn).await;
        }
        !self.stop.is_cancelled() && Instant::now() < self.deadline
    }

    async fn attempt(&self, source: Option<IpAddr>) -> Result<Attempt, Failure> {
        let own = self
            .client
            .connection_timeout
            .map(|timeout| Instant::now() + timeout);
        let deadline = own.map_or(self.deadline, |own| own.min(self.deadline));
        let attempt = Attempt::make(&self.client, source, deadline);
        let made = self.stop.run_until_cancelled(attempt).await;
        made.unwrap_or_else(|| Err(Failure::new(Stage::Connect, "interrupted")))
    }

    /// Keeps the connections for the time; says how many were lost.
    async fn hold(&self, tally: &mut Tally, time: Duration) -> Held {
        self.progress.hold(tally.streams.len());
        let _ = self
            .stop
            .run_until_cancelled(tokio::time::sleep(time))
            .await;
        let lost = tally.streams.drain(..).filter(is_lost).count();
        Held {
            lasting: tally.answered() - lost as u64,
            lost: lost as u64,
        }
    }
}

/// Whether the other end closed or reset it; names that came meanwhile are read past.
fn is_lost(stream: &TcpStream) -> bool {
    let mut bytes = [0; 256];
    loop {
        match stream.try_read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}
