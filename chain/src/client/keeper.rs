use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use carrick_types::{Connection, ConnectionId, State};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{Instrument, Span, debug, info, info_span, warn};

use super::heal::{self, Control, Data, Heal};
use super::observer::Observer;
use super::reason::Reason;
use super::{ClientOptions, ClientState, ClientStatus, Reselect, Shared, refresh};
use crate::element::Slots;
use crate::{Error, Kind, path};

/// How the task shall end.
pub(super) enum End {
    Abandon,
    Close {
        deadline: Instant,
        answer: oneshot::Sender<bool>,
    },
}

/// What the owner wants; asking twice is asking once.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    reselect: AtomicBool,
    asked: Notify,
}

/// The task of one kept connection.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    id: ConnectionId,
    wishes: Arc<Wishes>,
    status: watch::Sender<ClientStatus>,
    observer: Observer,
    slots: Slots,
    /// As the owner asked for it.
    wanted: Connection,
    /// What the next Request says.
    next: Connection,
    /// The last answer, ours or our predecessor's, while it is not closed.
    kept: Option<Arc<Connection>>,
    /// The owner or the other side wants a Request, or this one did not succeed.
    due: Option<Instant>,
    refresh_at: Option<Instant>,
    last_request: Instant,
    /// Requests that failed in a row.
    failures: u32,
    /// Why the last one failed.
    reason: Reason,
    /// Heals in a row after which it was broken again.
    heals: u32,
    /// Why the task ends, if it was told so while it was busy.
    end: Option<End>,
}

