use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use carrick_types::{Connection, ConnectionId, State};
use futures::FutureExt;
use futures::future::join;
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, Span, debug, error, info, info_span, warn};

use super::mailbox::{Event, Events, Held, News, Request};
use super::{Endpoint, options};
use crate::element::Slots;
use crate::{Error, Kind, path};

/// The task of one connection: owns what its elements hold, its last answer
/// and its timer.
pub(super) struct Worker {
    endpoint: Endpoint,
    id: ConnectionId,
    events: Events,
    slots: Slots,
    phase: Phase,
    /// Time the last Request had; what is asked for from the inside has the same.
    patience: Duration,
    /// The journal may hold this connection.
    journalled: bool,
    /// Until when the journal says that the connection lives, where it holds
    /// the last answer but for its tokens.
    kept_until: Option<SystemTime>,
    /// The endpoint shuts down: what could not be closed is tried often.
    hurried: bool,
}

enum Phase {
    Down,
    Up {
        answer: Arc<Connection>,
        expires: Instant,
        /// Whether the chain of this process has answered it, rather than only
        /// that of its predecessor.
        served: bool,
    },
    /// Some element could not close yet.
    Closing {
        connection: Arc<Connection>,
        failures: u32,
        retry: Instant,
    },
}

/// What the task does next.
enum Step {
    Asked,
    Close,
    Event(Event),
    Stop,
}

impl Worker {
    pub(super) fn new(endpoint: Endpoint, id: ConnectionId, events: Events) -> Self {
        let slots = endpoint.0.chain.open();
        Self {
            endpoint,
            id,
            events,
            slots,
            phase: Phase::Down,
            patience: options::RESTORE_TIMEOUT,
            journalled: false,
            kept_until: None,
            hurried: false,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let step = self.next_step().await;
            if matches!(step, Step::Stop) {
                return;
            }
            // Boxed: the state of a Request shall not weigh on an idle task.
            let span = self.span(&step);
            let handled = Box::pin(AssertUnwindSafe(self.handle(step).instrument(span)));
            if handled.catch_unwind().await.is_err() {
                return self.give_up();
            }
            if matches!(self.phase, Phase::Down) && self.retire() {
                return;
            }
        }
    }

    /// What a caller asks for belongs to the caller's trace.
    fn span(&self, step: &Step) -> Span {
        if let Step::Event(event) = step {
            return info_span!(parent: event.caller(), "connection", connection.id = %self.id);
        }
        info_span!("connection", connection.id = %self.id)
    }

    async fn next_step(&mut self) -> Step {
        let (closing, stopping) = (&self.endpoint.0.closing, &self.endpoint.0.stopping);
        let timer = match self.phase {
            Phase::Down => None,
            Phase::Up { expires: at, .. } | Phase::Closing { retry: at, .. } => Some(at),
        };
        let to_close = match self.phase {
            Phase::Down => false,
            Phase::Up { .. } => true,
            Phase::Closing { .. } => !self.hurried,
        };
        tokio::select! {
            biased;
            () = stopping.cancelled() => Step::Stop,
            news = self.events.next() => match news {
                News::Asked => Step::Asked,
                News::Event(event) => Step::Event(event),
            },
            () = closing.cancelled(), if to_close => Step::Close,
            () = reached(timer) => Step::Close,
        }
    }

    /// Ends the task unless something came in meanwhile. Events are put under
    /// the same lock, so that none is lost between the look and the end.
    fn retire(&self) -> bool {
        let mut connections = self.endpoint.lock();
        let idle = self.events.is_empty();
        if idle {
            connections.remove(&self.id);
        }
        idle
    }

    /// Ends the task after a panic: nobody knows what its elements have done.
    fn give_up(self) {
        error!(connection.id = %self.id, "an element panicked; its connection cannot be served");
        self.endpoint
            .lock()
            .insert(self.id, Held::Broken(self.slots));
        self.endpoint.0.failed.cancel();
    }

