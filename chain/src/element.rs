use std::any::Any;
use std::future::{Future, ready};
use std::time::Duration;

use carrick_types::Connection;
use futures::future::BoxFuture;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{Instrument, debug_span};

use crate::{Error, Kind, Operation};

/// One link of the chain (NSM: chain element).
///
/// # Contract
///
/// - Calls for one connection come one at a time and in order.
/// - An element is open exactly if its `state` is `Some`. The chain closes
///   every open element, last one first: after a failed first Request, a passed
///   deadline, Close, expiry and shutdown. So there is no rollback code here.
/// - What must be undone goes into `state` *before* it is asked for, under a
///   name computed from the connection's id: an answer lost to a timeout can
///   then still be cleaned up. Every `.await` may be the last.
/// - `close` may come again after an error, and for things never made.
/// - Work stands before `next`, so that the list of elements reads in the order
///   of action; after `next` only the answer changes.
pub trait Element: Send + Sync + 'static {
    /// Its name in spans, metrics and errors, e.g. `"ipam"`.
    const NAME: &'static str;

    /// What it holds for one connection, from the first Request to the Close.
    type State: Send + 'static;

    /// Serves a Request; on a refresh `state` is already `Some`.
    fn request(
        &self,
        connection: Connection,
        state: &mut Option<Self::State>,
        next: Next<'_>,
    ) -> impl Future<Output = Result<Connection, Error>> + Send;

    /// Gives back what `state` holds; after `Ok` the chain drops it.
    fn close(
        &self,
        connection: &Connection,
        state: &mut Self::State,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// The rest of the chain.
pub struct Next<'a> {
    elements: &'a [Box<dyn AnyElement>],
    slots: &'a mut [Slot],
    deadline: Instant,
    unanswered: &'a mut Vec<Before>,
}

/// What must be done before the caller is answered.
type Before = BoxFuture<'static, Result<(), Error>>;

impl std::fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.elements.iter().map(|element| element.name()))
            .finish()
    }
}

impl<'a> Next<'a> {
    /// When the Request is given up. The chain sees to it; an element needs to
    /// know only where it asks another process.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Has the caller wait for `work` before it is answered, and the answer
    /// depend on its success, while the chain goes on. So that what elements and
    /// the journal write down for one Request waits for the disk once.
    ///
    /// After a failed Request it is not waited for.
    pub fn before_answer(&mut self, work: impl Future<Output = Result<(), Error>> + Send + 'static) {
        self.unanswered.push(Box::pin(work));
    }

    /// Hands the connection on; at the end of the chain it is the answer.
    pub fn request(self, connection: Connection) -> BoxFuture<'a, Result<Connection, Error>> {
        match (self.elements.split_first(), self.slots.split_first_mut()) {
            (Some((element, elements)), Some((slot, slots))) => {
                let span = debug_span!("element", otel.name = element.name());
                let next = Next {
                    elements,
                    slots,
                    deadline: self.deadline,
                    unanswered: self.unanswered,
                };
                Box::pin(element.request(connection, slot, next).instrument(span))
            }
            _ => Box::pin(ready(Ok(connection))),
        }
    }
}