/// What woke the task.
enum Woken {
    Due,
    Ended(End),
    Observed,
    Wished,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        wanted: Connection,
        adopted: Option<Connection>,
        wishes: Arc<Wishes>,
        status: watch::Sender<ClientStatus>,
    ) -> Self {
        let now = Instant::now();
        Self {
            observer: Observer::new(shared.clone(), wanted.id.clone()),
            slots: shared.chain.open(),
            id: wanted.id.clone(),
            shared,
            wishes,
            status,
            next: adopted
                .as_ref()
                .map_or_else(|| wanted.clone(), |it| refreshed(it, &wanted)),
            wanted,
            kept: adopted.map(Arc::new),
            due: Some(now),
            refresh_at: None,
            last_request: now,
            failures: 0,
            reason: Reason::default(),
            heals: 0,
            end: None,
        }
    }

    pub(super) async fn run(self, ended: mpsc::Receiver<End>) {
        let span = info_span!("client", connection.id = %self.id);
        self.keep(ended).instrument(span).await;
    }

    async fn keep(mut self, mut ended: mpsc::Receiver<End>) {
        self.observer.open_first().await;
        while self.end.is_none() {
            match self.woken(&mut ended).await {
                Woken::Ended(end) => self.end = Some(end),
                Woken::Observed => {}
                Woken::Wished => self.due = Some(Instant::now()),
                Woken::Due => self.act(&mut ended).await,
            }
        }
        if let Some(End::Close { deadline, answer }) = self.end.take() {
            let _ = answer.send(self.close(deadline).await);
        }
        self.status
            .send_modify(|status| status.state = ClientState::Closed);
    }

    /// What was observed comes before what is due, so that a word which is
    /// taken back at once has no effect.
    async fn woken(&mut self, ended: &mut mpsc::Receiver<End>) -> Woken {
        let due = self.when();
        tokio::select! {
            biased;
            end = ended.recv() => Woken::Ended(end.unwrap_or(End::Abandon)),
            () = self.wishes.asked.notified() => Woken::Wished,
            () = self.observer.observe(self.kept.as_ref()) => Woken::Observed,
            () = sleep_until(due) => Woken::Due,
        }
    }

    /// When there is something to do, as far as is known now.
    fn when(&self) -> Instant {
        if let Some(due) = self.due {
            return due;
        }
        if self.observer.refresh {
            return self.last_request + refresh::FLOOR;
        }
        if heal::decide(self.observer.control, self.observer.data) != Heal::Nothing {
            return self.last_request + self.patience(self.heals);
        }
        self.refresh_at.unwrap_or(self.last_request + refresh::MOST)
    }

    fn patience(&self, failures: u32) -> Duration {
        match failures {
            0 => Duration::ZERO,
            _ => self.shared.options.back_off.after(failures, 0.0),
        }
    }

    async fn act(&mut self, ended: &mut mpsc::Receiver<End>) {
        let heal = self.decide().await;
        if heal != Heal::Nothing {
            self.heals = self.heals.saturating_add(1);
            self.status.send_if_modified(|status| {
                let up = matches!(status.state, ClientState::Up(_));
                if up {
                    status.state = ClientState::Healing;
                }
                up
            });
        } else if self.failures == 0 {
            self.heals = 0;
        }
        if heal == Heal::Reselect {
            self.reselect().await;
        }
        if let Ok(end) = ended.try_recv() {
            self.end = Some(end);
            return;
        }
        self.request(ended).await;
    }

    async fn decide(&mut self) -> Heal {
        if self.wishes.reselect.swap(false, Ordering::AcqRel) {
            return Heal::Reselect;
        }
        let Some(kept) = self.kept.clone() else {
            return Heal::Nothing;
        };
        if self.observer.control == Control::Down && self.observer.data != Data::Dead {
            self.observer.look(&kept).await;
        }
        heal::decide(self.observer.control, self.observer.data)
    }

    /// Gives back what there is, so that the next Request asks for it anew.
    async fn reselect(&mut self) {
        info!("reselecting");
        if let Some(kept) = self.kept.take() {
            self.give_back(&kept).await;
        }
        self.next = reselected(&self.next, &self.wanted, &self.shared.options);
        self.status.send_modify(|status| status.reselects += 1);
    }

    async fn request(&mut self, ended: &mut mpsc::Receiver<End>) {
        self.due = None;
        self.observer.refresh = false;
        self.last_request = Instant::now();
        self.status.send_modify(|status| status.requests += 1);
        match self.ask(ended).await {
            Ok(answer) => self.answered(answer),
            Err(error) => self.failed(error).await,
        }
    }

    async fn ask(&mut self, ended: &mut mpsc::Receiver<End>) -> Result<Connection, Error> {
        let mut request = self.next.clone();
        let options = &self.shared.options;
        path::enter(&mut request, &options.name, || self.id.clone())
            .map_err(|invalid| Error::request("updatepath", &request, Kind::Invalid, invalid))?;
        let token = options.tokens.token(None);
        let token = token
            .map_err(|error| Error::request("updatetoken", &request, Kind::Unavailable, error))?;
        let index = request.path.index;
        if let Some(own) = request.path.segments.get_mut(index) {
            own.token = token.value;
            own.expires = Some(token.expires);
        }
        let deadline = self.last_request + options.request_timeout;
        // A trace of its own: those of all Requests of a connection would
        // otherwise be one, which ends with the connection.
        let span = info_span!(
            parent: None,
            "Request",
            connection.id = %self.id,
            network_service = %request.network_service,
        );
        let chain = &self.shared.chain;
        let asking = chain.request(request, &mut self.slots, deadline);
        let mut asking = std::pin::pin!(asking.instrument(span));
        let mut answer = tokio::select! {
            answer = &mut asking => answer,
            end = ended.recv() => {
                let end = self.end.insert(end.unwrap_or(End::Abandon));
                // The end has to wait: what is answered now can be closed, and
                // what nobody waits for stays until it expires.
                let patience = end.patience();
                timeout_at(patience, asking).await.unwrap_or_else(|late| {
                    Err(Error::request("chain", &self.next, Kind::DeadlineExceeded, late))
                })
            }
        }?;
        answer.path.index = index;
        let own = answer.path.current();
        if own.is_none_or(|own| own.id != self.id.as_str()) {
            let why = "the answer's path does not hold our segment";
            return Err(Error::request("updatepath", &answer, Kind::Invalid, why));
        }
        answer.id = self.id.clone();
        Ok(answer)
    }

    fn answered(&mut self, answer: Connection) {
        let now = Instant::now();
        let wait = refresh::after(&answer.path, SystemTime::now());
        self.refresh_at = wait.map(|wait| now + wait.clamp(refresh::FLOOR, refresh::MOST));
        self.next = refreshed(&answer, &self.wanted);
        self.observer.answered(self.kept.is_none());
        self.failures = 0;
        self.reason.forget();
        let answer = Arc::new(answer);
        self.kept = Some(answer.clone());
        self.status.send_modify(|status| {
            status.state = ClientState::Up(answer);
            status.error = None;
        });
    }

    /// A failed refresh leaves what is up; a failed first Request leaves nothing.
    async fn failed(&mut self, error: Error) {
        self.log(&error);
        self.failures = self.failures.saturating_add(1);
        let wait = self
            .shared
            .options
            .back_off
            .after(self.failures, fastrand::f64());
        self.due = Some(Instant::now() + wait);
        self.status.send_modify(|status| {
            status.failures += 1;
            status.error = Some(Arc::new(error));
        });
        if self.kept.is_none() {
            let asked = self.next.clone();
            self.give_back(&asked).await;
        }
    }

    fn log(&mut self, error: &Error) {
        if self.reason.is_new(error) {
            warn!(error = %self.reason, "Request failed, trying again until it succeeds");
        } else {
            debug!(error = %self.reason, "Request failed again");
        }
    }

    /// Closes what is open, whether or not the next hop can be told; what it
    /// holds for us expires.
    async fn give_back(&mut self, connection: &Connection) {
        let span = close_span(connection);
        self.close_what_is_open(connection).instrument(span).await;
    }

    async fn close_what_is_open(&mut self, connection: &Connection) {
        let chain = &self.shared.chain;
        let Err(error) = chain.close(connection, &mut self.slots).await else {
            return;
        };
        warn!(error = &error as &dyn std::error::Error, "Close failed");
        chain.forget_last(&mut self.slots);
        if let Err(error) = chain.close(connection, &mut self.slots).await {
            warn!(error = &error as &dyn std::error::Error, "Close failed");
        }
    }

    /// Closes for good; `false` if the next hop or an element did not.
    async fn close(&mut self, deadline: Instant) -> bool {
        let connection = self
            .kept
            .take()
            .map_or_else(|| self.next.clone(), Arc::unwrap_or_clone);
        let now = Instant::now();
        // The rest is for what is ours if the next hop does not answer.
        let for_all = now + deadline.saturating_duration_since(now).mul_f64(0.75);
        let closing = self
            .close_all(&connection)
            .instrument(close_span(&connection));
        let closed = timeout_at(for_all, closing).await.is_ok();
        if !closed {
            warn!("the connection could not be closed everywhere");
            self.shared.chain.forget_last(&mut self.slots);
            let own = self.shared.chain.close(&connection, &mut self.slots);
            let _ = timeout_at(deadline, own).await;
        }
        closed
    }

    async fn close_all(&mut self, connection: &Connection) {
        let mut failures = 0;
        while let Err(error) = self.shared.chain.close(connection, &mut self.slots).await {
            warn!(error = &error as &dyn std::error::Error, "Close failed");
            failures += 1;
            let wait = self
                .shared
                .options
                .back_off
                .after(failures, fastrand::f64());
            tokio::time::sleep(wait).await;
        }
    }
}

