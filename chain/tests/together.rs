//! The client half and the endpoint, one calling the other.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carrick_chain::testing::{Count, TestTokens};
use carrick_chain::{
    Chain, Client, ClientOptions, ClientState, Endpoint, EndpointOptions, Error, Events, Kind,
    Liveness, Operation, Remote, Selector,
};
use carrick_types::{Connection, ConnectionId, Mtu, ServiceName};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until, timeout_at};

const SECOND: Duration = Duration::from_secs(1);

/// The endpoint that answers at an address, if one does.
#[derive(Clone, Default)]
struct Address(Arc<Mutex<Option<Endpoint>>>);

impl Address {
    fn endpoint(&self, operation: Operation, id: &ConnectionId) -> Result<Endpoint, Error> {
        let endpoint = self.0.lock().unwrap().clone();
        endpoint.ok_or_else(|| Error::new("wire", operation, id, Kind::Unavailable, "refused"))
    }

    fn put(&self, endpoint: Option<&Endpoint>) {
        *self.0.lock().unwrap() = endpoint.cloned();
    }
}

impl Remote for Address {
    fn request(
        &self,
        request: Connection,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Connection, Error>> {
        async move {
            let endpoint = self.endpoint(Operation::Request, &request.id)?;
            endpoint.request(request, deadline).await
        }
        .boxed()
    }

    fn close(&self, connection: Connection, deadline: Instant) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let endpoint = self.endpoint(Operation::Close, &connection.id)?;
            timeout_at(deadline, endpoint.close(connection))
                .await
                .unwrap()
        }
        .boxed()
    }

    fn monitor(&self, selector: Selector) -> BoxFuture<'_, Result<Events, Error>> {
        async move {
            let id = ConnectionId::new("any").unwrap();
            let endpoint = self.endpoint(Operation::Request, &id)?;
            Ok(endpoint.monitor(selector).map(Ok).boxed())
        }
        .boxed()
    }
}

#[derive(Clone)]
struct Alive(Arc<AtomicBool>);

impl Liveness for Alive {
    fn alive(&self, _: &Connection) -> BoxFuture<'_, bool> {
        let alive = self.0.load(Ordering::SeqCst);
        async move { alive }.boxed()
    }
}

fn endpoint(name: &str, count: &Count) -> Endpoint {
    let options = EndpointOptions::new(name, TestTokens::default());
    Endpoint::new(options, Chain::default().then(count.clone()))
}

fn wanted() -> Connection {
    let id = ConnectionId::new("nsc-0").unwrap();
    Connection::new(id, ServiceName::new("service").unwrap())
}

fn options() -> ClientOptions {
    ClientOptions::new("nsc", TestTokens::default())
}

