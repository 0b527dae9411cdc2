use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use carrick_types::{Connection, ConnectionId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tracing::Span;

use crate::element::Slots;
use crate::{Error, Kind, Operation};

/// Events of one connection that may wait. A well-behaved client has one.
const WAITING_MAX: usize = 16;

/// What the outside wants of a connection.
pub(super) enum Event {
    Close(oneshot::Sender<Result<(), Error>>, Span),
    Request(Box<Request>),
    Restore(Box<Request>),
}

/// A Request whose current segment is our own.
pub(super) struct Request {
    pub(super) connection: Connection,
    pub(super) deadline: Instant,
    pub(super) expires: Instant,
    pub(super) answer: oneshot::Sender<Result<Connection, Error>>,
    /// What the caller does: the Request is served as a part of it.
    pub(super) caller: Span,
}

/// What the inside wants of a connection: asking twice is asking once.
#[derive(Debug, Default)]
pub(super) struct Signals {
    close: AtomicBool,
    refresh: AtomicBool,
    asked: Notify,
}

/// The way to a connection's task.
#[derive(Debug)]
pub(super) struct Mailbox {
    events: mpsc::Sender<Event>,
    signals: Arc<Signals>,
}

/// What stands for a connection id.
pub(super) enum Held {
    /// What an element that panicked left behind: held, so that for instance no
    /// address is given to others while an interface may still carry it.
    Broken(#[expect(dead_code, reason = "held, not used")] Slots),
    Task(Mailbox),
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Broken(_) => "Broken",
            Self::Task(_) => "Task",
        })
    }
}

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("an element panicked while it served this connection")]
    Broken,
    #[error("busy: {WAITING_MAX} events of this connection are waiting")]
    Busy,
    #[error("the endpoint is ending")]
    Ending,
}

impl Refused {
    pub(super) fn into_error(self, id: &ConnectionId, operation: Operation) -> Error {
        let kind = match self {
            Self::Broken => Kind::Internal,
            Self::Busy | Self::Ending => Kind::Unavailable,
        };
        Error::new("begin", operation, id, kind, self)
    }
}

/// A mailbox and its other end.
pub(super) fn new() -> (Mailbox, mpsc::Receiver<Event>) {
    let (events, receiver) = mpsc::channel(WAITING_MAX);
    let signals = Arc::default();
    (Mailbox { events, signals }, receiver)
}

// === impl Mailbox ===

impl Mailbox {
    pub(super) fn signals(&self) -> Arc<Signals> {
        self.signals.clone()
    }
}

// === impl Event ===

impl Event {
    /// What the caller does.
    pub(super) fn caller(&self) -> &Span {
        match self {
            Self::Close(_, caller) => caller,
            Self::Request(request) | Self::Restore(request) => &request.caller,
        }
    }
}

// === impl Held ===

impl Held {
    pub(super) fn put(&self, event: Event) -> Result<(), Refused> {
        match self {
            Self::Broken(_) => Err(Refused::Broken),
            Self::Task(mailbox) => {
                mailbox
                    .events
                    .try_send(event)
                    .map_err(|refused| match refused {
                        TrySendError::Full(_) => Refused::Busy,
                        TrySendError::Closed(_) => Refused::Ending,
                    })
            }
        }
    }

    pub(super) fn signals(&self) -> Option<&Signals> {
        match self {
            Self::Broken(_) => None,
            Self::Task(mailbox) => Some(&mailbox.signals),
        }
    }
}

// === impl Signals ===

impl Signals {
    pub(super) fn ask_close(&self) {
        self.close.store(true, Ordering::Release);
        self.asked.notify_one();
    }

    pub(super) fn ask_refresh(&self) {
        self.refresh.store(true, Ordering::Release);
        self.asked.notify_one();
    }

    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// What was asked for since the last time; a Close makes a refresh moot.
    pub(super) fn take(&self) -> (bool, bool) {
        let refresh = self.refresh.swap(false, Ordering::AcqRel);
        let close = self.close.swap(false, Ordering::AcqRel);
        (close, refresh && !close)
    }
}
