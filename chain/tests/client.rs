//! The client half against a scripted next hop.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod hop;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use carrick_chain::testing::{Count, Fault, Log, Record, TestTokens};
use carrick_chain::{
    BackOff, Chain, Client, ClientConnection, ClientOptions, ClientState, ClientStatus, EventKind,
    Kind, Liveness, MonitorEnd, Reselect,
};
use carrick_types::{
    Connection, ConnectionId, EndpointName, Mechanism, MechanismClass, MechanismType, Mtu,
    ServiceName, State,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use hop::Hop;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn options() -> ClientOptions {
    ClientOptions::new("nsc", TestTokens::default())
}

fn wanted() -> Connection {
    let id = ConnectionId::new("nsc-0").unwrap();
    let mut wanted = Connection::new(id, ServiceName::new("service").unwrap());
    wanted.preferences = vec![Mechanism::new(MechanismClass::Local, MechanismType::Kernel)];
    wanted
}

fn connect(hop: &Hop, options: ClientOptions) -> ClientConnection {
    Client::new(options, Chain::default(), hop.clone()).connect(wanted())
}

async fn pass(time: Duration) {
    let then = Instant::now() + time;
    sleep_until(then).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn status(connection: &ClientConnection) -> ClientStatus {
    connection.watch().borrow().clone()
}

/// A data path that is switched on and off.
#[derive(Clone)]
struct Wire(Arc<AtomicBool>, Arc<AtomicUsize>);

impl Wire {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)), Arc::default())
    }

    fn cut(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    fn mend(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Liveness for Wire {
    fn alive(&self, _: &Connection) -> BoxFuture<'_, bool> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let alive = self.0.load(Ordering::SeqCst);
        async move { alive }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_comes_up_and_is_closed_at_the_end() {
    let hop = Hop::default();
    let connection = connect(&hop, options());
    let up = connection.up().await.unwrap();
    assert_eq!(
        (up.id.as_str(), up.path.index, up.path.segments.len()),
        ("nsc-0", 0, 2)
    );
    let asked = hop.requests().remove(0);
    assert_eq!(asked.path.segments[0].name, "nsc");
    assert_eq!(asked.path.segments[0].token, "test");
    assert!(asked.path.segments[0].expires.is_some());
    assert_eq!(asked.preferences, wanted().preferences);
    let watch = connection.watch();
    assert!(connection.close(10 * SECOND).await);
    assert_eq!(hop.closes().len(), 1);
    assert_eq!(
        hop.closes()[0].path.segments.len(),
        2,
        "the hop finds its own segment"
    );
    assert!(matches!(watch.borrow().state, ClientState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_first_request_is_tried_until_it_succeeds_ever_more_rarely() {
    let hop = Hop::default();
    hop.fail(usize::MAX);
    let connection = connect(&hop, options());
    pass(SECOND).await;
    let first = hop.requests().len();
    assert!(
        (3..=5).contains(&first),
        "{first} tries in the first second"
    );
    pass(100 * SECOND).await;
    let then = hop.requests().len();
    pass(60 * SECOND).await;
    let rare = hop.requests().len() - then;
    assert!((3..=9).contains(&rare), "{rare} tries in a minute");
    let now = status(&connection);
    assert!(matches!(now.state, ClientState::Connecting));
    assert_eq!(now.failures, now.requests);
    assert_eq!(now.error.unwrap().kind, Kind::Unavailable);
    assert_eq!(
        hop.closes().len(),
        0,
        "what was never answered cannot be named"
    );
    hop.fail(0);
    connection.up().await.unwrap();
    assert!(status(&connection).error.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_try_has_its_own_time() {
    let hop = Hop::default();
    hop.hang(true);
    let connection = connect(&hop, options().request_timeout(SECOND));
    pass(500 * MILLI).await;
    assert_eq!(hop.requests().len(), 1);
    pass(SECOND).await;
    assert_eq!(hop.requests().len(), 2);
    assert_eq!(
        status(&connection).error.unwrap().kind,
        Kind::DeadlineExceeded
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_refreshed_before_it_expires_until_it_is_closed() {
    let hop = Hop::default();
    let connection = connect(&hop, options());
    connection.up().await.unwrap();
    // Two segments of ten minutes each, and we are the first: 0.2 of that.
    pass(119 * SECOND).await;
    assert_eq!(hop.requests().len(), 1);
    pass(2 * SECOND).await;
    assert_eq!(hop.requests().len(), 2);
    let refresh = &hop.requests()[1];
    assert_eq!(refresh.path.segments.len(), 2, "the hop recognises it");
    assert_eq!(refresh.preferences, wanted().preferences);
    assert!(connection.close(10 * SECOND).await);
    pass(1000 * SECOND).await;
    assert_eq!(hop.requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_is_repeated_and_keeps_the_connection() {
    let hop = Hop::default();
    let connection = connect(&hop, options());
    connection.up().await.unwrap();
    hop.fail(3);
    pass(130 * SECOND).await;
    assert_eq!(hop.requests().len(), 5);
    assert_eq!(hop.closes().len(), 0);
    let now = status(&connection);
    assert!(matches!(now.state, ClientState::Up(_)));
    assert_eq!((now.requests, now.failures, now.reselects), (5, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_always_expired_makes_no_storm() {
    let hop = Hop::default();
    hop.expired(true);
    let connection = connect(&hop, options());
    connection.up().await.unwrap();
    pass(10 * SECOND).await;
    let requests = hop.requests().len();
    assert!(
        (40..=55).contains(&requests),
        "{requests} Requests in ten seconds"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_when_the_endpoint_asks_for_one() {
    let hop = Hop::default();
    let connection = connect(&hop, options());
    connection.up().await.unwrap();
    pass(SECOND).await;
    hop.event(EventKind::Update, State::RefreshRequested);
    pass(MILLI).await;
    assert_eq!(hop.requests().len(), 2);
    pass(60 * SECOND).await;
    assert_eq!(hop.requests().len(), 2, "once");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_before_the_answer_is_not_lost() {
    let hop = Hop::default();
    hop.hang(true);
    let connection = connect(&hop, options());
    pass(MILLI).await;
    hop.event(EventKind::Update, State::RefreshRequested);
    hop.event(EventKind::Update, State::Up);
    hop.hang(false);
    connection.up().await.unwrap();
    pass(SECOND).await;
    assert_eq!(hop.requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn asking_for_refreshes_without_end_makes_no_storm() {
    let hop = Hop::default();
    hop.ask_with_every_answer(true);
    let connection = connect(&hop, options());
    connection.up().await.unwrap();
    pass(10 * SECOND).await;
    assert!(hop.requests().len() <= 55, "{}", hop.requests().len());
}

#[tokio::test(start_paused = true)]
async fn without_a_probe_a_lost_control_plane_means_a_new_connection() {
    for down in [
        |hop: &Hop| hop.end_streams(Some(&MonitorEnd::Lost("gone".to_owned()))),
        |hop: &Hop| hop.end_streams(None),
        |hop: &Hop| hop.event(EventKind::Update, State::Down),
        |hop: &Hop| hop.event(EventKind::Delete, State::Up),
    ] {
        let hop = Hop::default();
        let connection = connect(&hop, options());
        connection.up().await.unwrap();
        pass(SECOND).await;
        down(&hop);
        pass(SECOND).await;
        assert_eq!(hop.closes().len(), 1);
        let asked = hop.requests().remove(1);
        assert_eq!(asked.state, State::ReselectRequested);
        assert_eq!((asked.endpoint, asked.mechanism), (None, None));
        let now = status(&connection);
        assert!(matches!(now.state, ClientState::Up(_)));
        assert_eq!((now.requests, now.reselects), (2, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn working_traffic_outlives_the_control_plane() {
    let (hop, wire) = (Hop::default(), Wire::new());
    let connection = connect(&hop, options().liveness(wire));
    let up = connection.up().await.unwrap();
    pass(SECOND).await;
    hop.fail(20);
    hop.end_streams(None);
    pass(10 * SECOND).await;
    assert!(matches!(status(&connection).state, ClientState::Healing));
    pass(300 * SECOND).await;
    assert_eq!((hop.closes().len(), status(&connection).reselects), (0, 0));
    let again = connection.up().await.unwrap();
    assert_eq!(again.path.segments[1].id, up.path.segments[1].id);
    assert_eq!(hop.streams(), 2, "it listens again");
}

#[tokio::test(start_paused = true)]
async fn dead_traffic_means_a_new_connection_and_no_storm() {
    let (hop, wire) = (Hop::default(), Wire::new());
    let connection = connect(&hop, options().liveness(wire.clone()));
    connection.up().await.unwrap();
    pass(SECOND).await;
    wire.cut();
    pass(300 * MILLI).await;
    assert_eq!(status(&connection).reselects, 0, "one miss is not enough");
    pass(400 * MILLI).await;
    assert_eq!(status(&connection).reselects, 1);
    pass(120 * SECOND).await;
    let reselects = status(&connection).reselects;
    assert!((5..=20).contains(&reselects), "{reselects} in two minutes");
    wire.mend();
    pass(20 * SECOND).await;
    let settled = status(&connection).reselects;
    pass(120 * SECOND).await;
    assert_eq!(status(&connection).reselects, settled);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_does_not_end_counts_as_a_miss() {
    struct Silence;
    impl Liveness for Silence {
        fn alive(&self, _: &Connection) -> BoxFuture<'_, bool> {
            futures::future::pending().boxed()
        }
    }
    let hop = Hop::default();
    let connection = connect(
        &hop,
        options()
            .liveness(Silence)
            .liveness_every(SECOND, SECOND, 2),
    );
    connection.up().await.unwrap();
    pass(3900 * MILLI).await;
    assert_eq!(status(&connection).reselects, 0);
    pass(200 * MILLI).await;
    assert_eq!(status(&connection).reselects, 1);
}

#[tokio::test(start_paused = true)]
async fn cancelling_the_stream_stops_healing_until_the_next_answer() {
    let hop = Hop::default();
    let connection = connect(&hop, options());
    connection.up().await.unwrap();
    hop.end_streams(Some(&MonitorEnd::Cancelled));
    pass(60 * SECOND).await;
    assert_eq!((hop.requests().len(), hop.streams()), (1, 1));
    pass(70 * SECOND).await;
    assert_eq!((hop.requests().len(), hop.streams()), (2, 2));
    hop.end_streams(None);
    pass(SECOND).await;
    assert_eq!(hop.requests().len(), 3);
    drop(connection);
}

#[tokio::test(start_paused = true)]
async fn words_about_what_was_before_do_no_harm() {
    let hop = Hop::default();
    let connection = connect(&hop, options());
    connection.up().await.unwrap();
    let before = hop.requests().remove(0);
    pass(SECOND).await;
    connection.refresh();
    pass(MILLI).await;
    let mut stale = before;
    stale.path.segments[0].expires = stale.path.segments[0]
        .expires
        .map(|expires| expires - SECOND);
    hop.event_of(EventKind::Delete, stale);
    pass(SECOND).await;
    assert_eq!(
        (hop.requests().len(), status(&connection).reselects),
        (2, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_is_taken_back_at_once_does_no_harm() {
    let hop = Hop::default();
    let connection = connect(&hop, options());
    connection.up().await.unwrap();
    pass(SECOND).await;
    hop.event(EventKind::Delete, State::Up);
    hop.event(EventKind::Update, State::Up);
    pass(SECOND).await;
    assert_eq!(
        (hop.requests().len(), status(&connection).reselects),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_hop_that_has_forgotten_the_connection_is_asked_again() {
    let (hop, wire) = (Hop::default(), Wire::new());
    let connection = connect(&hop, options().liveness(wire));
    connection.up().await.unwrap();
    hop.end_streams(Some(&MonitorEnd::Cancelled));
    hop.forget(true);
    pass(SECOND).await;
    connection.refresh();
    pass(SECOND).await;
    assert_eq!(
        (hop.requests().len(), status(&connection).reselects),
        (3, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_hop_that_cannot_be_monitored_is_used_all_the_same() {
    let hop = Hop::default();
    hop.refuse_streams(true);
    let connection = connect(&hop, options());
    connection.up().await.unwrap();
    pass(60 * SECOND).await;
    assert_eq!(
        (hop.requests().len(), status(&connection).reselects),
        (1, 0)
    );
    hop.refuse_streams(false);
    pass(20 * SECOND).await;
    assert_eq!(hop.streams(), 1);
}

#[tokio::test(start_paused = true)]
async fn healing_ends_with_the_close() {
    let hop = Hop::default();
    let connection = connect(&hop, options());
    connection.up().await.unwrap();
    pass(SECOND).await;
    hop.fail(usize::MAX);
    hop.end_streams(None);
    pass(5 * SECOND).await;
    assert!(connection.close(10 * SECOND).await);
    let requests = hop.requests().len();
    pass(1000 * SECOND).await;
    assert_eq!(hop.requests().len(), requests);
}

#[tokio::test(start_paused = true)]
async fn a_reselect_may_stay_with_its_endpoint_and_forget_its_addresses() {
    let hop = Hop::default();
    let options = options()
        .reselect(Reselect::SameEndpoint)
        .keep_addresses(false);
    let connection = connect(&hop, options);
    connection.up().await.unwrap();
    connection.reselect();
    pass(SECOND).await;
    let asked = hop.requests().remove(1);
    assert_eq!(asked.endpoint, Some(EndpointName::new("nse").unwrap()));
    assert_eq!((asked.mechanism, asked.context.mtu), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_reselect_asks_for_the_addresses_it_had_unless_told_otherwise() {
    let hop = Hop::default();
    let connection = connect(&hop, options());
    connection.up().await.unwrap();
    connection.reselect();
    pass(SECOND).await;
    assert_eq!(hop.requests()[1].context.mtu, Mtu::new(1400).ok());
}

#[tokio::test(start_paused = true)]
async fn a_hop_that_cannot_be_told_does_not_stop_a_reselect() {
    let (hop, log) = (Hop::default(), Log::default());
    hop.fail_closes(true);
    let chain = Chain::default().then(Record::new(&log, "link"));
    let connection = Client::new(options(), chain, hop.clone()).connect(wanted());
    connection.up().await.unwrap();
    connection.reselect();
    pass(SECOND).await;
    assert_eq!(log.take(), ["+link", "-link", "+link"]);
    let begun = Instant::now();
    assert!(
        !connection.close(10 * SECOND).await,
        "it says so at the end"
    );
    assert!(begun.elapsed() <= 10 * SECOND);
    assert_eq!(log.take(), ["-link"]);
}

#[tokio::test(start_paused = true)]
async fn a_local_element_that_fails_takes_the_connection_back() {
    let hop = Hop::default();
    let count = Count::default();
    let fault = Fault::answer_lost(Kind::Internal).at(1);
    let chain = Chain::default().then(count.clone()).then(fault);
    let connection = Client::new(options(), chain, hop.clone()).connect(wanted());
    connection.up().await.unwrap();
    assert_eq!((hop.requests().len(), hop.closes().len()), (2, 1));
    assert_eq!((count.requests(), count.closes()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_for_an_answer_that_is_on_its_way() {
    let hop = Hop::default();
    hop.hang(true);
    let connection = connect(&hop, options());
    pass(MILLI).await;
    let closing = tokio::spawn(connection.close(10 * SECOND));
    pass(SECOND).await;
    hop.hang(false);
    assert!(closing.await.unwrap());
    assert_eq!((hop.requests().len(), hop.closes().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_connection_is_left_up_and_adopted() {
    let hop = Hop::default();
    let client = Client::new(options(), Chain::default(), hop.clone());
    let connection = client.connect(wanted());
    let mut answer = Connection::clone(&connection.up().await.unwrap());
    connection.abandon().await;
    assert_eq!(hop.closes().len(), 0);
    let soon = Instant::now() + SECOND;
    let existing = client.existing(&wanted().id, soon).await.unwrap();
    assert_eq!(existing, Some(answer.clone()));
    // As the next hop knows it.
    answer.id = ConnectionId::new(&answer.path.segments[1].id).unwrap();
    answer.path.index = 1;
    hop.fail(2);
    let adopted = client.adopt(wanted(), answer.clone()).unwrap();
    let again = adopted.up().await.unwrap();
    assert_eq!(again.path.segments[1].id, answer.path.segments[1].id);
    assert_eq!(hop.requests().len(), 4);
    assert_eq!(hop.closes().len(), 0, "a failed Request does not close it");
    assert_eq!(hop.requests()[1].context.mtu, Mtu::new(1400).ok());
    assert_eq!(hop.requests()[1].preferences, wanted().preferences);
}

#[tokio::test(start_paused = true)]
async fn an_adopted_connection_that_is_dead_is_asked_for_anew() {
    let (hop, wire) = (Hop::default(), Wire::new());
    let client = Client::new(
        options().liveness(wire.clone()),
        Chain::default(),
        hop.clone(),
    );
    let connection = client.connect(wanted());
    let answer = Connection::clone(&connection.up().await.unwrap());
    connection.abandon().await;
    wire.cut();
    hop.fail(usize::MAX);
    let adopted = client.adopt(wanted(), answer).unwrap();
    pass(10 * SECOND).await;
    assert_eq!(status(&adopted).reselects, 1);
    assert_eq!(
        hop.requests().pop().unwrap().state,
        State::ReselectRequested
    );
}

#[tokio::test(start_paused = true)]
async fn only_ones_own_connection_can_be_adopted() {
    let client = Client::new(options(), Chain::default(), Hop::default());
    let alien = carrick_chain::testing::request("other", "nsc-0");
    assert!(client.adopt(wanted(), alien).is_err());
    assert!(
        client
            .adopt(wanted(), carrick_chain::testing::request("nsc", "1"))
            .is_err()
    );
    assert!(client.adopt(wanted(), wanted()).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_connection_is_left_up() {
    let hop = Hop::default();
    let connection = connect(&hop, options().back_off(BackOff::default()));
    connection.up().await.unwrap();
    let mut watch = connection.watch();
    drop(connection);
    watch
        .wait_for(|status| matches!(status.state, ClientState::Closed))
        .await
        .unwrap();
    assert_eq!(hop.closes().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_about_another_connection_is_refused() {
    let hop = Hop::default();
    hop.spoil(true);
    let connection = connect(&hop, options());
    pass(MILLI).await;
    assert_eq!(status(&connection).error.unwrap().kind, Kind::Invalid);
    hop.spoil(false);
    connection.up().await.unwrap();
}
