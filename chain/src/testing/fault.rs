use std::future::pending;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use carrick_types::Connection;

use crate::{Chain, Element, Error, Kind, Next};

/// An element that does what it should not, at one call of its life; a clone
/// counts the same calls.
#[derive(Clone, Debug)]
pub struct Fault {
    what: What,
    calls: RangeInclusive<usize>,
    requests: Arc<AtomicUsize>,
    closes: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Debug)]
enum What {
    AnswerLost(Kind),
    FailClose(Kind),
    FailRequest(Kind),
    HangClose,
    HangRequest,
    PanicInClose,
    PanicInRequest,
}

impl Fault {
    fn new(what: What) -> Self {
        Self {
            what,
            calls: 1..=usize::MAX,
            requests: Arc::default(),
            closes: Arc::default(),
        }
    }

    /// Fails a Request before the elements behind it see it.
    #[must_use]
    pub fn request(kind: Kind) -> Self {
        Self::new(What::FailRequest(kind))
    }

    /// Fails a Request after the elements behind it have served it.
    #[must_use]
    pub fn answer_lost(kind: Kind) -> Self {
        Self::new(What::AnswerLost(kind))
    }

    /// Fails a Close.
    #[must_use]
    pub fn close(kind: Kind) -> Self {
        Self::new(What::FailClose(kind))
    }

    /// Never ends a Request by itself.
    #[must_use]
    pub fn hang() -> Self {
        Self::new(What::HangRequest)
    }

    /// Never ends a Close by itself.
    #[must_use]
    pub fn hang_in_close() -> Self {
        Self::new(What::HangClose)
    }

    /// Panics in a Request.
    #[must_use]
    pub fn panic() -> Self {
        Self::new(What::PanicInRequest)
    }

    /// Panics in a Close.
    #[must_use]
    pub fn panic_in_close() -> Self {
        Self::new(What::PanicInClose)
    }

    /// At the `n`th such call, counted from 1, and at no other; without this,
    /// at every one.
    #[must_use]
    pub fn at(mut self, n: usize) -> Self {
        self.calls = n..=n;
        self
    }

    /// At the first `n` such calls.
    #[must_use]
    pub fn up_to(mut self, n: usize) -> Self {
        self.calls = 1..=n;
        self
    }

    fn strikes(&self, calls: &AtomicUsize) -> bool {
        let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.calls.contains(&call)
    }
}

impl Element for Fault {
    const NAME: &'static str = "fault";
    type State = ();

    async fn request(
        &self,
        connection: Connection,
        state: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        *state = Some(());
        if !self.strikes(&self.requests) {
            return next.request(connection).await;
        }
        match self.what {
            What::AnswerLost(kind) => {
                let answer = next.request(connection).await?;
                Err(Error::request(Self::NAME, &answer, kind, "injected"))
            }
            What::FailRequest(kind) => {
                Err(Error::request(Self::NAME, &connection, kind, "injected"))
            }
            What::HangRequest => pending().await,
            What::PanicInRequest => panic!("injected"),
            What::FailClose(_) | What::HangClose | What::PanicInClose => {
                next.request(connection).await
            }
        }
    }

    async fn close(&self, connection: &Connection, (): &mut ()) -> Result<(), Error> {
        if !self.strikes(&self.closes) {
            return Ok(());
        }
        match self.what {
            What::FailClose(kind) => Err(Error::close(Self::NAME, connection, kind, "injected")),
            What::HangClose => pending().await,
            What::PanicInClose => panic!("injected"),
            What::AnswerLost(_)
            | What::FailRequest(_)
            | What::HangRequest
            | What::PanicInRequest => Ok(()),
        }
    }
}

impl Chain {
    /// Puts a fault before the element at `position`; at [`Chain::len`], behind
    /// the last.
    ///
    /// # Panics
    ///
    /// There is no such position.
    #[must_use]
    pub fn with_fault(mut self, position: usize, fault: Fault) -> Self {
        self.insert(position, fault);
        self
    }
}
