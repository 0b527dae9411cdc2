use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carrick_types::{Connection, ConnectionId};
use tokio::sync::{Notify, oneshot};
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

/// What the connection's task finds.
pub(super) enum News {
    /// Something was asked for from the inside, see [`Events::asked`].
    Asked,
    Event(Event),
}

/// The way to a connection's task. A queue of its own, since an idle connection
/// shall hold no buffer.
#[derive(Debug)]
pub(super) struct Mailbox(Arc<Shared>);

/// Its other end; dropped, it takes nothing more, and what waits is given up.
#[derive(Debug)]
pub(super) struct Events(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inbox {
    events: VecDeque<Event>,
    /// What the inside wants of a connection: asking twice is asking once.
    close: bool,
    refresh: bool,
    is_closed: bool,
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
pub(super) fn new() -> (Mailbox, Events) {
    let shared = Arc::<Shared>::default();
    (Mailbox(shared.clone()), Events(shared))
}

// === impl Mailbox ===

impl Mailbox {
    fn put(&self, event: Event) -> Result<(), Refused> {
        let mut inbox = self.0.lock();
        if inbox.is_closed {
            return Err(Refused::Ending);
        }
        if inbox.events.len() >= WAITING_MAX {
            return Err(Refused::Busy);
        }
        inbox.events.push_back(event);
        drop(inbox);
        self.0.news.notify_one();
        Ok(())
    }

    pub(super) fn ask_close(&self) {
        self.0.lock().close = true;
        self.0.news.notify_one();
    }

    pub(super) fn ask_refresh(&self) {
        self.0.lock().refresh = true;
        self.0.news.notify_one();
    }
}

// === impl Events ===

impl Events {
    /// Waits for what comes from the outside, and for what is asked from the
    /// inside; the former goes first.
    pub(super) async fn next(&self) -> News {
        loop {
            if let Some(news) = self.0.lock().next() {
                return news;
            }
            self.0.news.notified().await;
        }
    }

    /// What was asked for since the last time, a Close or a refresh; a Close
    /// makes a refresh moot.
    pub(super) fn asked(&self) -> (bool, bool) {
        let mut inbox = self.0.lock();
        let (close, refresh) = (inbox.close, inbox.refresh);
        (inbox.close, inbox.refresh) = (false, false);
        (close, refresh && !close)
    }

    /// Whether no event waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().events.is_empty()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let waiting = {
            let mut inbox = self.0.lock();
            inbox.is_closed = true;
            std::mem::take(&mut inbox.events)
        };
        drop(waiting);
    }
}

// === impl Shared ===

impl Shared {
    /// A panic under this lock leaves the inbox whole.
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inbox ===

impl Inbox {
    fn next(&mut self) -> Option<News> {
        let event = self.events.pop_front();
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        let asked = || (self.close || self.refresh).then_some(News::Asked);
        event.map(News::Event).or_else(asked)
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

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Close(..) => "Close",
            Self::Request(_) => "Request",
            Self::Restore(_) => "Restore",
        })
    }
}

// === impl Held ===

impl Held {
    pub(super) fn put(&self, event: Event) -> Result<(), Refused> {
        match self {
            Self::Broken(_) => Err(Refused::Broken),
            Self::Task(mailbox) => mailbox.put(event),
        }
    }

    pub(super) fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Broken(_) => None,
            Self::Task(mailbox) => Some(mailbox),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn close() -> (Event, oneshot::Receiver<Result<(), Error>>) {
        let (answer, answered) = oneshot::channel();
        (Event::Close(answer, Span::none()), answered)
    }

    #[test]
    fn what_comes_from_the_outside_goes_first_and_asking_twice_is_asking_once() {
        let (mailbox, events) = new();
        mailbox.ask_refresh();
        mailbox.ask_refresh();
        mailbox.put(close().0).unwrap();
        assert!(matches!(events.next().now_or_never(), Some(News::Event(_))));
        assert!(matches!(events.next().now_or_never(), Some(News::Asked)));
        assert_eq!(events.asked(), (false, true));
        assert!(events.next().now_or_never().is_none());
        mailbox.ask_refresh();
        mailbox.ask_close();
        assert_eq!(events.asked(), (true, false), "a Close makes a refresh moot");
    }

    #[test]
    fn a_full_mailbox_refuses_and_one_whose_task_is_gone_gives_up_what_waits() {
        let (mailbox, events) = new();
        let mut answers = Vec::new();
        for _ in 0..WAITING_MAX {
            let (event, answered) = close();
            mailbox.put(event).unwrap();
            answers.push(answered);
        }
        assert!(matches!(mailbox.put(close().0), Err(Refused::Busy)));
        drop(events);
        for mut answered in answers {
            answered.try_recv().expect_err("nobody will answer");
        }
        assert!(matches!(mailbox.put(close().0), Err(Refused::Ending)));
    }
}
