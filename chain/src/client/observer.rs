use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use carrick_types::{Connection, ConnectionId};
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::heal::{Control, Data};
use super::news::News;
use super::reason::Reason;
use super::{Events, MonitorEnd, Shared};
use crate::{ConnectionEvent, Error, Selector};

/// Looks after a kept connection: its control plane by a monitor stream, its
/// data plane by probes.
pub(super) struct Observer {
    shared: Arc<Shared>,
    id: ConnectionId,
    pub(super) control: Control,
    pub(super) data: Data,
    /// The other side asks for a Request.
    pub(super) refresh: bool,
    stream: Stream,
    open_failures: u32,
    /// Why it could not be opened.
    reason: Reason,
    misses: u32,
    probe: Probe,
}

/// The monitor stream.
enum Stream {
    /// Not to be opened before the next answer.
    Closed,
    Open(Events),
    Opening(BoxFuture<'static, Result<Events, Error>>),
    Waiting(Instant),
}

enum Probe {
    Running(BoxFuture<'static, bool>),
    Waiting(Instant),
}

enum Seen {
    Event(Option<Result<ConnectionEvent, MonitorEnd>>),
    Opened(Result<Events, Error>),
    Probed(bool),
    TimeToOpen,
    TimeToProbe,
}

/// How long the first Request waits for the monitor stream, so that no event
/// falls between them.
const OPEN_FIRST: Duration = Duration::from_secs(1);

impl Observer {
    pub(super) fn new(shared: Arc<Shared>, id: ConnectionId) -> Self {
        Self {
            shared,
            id,
            control: Control::Up,
            data: Data::Unknown,
            refresh: false,
            stream: Stream::Closed,
            open_failures: 0,
            reason: Reason::default(),
            misses: 0,
            probe: Probe::Waiting(Instant::now()),
        }
    }

    /// Opens the stream before the first Request.
    pub(super) async fn open_first(&mut self) {
        self.stream = Stream::Opening(self.open());
        // Nothing else runs yet, as nothing is kept: one step is the opening.
        let _ = timeout(OPEN_FIRST, self.observe(None)).await;
    }

    /// Notes an answer: what was heard before is about what was before. `new`
    /// says that it is another connection than before.
    pub(super) fn answered(&mut self, new: bool) {
        self.control = Control::Up;
        if new {
            self.data = Data::Unknown;
            self.misses = 0;
            self.probe = Probe::Waiting(self.next_probe());
        }
        if matches!(self.stream, Stream::Closed | Stream::Waiting(_)) {
            self.stream = Stream::Opening(self.open());
        }
    }

    /// Waits for one thing to happen and notes it. Nothing is lost if this is
    /// dropped while it waits.
    pub(super) async fn observe(&mut self, kept: Option<&Arc<Connection>>) {
        let probing = kept.is_some() && self.shared.options.liveness.is_some();
        let seen = tokio::select! {
            biased;
            seen = next_of_stream(&mut self.stream) => seen,
            seen = next_of_probe(&mut self.probe), if probing => seen,
        };
        match seen {
            Seen::Event(Some(Ok(event))) => self.heard(&event, kept),
            Seen::Event(end) => self.ended(end.and_then(Result::err).as_ref()),
            Seen::Opened(opened) => self.opened(opened),
            Seen::Probed(alive) => self.probed(alive),
            Seen::TimeToOpen => self.stream = Stream::Opening(self.open()),
            Seen::TimeToProbe => {
                if let Some(probe) = kept.and_then(|kept| self.start_probe(kept)) {
                    self.probe = Probe::Running(probe);
                }
            }
        }
    }

    /// Probes now: dead only if that many probes in a row fail as it takes.
    pub(super) async fn look(&mut self, kept: &Arc<Connection>) {
        for _ in 0..self.shared.options.liveness_misses {
            let Some(probe) = self.start_probe(kept) else {
                return;
            };
            self.data = if probe.await { Data::Alive } else { Data::Dead };
            if self.data == Data::Alive {
                return;
            }
        }
    }

    fn heard(&mut self, event: &ConnectionEvent, kept: Option<&Arc<Connection>>) {
        let mut news = News::default();
        news.add(event, &self.id, kept.map(|kept| &**kept));
        self.refresh |= news.refresh;
        self.control = news.control.unwrap_or(self.control);
    }

    fn ended(&mut self, end: Option<&MonitorEnd>) {
        self.stream = Stream::Closed;
        match end {
            Some(MonitorEnd::Cancelled) => debug!("told not to heal until the next answer"),
            Some(MonitorEnd::Lost(_)) | None => {
                debug!(?end, "monitor stream lost");
                self.control = Control::Down;
            }
        }
    }

    fn opened(&mut self, opened: Result<Events, Error>) {
        match opened {
            Ok(events) => {
                self.stream = Stream::Open(events);
                self.open_failures = 0;
                self.reason.forget();
            }
            Err(error) => {
                if self.reason.is_new(&error) {
                    warn!(error = %self.reason, "cannot monitor the connection, trying again");
                } else {
                    debug!(error = %self.reason, "cannot monitor the connection yet");
                }
                self.open_failures = self.open_failures.saturating_add(1);
                let wait = self
                    .shared
                    .options
                    .back_off
                    .after(self.open_failures, fastrand::f64());
                self.stream = Stream::Waiting(Instant::now() + wait);
            }
        }
    }

    fn probed(&mut self, alive: bool) {
        self.misses = if alive {
            0
        } else {
            self.misses.saturating_add(1)
        };
        if alive {
            self.data = Data::Alive;
        } else if self.misses >= self.shared.options.liveness_misses {
            self.data = Data::Dead;
        }
        self.probe = Probe::Waiting(self.next_probe());
    }

    fn next_probe(&self) -> Instant {
        Instant::now() + self.shared.options.liveness_interval
    }

    fn open(&self) -> BoxFuture<'static, Result<Events, Error>> {
        let remote = self.shared.remote.clone();
        let selector = Selector::segment(&self.shared.options.name, self.id.as_str());
        Box::pin(async move { remote.monitor(selector).await })
    }

    fn start_probe(&self, kept: &Arc<Connection>) -> Option<BoxFuture<'static, bool>> {
        let liveness = self.shared.options.liveness.clone()?;
        let (kept, time) = (kept.clone(), self.shared.options.liveness_timeout);
        Some(Box::pin(async move {
            timeout(time, liveness.alive(&kept)).await.unwrap_or(false)
        }))
    }
}

async fn next_of_stream(stream: &mut Stream) -> Seen {
    match stream {
        Stream::Closed => pending().await,
        Stream::Open(events) => Seen::Event(events.next().await),
        Stream::Opening(opening) => Seen::Opened(opening.await),
        Stream::Waiting(until) => {
            sleep_until(*until).await;
            Seen::TimeToOpen
        }
    }
}

async fn next_of_probe(probe: &mut Probe) -> Seen {
    match probe {
        Probe::Running(running) => Seen::Probed(running.await),
        Probe::Waiting(until) => {
            sleep_until(*until).await;
            Seen::TimeToProbe
        }
    }
}