async fn pass(time: Duration) {
    let then = Instant::now() + time;
    sleep_until(then).await;
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_for_a_day_and_then_closed() {
    let (address, count) = (Address::default(), Count::default());
    let nse = endpoint("nse", &count);
    address.put(Some(&nse));
    let client = Client::new(options(), Chain::default(), address);
    let connection = client.connect(wanted());
    let first = connection.up().await.unwrap();
    pass(24 * 3600 * SECOND).await;
    assert_eq!(nse.connections().len(), 1);
    assert_eq!(nse.connections()[0].id.as_str(), first.path.segments[1].id);
    // Ten minutes of life, of which we use a fifth each time.
    assert!(
        (700..=725).contains(&count.requests()),
        "{}",
        count.requests()
    );
    assert_eq!(count.closes(), 0);
    assert!(connection.close(10 * SECOND).await);
    assert_eq!((count.closes(), nse.connections().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_connection_expires() {
    let (address, count) = (Address::default(), Count::default());
    let nse = endpoint("nse", &count);
    address.put(Some(&nse));
    let client = Client::new(options(), Chain::default(), address);
    let connection = client.connect(wanted());
    connection.up().await.unwrap();
    connection.abandon().await;
    pass(580 * SECOND).await;
    assert_eq!(count.closes(), 0);
    pass(10 * SECOND).await;
    assert_eq!(count.closes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_changed_mtu_reaches_the_client_at_once() {
    let (address, count) = (Address::default(), Count::default());
    let nse = endpoint("nse", &count);
    address.put(Some(&nse));
    let client = Client::new(options(), Chain::default(), address);
    let connection = client.connect(wanted());
    connection.up().await.unwrap();
    pass(SECOND).await;
    nse.ask_refresh(&|_| true, &|connection| {
        connection.context.mtu = Mtu::new(1400).ok();
    });
    pass(SECOND).await;
    assert_eq!((count.requests(), count.closes()), (2, 0));
    pass(60 * SECOND).await;
    assert_eq!(count.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_reselect_at_the_same_endpoint_settles_at_once() {
    let (address, count) = (Address::default(), Count::default());
    let nse = endpoint("nse", &count);
    address.put(Some(&nse));
    let client = Client::new(options(), Chain::default(), address);
    let connection = client.connect(wanted());
    connection.up().await.unwrap();
    for n in 1..=3 {
        connection.reselect();
        pass(10 * SECOND).await;
        assert_eq!((count.requests(), count.closes()), (n + 1, n));
    }
    assert_eq!(connection.watch().borrow().reselects, 3);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_closes_a_connection_is_asked_again() {
    let (address, count) = (Address::default(), Count::default());
    let nse = endpoint("nse", &count);
    address.put(Some(&nse));
    let client = Client::new(options(), Chain::default(), address);
    let connection = client.connect(wanted());
    connection.up().await.unwrap();
    pass(SECOND).await;
    nse.handle().close(&nse.connections()[0].id);
    pass(SECOND).await;
    assert_eq!((count.requests(), count.closes()), (2, 1));
    assert!(matches!(
        connection.watch().borrow().state,
        ClientState::Up(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_restores_leaves_the_connection_alone() {
    let (address, count) = (Address::default(), Count::default());
    let nse = endpoint("nse", &count);
    address.put(Some(&nse));
    let alive = Alive(Arc::new(AtomicBool::new(true)));
    let client = Client::new(options().liveness(alive), Chain::default(), address.clone());
    let connection = client.connect(wanted());
    let before = connection.up().await.unwrap();
    pass(SECOND).await;
    let kept = nse.connections();
    address.put(None);
    assert!(nse.stop(SECOND).await);
    pass(30 * SECOND).await;
    assert!(matches!(
        connection.watch().borrow().state,
        ClientState::Healing
    ));
    let again = Count::default();
    let nse = endpoint("nse", &again);
    for connection in &kept {
        nse.restore(Connection::clone(connection)).await.unwrap();
    }
    address.put(Some(&nse));
    pass(30 * SECOND).await;
    let after = connection.watch().borrow().connection().cloned().unwrap();
    assert_eq!(after.path.segments[1].id, before.path.segments[1].id);
    assert_eq!((count.closes(), again.closes()), (0, 0));
    assert_eq!(connection.watch().borrow().reselects, 0);
}

#[tokio::test(start_paused = true)]
async fn another_endpoint_takes_over_from_one_that_died() {
    let (address, count) = (Address::default(), Count::default());
    let old = endpoint("old", &count);
    address.put(Some(&old));
    let alive = Alive(Arc::new(AtomicBool::new(true)));
    let client = Client::new(
        options().liveness(alive.clone()),
        Chain::default(),
        address.clone(),
    );
    let connection = client.connect(wanted());
    connection.up().await.unwrap();
    pass(SECOND).await;
    alive.0.store(false, Ordering::SeqCst);
    address.put(None);
    assert!(old.stop(SECOND).await);
    let (new_count, alive_again) = (Count::default(), alive);
    let new = endpoint("new", &new_count);
    address.put(Some(&new));
    alive_again.0.store(true, Ordering::SeqCst);
    pass(30 * SECOND).await;
    let after = connection.watch().borrow().connection().cloned().unwrap();
    assert_eq!(after.path.segments[1].name, "new");
    assert_eq!(new.connections().len(), 1);
    assert!(connection.close(10 * SECOND).await);
    assert_eq!((new_count.requests(), new_count.closes()), (1, 1));
}