/// The elements of an endpoint or a client, in the order in which they act.
#[derive(Default)]
pub struct Chain {
    elements: Vec<Box<dyn AnyElement>>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Chain {
    /// Time one element has to close one connection; its own, not the caller's.
    pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

    /// Appends an element.
    #[must_use]
    pub fn then(mut self, element: impl Element) -> Self {
        self.elements.push(Box::new(element));
        self
    }

    /// Appends an element if there is one.
    #[must_use]
    pub fn then_some(self, element: Option<impl Element>) -> Self {
        match element {
            Some(element) => self.then(element),
            None => self,
        }
    }

    /// Names of the elements in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.elements.iter().map(|element| element.name())
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    #[cfg(feature = "test-util")]
    pub(crate) fn insert(&mut self, position: usize, element: impl Element) {
        self.elements.insert(position, Box::new(element));
    }

    /// Slots for the states of one connection, all of them closed.
    pub(crate) fn open(&self) -> Slots {
        Slots {
            slots: self.elements.iter().map(|e| e.new_slot()).collect(),
            unanswered: Vec::new(),
        }
    }

    /// Serves a Request until `deadline`; what is half done then stays in the
    /// slots, to be closed or gone on with.
    pub(crate) async fn request(
        &self,
        connection: Connection,
        slots: &mut Slots,
        deadline: Instant,
    ) -> Result<Connection, Error> {
        let answer = self.begin(connection, slots, deadline).await?;
        slots.before_answer().await?;
        Ok(answer)
    }

    /// As [`Chain::request`], but the caller may be answered only after
    /// [`Slots::before_answer`].
    pub(crate) async fn begin(
        &self,
        connection: Connection,
        slots: &mut Slots,
        deadline: Instant,
    ) -> Result<Connection, Error> {
        let id = connection.id.clone();
        slots.unanswered = Vec::new();
        let next = Next {
            elements: &self.elements,
            slots: &mut slots.slots,
            deadline,
            unanswered: &mut slots.unanswered,
        };
        let served = timeout_at(deadline, next.request(connection)).await;
        served.unwrap_or_else(|late| {
            let kind = Kind::DeadlineExceeded;
            Err(Error::new("chain", Operation::Request, &id, kind, late))
        })
    }

    /// Takes the last element for closed.
    pub(crate) fn forget_last(&self, slots: &mut Slots) {
        if let (Some(element), Some(slot)) = (self.elements.last(), slots.slots.last_mut()) {
            *slot = element.new_slot();
        }
    }

    /// Closes what is open, last element first. Stops at an element that fails:
    /// what those before it hold may still be in use by what could not be
    /// removed, and an address kept too long is better than one given twice.
    pub(crate) async fn close(
        &self,
        connection: &Connection,
        slots: &mut Slots,
    ) -> Result<(), Error> {
        for (element, slot) in self.elements.iter().zip(&mut slots.slots).rev() {
            let span = debug_span!("close", otel.name = element.name());
            let closing = element.close(connection, slot).instrument(span);
            let closed = timeout(Self::CLOSE_TIMEOUT, closing).await;
            closed.unwrap_or_else(|late| {
                let kind = Kind::DeadlineExceeded;
                Err(Error::new(
                    element.name(),
                    Operation::Close,
                    &connection.id,
                    kind,
                    late,
                ))
            })?;
        }
        Ok(())
    }
}

/// What the elements hold for one connection.
pub(crate) struct Slots {
    slots: Vec<Slot>,
    unanswered: Vec<Before>,
}

impl Slots {
    /// What the elements want done before the caller of the last Request is
    /// answered.
    pub(crate) fn before_answer(&mut self) -> impl Future<Output = Result<(), Error>> + use<> {
        let unanswered = std::mem::take(&mut self.unanswered);
        async move {
            for work in unanswered {
                work.await?;
            }
            Ok(())
        }
    }
}

type Slot = Box<dyn Any + Send>;

/// An [`Element`] with its `State` type erased, so that a chain is a list.
trait AnyElement: Send + Sync {
    fn name(&self) -> &'static str;

    fn new_slot(&self) -> Slot;

    fn request<'a>(
        &'a self,
        connection: Connection,
        slot: &'a mut Slot,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Connection, Error>>;

    fn close<'a>(
        &'a self,
        connection: &'a Connection,
        slot: &'a mut Slot,
    ) -> BoxFuture<'a, Result<(), Error>>;
}

impl<E: Element> AnyElement for E {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn new_slot(&self) -> Slot {
        Box::new(None::<E::State>)
    }

    fn request<'a>(
        &'a self,
        connection: Connection,
        slot: &'a mut Slot,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Connection, Error>> {
        Box::pin(Element::request(
            self,
            connection,
            state_of::<E>(slot),
            next,
        ))
    }

    fn close<'a>(
        &'a self,
        connection: &'a Connection,
        slot: &'a mut Slot,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let slot = state_of::<E>(slot);
            if let Some(state) = slot {
                Element::close(self, connection, state).await?;
                *slot = None;
            }
            Ok(())
        })
    }
}

fn state_of<E: Element>(slot: &mut Slot) -> &mut Option<E::State> {
    slot.downcast_mut()
        .expect("a slot is made by its own element")
}