fn close_span(connection: &Connection) -> Span {
    info_span!(
        parent: None,
        "Close",
        connection.id = %connection.id,
        network_service = %connection.network_service,
    )
}

/// What to ask for to keep what was answered.
fn refreshed(answer: &Connection, wanted: &Connection) -> Connection {
    Connection {
        preferences: wanted.preferences.clone(),
        labels: wanted.labels.clone(),
        state: State::Up,
        ..answer.clone()
    }
}

/// What to ask for after a reselect (NSM `begin`: `DefaultReselectFunc`,
/// `ReselectWithSameEndpointFunc`).
fn reselected(next: &Connection, wanted: &Connection, options: &ClientOptions) -> Connection {
    Connection {
        mechanism: wanted.mechanism.clone(),
        endpoint: match options.reselect {
            Reselect::AnyEndpoint => wanted.endpoint.clone(),
            Reselect::SameEndpoint => next.endpoint.clone(),
        },
        context: if options.keep_addresses {
            next.context.clone()
        } else {
            wanted.context.clone()
        },
        state: State::ReselectRequested,
        ..next.clone()
    }
}

// === impl End ===

impl End {
    /// Until when a Request that is being served may hold up the end.
    fn patience(&self) -> Instant {
        let now = Instant::now();
        match self {
            Self::Abandon => now,
            Self::Close { deadline, .. } => now + deadline.saturating_duration_since(now) / 2,
        }
    }
}

// === impl Wishes ===

impl Wishes {
    pub(super) fn refresh(&self) {
        self.asked.notify_one();
    }

    pub(super) fn reselect(&self) {
        self.reselect.store(true, Ordering::Release);
        self.asked.notify_one();
    }
}
