use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use carrick_chain::{
    ConnectionEvent, Error, EventKind, Events, Kind, MonitorEnd, Operation, Remote, Selector,
};
use carrick_types::{
    Connection, ConnectionId, EndpointName, Mechanism, MechanismClass, MechanismType, Mtu,
    PathSegment, State,
};
use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;

/// A next hop that answers as it is told and writes down what it hears.
#[derive(Clone, Default)]
pub(crate) struct Hop(Arc<Mutex<Script>>, Arc<watch::Sender<bool>>);

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
struct Script {
    requests: Vec<Connection>,
    closes: Vec<Connection>,
    streams: Vec<mpsc::UnboundedSender<Result<ConnectionEvent, MonitorEnd>>>,
    opened: usize,
    failures: usize,
    fail_closes: bool,
    expired: bool,
    ask_again: bool,
    refuse_streams: bool,
    spoil: bool,
    forget: bool,
    known: Option<Connection>,
}

impl Hop {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    pub(crate) fn requests(&self) -> Vec<Connection> {
        self.script().requests.clone()
    }

    pub(crate) fn closes(&self) -> Vec<Connection> {
        self.script().closes.clone()
    }

    /// Monitor streams opened so far.
    pub(crate) fn streams(&self) -> usize {
        self.script().opened
    }

    pub(crate) fn fail(&self, times: usize) {
        self.script().failures = times;
    }

    pub(crate) fn fail_closes(&self, fail: bool) {
        self.script().fail_closes = fail;
    }

    pub(crate) fn hang(&self, hang: bool) {
        self.1.send_replace(hang);
    }

    pub(crate) fn expired(&self, expired: bool) {
        self.script().expired = expired;
    }

    pub(crate) fn ask_with_every_answer(&self, ask: bool) {
        self.script().ask_again = ask;
    }

    pub(crate) fn refuse_streams(&self, refuse: bool) {
        self.script().refuse_streams = refuse;
    }

    pub(crate) fn spoil(&self, spoil: bool) {
        self.script().spoil = spoil;
    }

    /// New streams begin without what was answered.
    pub(crate) fn forget(&self, forget: bool) {
        self.script().forget = forget;
    }

    /// Tells of the last connection asked for.
    pub(crate) fn event(&self, kind: EventKind, state: State) {
        let mut connection = self.requests().pop().unwrap();
        connection.state = state;
        connection.path.index = 0;
        self.event_of(kind, connection);
    }

    pub(crate) fn event_of(&self, kind: EventKind, connection: Connection) {
        self.script().tell(&ConnectionEvent {
            kind,
            connections: vec![Arc::new(connection)],
        });
    }

    pub(crate) fn end_streams(&self, end: Option<&MonitorEnd>) {
        for stream in self.script().streams.drain(..) {
            if let Some(end) = end {
                let _ = stream.unbounded_send(Err(end.clone()));
            }
        }
    }
}

impl Script {
    fn tell(&mut self, event: &ConnectionEvent) {
        self.streams
            .retain(|stream| stream.unbounded_send(Ok(event.clone())).is_ok());
    }

    fn answer(&mut self, mut connection: Connection) -> Connection {
        let life = Duration::from_secs(if self.expired { 0 } else { 600 });
        connection.path.segments.truncate(1);
        connection.path.segments.push(PathSegment {
            name: "nse".to_owned(),
            id: "nse-id".to_owned(),
            expires: Some(SystemTime::now() + life),
            ..PathSegment::default()
        });
        connection.endpoint = EndpointName::new("nse").ok();
        connection.mechanism = Some(Mechanism::new(MechanismClass::Local, MechanismType::Kernel));
        connection.context.mtu = Mtu::new(1400).ok();
        connection.preferences.clear();
        connection.state = State::Up;
        if self.ask_again {
            let mut asked = connection.clone();
            asked.state = State::RefreshRequested;
            self.tell(&ConnectionEvent {
                kind: EventKind::Update,
                connections: vec![Arc::new(asked)],
            });
        }
        if self.spoil {
            connection.path.segments.clear();
        }
        self.known = Some(connection.clone()).filter(|_| !self.forget);
        connection
    }
}

fn unavailable(operation: Operation, id: &ConnectionId) -> Error {
    Error::new("hop", operation, id, Kind::Unavailable, "told to fail")
}

impl Remote for Hop {
    fn request(&self, request: Connection, _: Instant) -> BoxFuture<'_, Result<Connection, Error>> {
        async move {
            self.script().requests.push(request.clone());
            self.1.subscribe().wait_for(|hang| !hang).await.unwrap();
            let mut script = self.script();
            if script.failures > 0 {
                script.failures -= 1;
                return Err(unavailable(Operation::Request, &request.id));
            }
            Ok(script.answer(request))
        }
        .boxed()
    }

    fn close(&self, connection: Connection, _: Instant) -> BoxFuture<'_, Result<(), Error>> {
        let mut script = self.script();
        let failed = script
            .fail_closes
            .then(|| unavailable(Operation::Close, &connection.id));
        script.closes.push(connection);
        async move { failed.map_or(Ok(()), Err) }.boxed()
    }

    fn monitor(&self, _: Selector) -> BoxFuture<'_, Result<Events, Error>> {
        let mut script = self.script();
        if script.refuse_streams {
            let id = ConnectionId::new("any").unwrap();
            return async move { Err(unavailable(Operation::Request, &id)) }.boxed();
        }
        let (stream, events) = mpsc::unbounded();
        let initial = ConnectionEvent {
            kind: EventKind::InitialStateTransfer,
            connections: script.known.clone().map(Arc::new).into_iter().collect(),
        };
        stream.unbounded_send(Ok(initial)).unwrap();
        script.streams.push(stream);
        script.opened += 1;
        async move { Ok(events.boxed()) }.boxed()
    }
}