    async fn handle(&mut self, step: Step) {
        match step {
            Step::Event(Event::Request(request)) => {
                let Request {
                    connection,
                    deadline,
                    expires,
                    answer,
                    ..
                } = *request;
                let is_first = !matches!(self.phase, Phase::Up { .. });
                let answered = self.request(connection, deadline, expires).await;
                // A caller that is gone has no connection; a refresh changes nothing.
                if answer.send(answered).is_err() && is_first {
                    self.close_unasked().await;
                }
            }
            Step::Event(Event::Restore(request)) => {
                let Request {
                    connection,
                    deadline,
                    expires,
                    answer,
                    ..
                } = *request;
                let _ = answer.send(self.restore(connection, deadline, expires).await);
            }
            Step::Event(Event::Close(answer, _)) => {
                let _ = answer.send(self.close().await);
            }
            Step::Close => {
                self.hurried = self.endpoint.0.closing.is_cancelled();
                self.close_unasked().await;
            }
            Step::Asked => match self.events.asked() {
                (true, _) => self.close_unasked().await,
                (false, true) => self.refresh().await,
                (false, false) => {}
            },
            Step::Stop => {}
        }
    }

    async fn request(
        &mut self,
        connection: Connection,
        deadline: Instant,
        expires: Instant,
    ) -> Result<Connection, Error> {
        let patience = deadline.saturating_duration_since(Instant::now());
        if patience.is_zero() {
            let late = "its deadline passed while it waited";
            return Err(Error::request(
                "begin",
                &connection,
                Kind::DeadlineExceeded,
                late,
            ));
        }
        let reselect = connection.state == State::ReselectRequested;
        if reselect && matches!(self.phase, Phase::Up { .. }) {
            self.close_unasked().await;
        }
        let asked = Arc::new(connection.clone());
        match self.serve(connection, deadline).await {
            Ok(answer) => {
                self.patience = patience;
                self.up(answer.clone(), expires);
                Ok(answer)
            }
            Err(error) => {
                self.undo(asked).await;
                Err(error)
            }
        }
    }

    /// A Request of a connection that is up already, though not by us.
    async fn restore(
        &mut self,
        connection: Connection,
        deadline: Instant,
        expires: Instant,
    ) -> Result<Connection, Error> {
        if let Phase::Up {
            answer,
            served: true,
            ..
        } = &self.phase
        {
            // Its client was quicker.
            return Ok(Connection::clone(answer));
        }
        self.journalled = true;
        self.kept_until = lives_until(&connection);
        let answer = Arc::new(connection.clone());
        // Also if it cannot be served now: its client finds it and asks again.
        self.endpoint.0.hub.update(&answer);
        self.phase = Phase::Up {
            answer,
            expires,
            served: false,
        };
        let answer = self.serve(connection, deadline).await?;
        self.up(answer.clone(), expires);
        Ok(answer)
    }

    /// Runs the chain again with what it answered last.
    async fn refresh(&mut self) {
        let Phase::Up {
            answer, expires, ..
        } = &self.phase
        else {
            return;
        };
        let (connection, expires) = (Connection::clone(answer), *expires);
        match self.serve(connection, Instant::now() + self.patience).await {
            Ok(answer) => self.up(answer, expires),
            Err(error) => warn!(error = &error as &dyn std::error::Error, "refresh failed"),
        }
    }

    /// Runs the chain, and keeps the answer before anybody hears of it.
    async fn serve(
        &mut self,
        connection: Connection,
        deadline: Instant,
    ) -> Result<Connection, Error> {
        let index = connection.path.index;
        let chain = &self.endpoint.0.chain;
        let mut answer = chain.begin(connection, &mut self.slots, deadline).await?;
        answer.id = self.id.clone();
        answer.path.index = index;
        path::trim(&mut answer.path);
        answer.preferences.clear();
        answer.state = State::Up;
        let before_answer = self.slots.before_answer();
        // Both at once: what the elements write down goes to the disk along with
        // the answer.
        let (kept, done) = join(self.keep(&answer), before_answer).await;
        done.and(kept)?;
        Ok(answer)
    }

    async fn keep(&mut self, answer: &Connection) -> Result<(), Error> {
        let Some(journal) = &self.endpoint.0.options.journal else {
            return Ok(());
        };
        if self.is_kept(answer) {
            return Ok(());
        }
        self.journalled = true;
        self.kept_until = None;
        let kept = journal.put(answer).await;
        kept.map_err(|error| Error::request("journal", answer, Kind::Unavailable, error))?;
        self.kept_until = lives_until(answer);
        Ok(())
    }

    /// Whether a successor would take up the same from what the journal holds
    /// already: a refresh that changes nothing need not be waited for. It may
    /// know a tenth less of the connection's life.
    fn is_kept(&self, answer: &Connection) -> bool {
        let Phase::Up { answer: last, .. } = &self.phase else {
            return false;
        };
        let (Some(kept), Some(until)) = (self.kept_until, lives_until(answer)) else {
            return false;
        };
        let life = until.duration_since(SystemTime::now()).unwrap_or_default();
        let behind = until.duration_since(kept);
        behind.is_ok_and(|behind| behind <= life / 10) && last.is_same_but_for_tokens(answer)
    }

    fn up(&mut self, answer: Connection, expires: Instant) {
        let answer = Arc::new(answer);
        match self.phase {
            Phase::Up { .. } => debug!("connection refreshed"),
            _ => {
                info!(network_service = %answer.network_service, client = answer.client_name(), "connection up");
            }
        }
        let hub = &self.endpoint.0.hub;
        hub.update(&answer);
        if let Some(is_stale) = &self.endpoint.0.options.is_stale {
            hub.ask_refresh_of(&self.id, &**is_stale, &|_| {});
        }
        self.phase = Phase::Up {
            answer,
            expires,
            served: true,
        };
    }

    /// A failed refresh leaves what is up; a failed first Request leaves nothing.
    async fn undo(&mut self, asked: Arc<Connection>) {
        let connection = match &self.phase {
            Phase::Up { .. } => return,
            Phase::Down => asked,
            Phase::Closing { connection, .. } => connection.clone(),
        };
        if let Err(error) = self.close_elements(connection).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "failed Request not undone yet"
            );
        }
    }

    async fn close(&mut self) -> Result<(), Error> {
        match &self.phase {
            Phase::Down => Ok(()),
            Phase::Up {
                answer: connection, ..
            }
            | Phase::Closing { connection, .. } => self.close_elements(connection.clone()).await,
        }
    }

    async fn close_unasked(&mut self) {
        if let Err(error) = self.close().await {
            warn!(
                error = &error as &dyn std::error::Error,
                "connection not closed yet"
            );
        }
    }

    async fn close_elements(&mut self, connection: Arc<Connection>) -> Result<(), Error> {
        let journal = self.endpoint.0.options.journal.clone();
        let journal = journal.filter(|_| self.journalled);
        // Begun before, so that what the elements take off the disk takes the
        // answer along.
        let removal = journal.as_ref().map(|journal| journal.remove(&self.id));
        let chain = &self.endpoint.0.chain;
        let closed = chain.close(&connection, &mut self.slots).await;
        self.endpoint.0.hub.delete(&self.id);
        self.kept_until = None;
        let forgotten = match (removal, &journal) {
            (Some(removal), _) if closed.is_ok() => removal.await,
            (Some(_), Some(journal)) => journal.put(&closing(&connection)).await,
            _ => Ok(()),
        };
        match forgotten {
            Ok(()) => self.journalled &= closed.is_err(),
            Err(error) => warn!(error = &*error as &dyn std::error::Error, "journal behind"),
        }
        let failures = match self.phase {
            Phase::Closing { failures, .. } => failures.saturating_add(1),
            _ => 1,
        };
        self.phase = match closed {
            Ok(()) => Phase::Down,
            Err(_) => Phase::Closing {
                connection,
                failures,
                retry: Instant::now() + close_back_off(if self.hurried { 1 } else { failures }),
            },
        };
        if closed.is_ok() {
            info!("connection closed");
        }
        closed
    }
}

/// What the journal holds of a connection whose Close has begun and could not
/// be finished, so that after a restart it is gone on with.
fn closing(connection: &Connection) -> Connection {
    let mut closing = connection.clone();
    closing.state = State::Down;
    closing
}

/// When the caller's token ends, and the connection with it.
fn lives_until(connection: &Connection) -> Option<SystemTime> {
    connection.path.previous()?.expires
}

async fn reached(timer: Option<Instant>) {
    match timer {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// Time until a Close that failed `failures` times is tried again: 1 s, 2 s,
/// 4 s … 64 s.
fn close_back_off(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(1).min(6))
}
