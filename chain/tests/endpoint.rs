//! One connection through an endpoint: order, failure, refresh, Close.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use carrick_chain::testing::{
    self, Check, Count, Fault, Log, Record, TestTokens, request, request_valid_for, soon,
};
use carrick_chain::{
    BoxError, Chain, Element, Endpoint, EndpointOptions, Error, EventKind, Handle, Kind, Next,
    Selector, Tokens,
};
use carrick_types::{Connection, ServiceName, State, Token};
use futures::StreamExt;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, advance};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

fn options() -> EndpointOptions {
    EndpointOptions::new("nse", TestTokens::default())
}

/// Three elements that write to a log.
fn recording() -> (Chain, Log) {
    let log = Log::default();
    let chain = ["1", "2", "3"].into_iter();
    (
        chain.fold(Chain::default(), |chain, n| {
            chain.then(Record::new(&log, n))
        }),
        log,
    )
}

#[tokio::test(start_paused = true)]
async fn a_failed_first_request_leaves_nothing() {
    let request = request("nsc", "1");
    let build = async || recording();
    let open = async |log: &Log| {
        let count = |sign| {
            log.lines()
                .iter()
                .filter(|line| line.starts_with(sign))
                .count()
        };
        count('+') - count('-')
    };
    testing::leaves_nothing_after_a_failure(&request, build, open).await;
    testing::may_be_done_twice(&request, build, open).await;
    testing::may_fail_to_close(&request, build, open).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_undone_in_reverse() {
    for n in 1..=3 {
        let (chain, log) = recording();
        let endpoint = Endpoint::new(
            options(),
            chain.with_fault(n, Fault::request(Kind::Internal)),
        );
        endpoint
            .request(request("nsc", "1"), soon())
            .await
            .unwrap_err();
        let up = (1..=n).map(|i| format!("+{i}"));
        let down = (1..=n).rev().map(|i| format!("-{i}"));
        assert_eq!(log.take(), up.chain(down).collect::<Vec<_>>());
        assert!(endpoint.connections().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_past_its_deadline_is_undone() {
    let (chain, log) = recording();
    let endpoint = Endpoint::new(options(), chain.with_fault(2, Fault::hang()));
    let error = endpoint
        .request(request("nsc", "1"), soon())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::DeadlineExceeded);
    assert_eq!(log.take(), ["+1", "+2", "-2", "-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waited_past_its_deadline_is_not_begun() {
    let (chain, log) = recording();
    let endpoint = Endpoint::new(options(), chain);
    let error = endpoint
        .request(request("nsc", "1"), Instant::now())
        .await
        .unwrap_err();
    assert_eq!((error.kind, log.take().len()), (Kind::DeadlineExceeded, 0));
}

#[tokio::test(start_paused = true)]
async fn the_answer_is_up_signed_and_at_the_callers_segment() {
    let endpoint = Endpoint::new(options(), Chain::default());
    let mut asked = request("nsc", "1");
    asked.state = State::ReselectRequested;
    let answer = endpoint.request(asked, soon()).await.unwrap();
    assert_eq!(
        (answer.id.as_str(), answer.path.index, answer.state),
        ("1", 0, State::Up)
    );
    let own = &answer.path.segments[1];
    assert_eq!((own.name.as_str(), own.token.as_str()), ("nse", "test"));
    assert!(own.expires.unwrap() > SystemTime::now());
    let inside = endpoint.connections().pop().unwrap();
    assert_eq!(
        (inside.id.as_str(), inside.path.index),
        (own.id.as_str(), 1)
    );
}

struct NoTokens;

impl Tokens for NoTokens {
    fn token(&self, _: Option<&str>) -> Result<Token, BoxError> {
        Err("no identity yet".into())
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_token_of_our_own_nothing_is_begun() {
    let (chain, log) = recording();
    let endpoint = Endpoint::new(EndpointOptions::new("nse", NoTokens), chain);
    let error = endpoint
        .request(request("nsc", "1"), soon())
        .await
        .unwrap_err();
    assert_eq!((error.kind, log.take().len()), (Kind::Unavailable, 0));
    endpoint.close(request("nsc", "1")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refresh_overwrites_the_token_of_the_own_segment() {
    let endpoint = Endpoint::new(options(), Chain::default());
    let mut answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    answer.path.segments[1].token = "old".to_owned();
    answer.path.segments[1].expires = None;
    let answer = endpoint.request(answer, soon()).await.unwrap();
    assert_eq!(answer.path.segments[1].token, "test");
    assert!(answer.path.segments[1].expires.is_some());
    assert_eq!(
        answer.path.segments[0].token, "",
        "that of the caller is the caller's"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stale_tail_of_the_path_is_not_answered() {
    let endpoint = Endpoint::new(options(), Chain::default());
    let mut answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    answer.path.segments.push(answer.path.segments[1].clone());
    let answer = endpoint.request(answer, soon()).await.unwrap();
    assert_eq!(answer.path.segments.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_bad_path_is_refused() {
    let endpoint = Endpoint::new(options(), Chain::default());
    let mut asked = request("nsc", "1");
    asked.path.index = 5;
    assert_eq!(
        endpoint
            .request(asked.clone(), soon())
            .await
            .unwrap_err()
            .kind,
        Kind::Invalid
    );
    assert_eq!(endpoint.close(asked).await.unwrap_err().kind, Kind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_keeps_the_connection() {
    let (chain, log) = recording();
    let endpoint = Endpoint::new(
        options(),
        chain.with_fault(1, Fault::request(Kind::Unavailable).at(2)),
    );
    let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    let stored = endpoint.connections();
    endpoint.request(answer, soon()).await.unwrap_err();
    assert_eq!(log.take(), ["+1", "+2", "+3", "=1"]);
    assert_eq!(endpoint.connections(), stored);
}

#[tokio::test(start_paused = true)]
async fn close_acts_on_the_stored_connection_and_once() {
    let (chain, log) = recording();
    let seen = Log::default();
    let endpoint = Endpoint::new(options(), chain.then(SeeClose(seen.clone())));
    let mut answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    log.take();
    answer.labels = [("forged", "yes")].into_iter().collect();
    endpoint.close(answer.clone()).await.unwrap();
    endpoint.close(answer).await.unwrap();
    assert_eq!(log.take(), ["-3", "-2", "-1"]);
    assert_eq!(seen.take(), ["labels: 0"]);
}

struct SeeClose(Log);

impl Element for SeeClose {
    const NAME: &'static str = "see";
    type State = ();

    async fn request(
        &self,
        connection: Connection,
        state: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        *state = Some(());
        next.request(connection).await
    }

    async fn close(&self, connection: &Connection, (): &mut ()) -> Result<(), Error> {
        self.0.add(format!("labels: {}", connection.labels.0.len()));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn closing_what_is_not_there_is_no_error() {
    let endpoint = Endpoint::new(options(), Chain::default());
    endpoint.close(request("nsc", "1")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_closed_keeps_what_is_before_it_and_is_tried_again_ever_later() {
    let (chain, log) = recording();
    let fault = Fault::close(Kind::Unavailable);
    let count = Count::default();
    let chain = chain.with_fault(2, fault).then(count.clone());
    let endpoint = Endpoint::new(options(), chain);
    let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    endpoint.close(answer.clone()).await.unwrap_err();
    assert!(
        endpoint.connections().is_empty(),
        "it is not served any more"
    );
    assert_eq!(log.take(), ["+1", "+2", "+3", "-3"]);
    endpoint.close(answer.clone()).await.unwrap_err();
    assert_eq!((log.take().len(), count.closes()), (0, 1));
    assert!(!endpoint.shutdown(LONG).await, "shutdown says what is left");
}

#[tokio::test(start_paused = true)]
async fn a_failed_close_is_retried_until_it_succeeds() {
    for fault in [
        Fault::close(Kind::Unavailable).at(1),
        Fault::hang_in_close().at(1),
    ] {
        let (chain, log) = recording();
        let endpoint = Endpoint::new(options(), chain.with_fault(2, fault));
        let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
        endpoint.close(answer).await.unwrap_err();
        assert!(endpoint.shutdown(3 * SECOND).await);
        assert_eq!(log.take(), ["+1", "+2", "+3", "-3", "-2", "-1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_a_late_retry() {
    let (chain, log) = recording();
    let fault = Fault::close(Kind::Unavailable).up_to(6);
    let endpoint = Endpoint::new(options(), chain.with_fault(2, fault));
    let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    for _ in 0..5 {
        endpoint.close(answer.clone()).await.unwrap_err();
    }
    // The next retry is 16 s away.
    assert!(endpoint.shutdown(3 * SECOND).await);
    assert_eq!(log.take(), ["+1", "+2", "+3", "-3", "-2", "-1"]);
}

#[tokio::test(start_paused = true)]
async fn closing_after_stop_is_refused() {
    let endpoint = Endpoint::new(options(), Chain::default());
    let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    assert!(endpoint.stop(LONG).await);
    let refused = endpoint.close(answer).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unavailable);
    assert_eq!(refused.source.to_string(), "the endpoint is ending");
}

#[tokio::test(start_paused = true)]
async fn a_request_revives_a_half_closed_connection() {
    let (chain, log) = recording();
    let fault = Fault::close(Kind::Unavailable).at(1);
    let endpoint = Endpoint::new(options(), chain.with_fault(2, fault));
    let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    endpoint.close(answer.clone()).await.unwrap_err();
    log.take();
    endpoint.request(answer, soon()).await.unwrap();
    assert_eq!(log.take(), ["=1", "=2", "+3"]);
    advance(LONG / 2).await;
    assert_eq!(
        endpoint.connections().len(),
        1,
        "no Close is retried any more"
    );
}

/// Stops each Request until it is let through.
#[derive(Clone)]
struct Gate {
    entered: Arc<Notify>,
    open: Arc<Semaphore>,
}

impl Gate {
    fn new() -> Self {
        Self {
            entered: Arc::default(),
            open: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Element for Gate {
    const NAME: &'static str = "gate";
    type State = ();

    async fn request(
        &self,
        connection: Connection,
        _: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        self.entered.notify_one();
        self.open.acquire().await.unwrap().forget();
        next.request(connection).await
    }

    async fn close(&self, _: &Connection, (): &mut ()) -> Result<(), Error> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_request_whose_caller_leaves_is_finished_and_leaves_nothing() {
    let gate = Gate::new();
    let endpoint = Endpoint::new(options(), Chain::default().then(gate.clone()));
    let mut monitor = endpoint.monitor(Selector::default());
    assert!(monitor.next().await.unwrap().connections.is_empty());
    abandoned(&endpoint, request("nsc", "1"), &gate).await;
    assert_eq!(monitor.next().await.unwrap().kind, EventKind::Update);
    assert_eq!(monitor.next().await.unwrap().kind, EventKind::Delete);
    assert!(endpoint.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_whose_caller_leaves_is_finished() {
    let gate = Gate::new();
    let endpoint = Endpoint::new(options(), Chain::default().then(gate.clone()));
    gate.open.add_permits(1);
    let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    gate.entered.notified().await;
    let mut monitor = endpoint.monitor(Selector::default());
    assert_eq!(monitor.next().await.unwrap().connections.len(), 1);
    let mut refresh = answer;
    refresh.labels.0.insert("app".into(), "web".into());
    abandoned(&endpoint, refresh, &gate).await;
    let event = monitor.next().await.unwrap();
    assert_eq!(event.connections[0].labels.value("app"), Some("web"));
    assert_eq!(event.connections, endpoint.connections());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_forgot_its_connection_gets_a_new_one_as_in_nsm() {
    let endpoint = Endpoint::new(options(), Chain::default());
    let first = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    let again = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    assert_ne!(again.path.segments[1].id, first.path.segments[1].id);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_known_again_gets_its_connection_under_its_own_id() {
    let endpoint = Endpoint::new(options().know_callers(), Chain::default());
    let first = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    let again = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    assert_eq!(again.path.segments[1].id, first.path.segments[1].id);
    let others = [request("nsc", "2"), request("other", "1")];
    for other in others {
        endpoint.request(other, soon()).await.unwrap();
    }
    assert_eq!(endpoint.connections().len(), 3);
    let mut elsewhere = request("nsc", "1");
    elsewhere.network_service = ServiceName::new("another").unwrap();
    endpoint.request(elsewhere, soon()).await.unwrap();
    assert_eq!(endpoint.connections().len(), 4);
}

/// Asks, and leaves when the Request is in the chain.
async fn abandoned(endpoint: &Endpoint, request: Connection, gate: &Gate) {
    let asking = endpoint.clone();
    let caller = tokio::spawn(async move { asking.request(request, soon()).await });
    gate.entered.notified().await;
    caller.abort();
    gate.open.add_permits(1);
}

#[tokio::test(start_paused = true)]
async fn more_events_than_a_mailbox_holds_are_refused() {
    let gate = Gate::new();
    let endpoint = Endpoint::new(options(), Chain::default().then(gate.clone()));
    gate.open.add_permits(1);
    let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    gate.entered.notified().await;
    let ask = || {
        let (endpoint, answer) = (endpoint.clone(), answer.clone());
        tokio::spawn(async move { endpoint.request(answer, soon()).await })
    };
    let first = ask();
    gate.entered.notified().await;
    let waiting: Vec<_> = (0..16).map(|_| ask()).collect();
    tokio::task::yield_now().await;
    let refused = ask().await.unwrap().unwrap_err();
    assert_eq!(refused.kind, Kind::Unavailable);
    assert!(refused.source.to_string().starts_with("busy"));
    gate.open.add_permits(17);
    for asked in std::iter::once(first).chain(waiting) {
        asked.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_most_are_refused() {
    let endpoint = Endpoint::new(options().max_connections(1), Chain::default());
    let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    let refused = endpoint
        .request(request("nsc", "2"), soon())
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::Exhausted);
    endpoint.request(answer.clone(), soon()).await.unwrap();
    endpoint.close(answer).await.unwrap();
    endpoint.request(request("nsc", "2"), soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reselect_closes_what_was_answered_before() {
    let (chain, log) = recording();
    let fault = Fault::close(Kind::Unavailable).at(1);
    let endpoint = Endpoint::new(options(), chain.with_fault(1, fault));
    let mut answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    log.take();
    answer.state = State::ReselectRequested;
    let answer = endpoint.request(answer, soon()).await.unwrap();
    assert_eq!(
        log.take(),
        ["-3", "-2", "=1", "+2", "+3"],
        "a failed Close does not stop it"
    );
    let again = Connection {
        state: State::ReselectRequested,
        ..answer
    };
    let answer = endpoint.request(again, soon()).await.unwrap();
    assert_eq!(log.take(), ["-3", "-2", "-1", "+1", "+2", "+3"]);
    assert_eq!(answer.state, State::Up);
}

#[tokio::test(start_paused = true)]
async fn a_failed_request_after_a_reselect_leaves_nothing() {
    let (chain, log) = recording();
    let fault = Fault::request(Kind::Unavailable).at(2);
    let endpoint = Endpoint::new(options(), chain.with_fault(2, fault));
    let mut answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    answer.state = State::ReselectRequested;
    endpoint.request(answer, soon()).await.unwrap_err();
    assert_eq!(
        log.take(),
        ["+1", "+2", "+3", "-3", "-2", "-1", "+1", "+2", "-2", "-1"]
    );
    assert!(endpoint.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_an_expiry_a_request_is_refused() {
    let (chain, log) = recording();
    let endpoint = Endpoint::new(options(), chain);
    let mut asked = request("nsc", "1");
    asked.path.segments[0].expires = None;
    let error = endpoint.request(asked, soon()).await.unwrap_err();
    let text = error.source.to_string();
    assert!(text.starts_with("expiration for the previous path segment cannot be nil"));
    assert_eq!((error.kind, log.take().len()), (Kind::Invalid, 0));
    let mut direct = request("nsc", "1");
    direct.path.segments.clear();
    assert_eq!(
        endpoint.request(direct, soon()).await.unwrap_err().kind,
        Kind::Invalid
    );
}

/// Closes so far, once everything that is due has been done.
async fn closes_after(count: &Count, time: Duration) -> usize {
    let now = Instant::now();
    tokio::time::sleep_until(now + time).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    count.closes()
}

#[tokio::test(start_paused = true)]
async fn a_connection_expires_with_its_caller_less_the_time_of_a_request() {
    let count = Count::default();
    let endpoint = Endpoint::new(options(), Chain::default().then(count.clone()));
    let asked = request_valid_for("nsc", "1", 60 * SECOND);
    endpoint
        .request(asked, Instant::now() + 10 * SECOND)
        .await
        .unwrap();
    assert_eq!(closes_after(&count, 49 * SECOND).await, 0);
    assert_eq!(closes_after(&count, 2 * SECOND).await, 1);
    assert!(endpoint.connections().is_empty());
    assert_eq!(closes_after(&count, LONG).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_early_close_takes_the_expiry_away() {
    let count = Count::default();
    let endpoint = Endpoint::new(options(), Chain::default().then(count.clone()));
    let asked = request_valid_for("nsc", "1", 60 * SECOND);
    let answer = endpoint.request(asked, soon()).await.unwrap();
    endpoint.close(answer).await.unwrap();
    assert_eq!(closes_after(&count, LONG).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_puts_the_expiry_off_and_a_failed_one_does_not() {
    let count = Count::default();
    let chain = Chain::default().then(count.clone());
    let fault = Fault::request(Kind::Unavailable).at(3);
    let endpoint = Endpoint::new(options(), chain.with_fault(1, fault));
    let asked = request_valid_for("nsc", "1", 60 * SECOND);
    let mut answer = endpoint.request(asked, soon()).await.unwrap();
    answer.path.segments[0].expires = Some(SystemTime::now() + 120 * SECOND);
    let mut answer = endpoint.request(answer, soon()).await.unwrap();
    assert_eq!(closes_after(&count, 100 * SECOND).await, 0);
    answer.path.segments[0].expires = Some(SystemTime::now() + LONG);
    endpoint.request(answer, soon()).await.unwrap_err();
    assert_eq!(closes_after(&count, 20 * SECOND).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_failed_at_expiry_is_tried_again() {
    let count = Count::default();
    let fault = Fault::close(Kind::DeadlineExceeded).at(1);
    let chain = Chain::default().then(count.clone());
    let endpoint = Endpoint::new(options(), chain.with_fault(1, fault));
    let asked = request_valid_for("nsc", "1", 20 * SECOND);
    endpoint.request(asked, soon()).await.unwrap();
    assert_eq!(closes_after(&count, 30 * SECOND).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_expiry_that_no_clock_can_reach_is_no_panic() {
    let endpoint = Endpoint::new(options(), Chain::default());
    let mut asked = request("nsc", "1");
    asked.path.segments[0].expires =
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::MAX / 4));
    endpoint.request(asked, soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_one_connection_and_is_told() {
    for fault in [Fault::panic().at(2), Fault::panic_in_close().at(1)] {
        let endpoint = Endpoint::new(options(), Chain::default().with_fault(0, fault));
        let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
        let refreshed = endpoint.request(answer.clone(), soon()).await;
        let closed = endpoint.close(answer.clone()).await;
        let error = refreshed.err().or(closed.err()).unwrap();
        assert_eq!(error.kind, Kind::Internal);
        endpoint.failed().await;
        let error = endpoint.request(answer, soon()).await.unwrap_err();
        assert_eq!(
            error.kind,
            Kind::Internal,
            "nobody knows what is left of it"
        );
        endpoint.request(request("nsc", "2"), soon()).await.unwrap();
        assert!(!endpoint.shutdown(LONG).await);
    }
}

/// Says if two calls for one connection overlap.
#[derive(Clone, Default)]
struct Exclusive {
    overlap: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

struct Busy(AtomicBool);

impl Exclusive {
    async fn call(&self, busy: &Busy) {
        if busy.0.swap(true, Ordering::SeqCst) {
            self.overlap.store(true, Ordering::SeqCst);
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        busy.0.store(false, Ordering::SeqCst);
    }
}

impl Element for Exclusive {
    const NAME: &'static str = "exclusive";
    type State = Busy;

    async fn request(
        &self,
        connection: Connection,
        state: &mut Option<Busy>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        self.call(state.get_or_insert_with(|| Busy(AtomicBool::new(false))))
            .await;
        next.request(connection).await
    }

    async fn close(&self, _: &Connection, state: &mut Busy) -> Result<(), Error> {
        self.call(state).await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_for_one_connection_never_overlap() {
    let exclusive = Exclusive::default();
    let endpoint = Endpoint::new(options(), Chain::default().then(exclusive.clone()));
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..200 {
        let endpoint = endpoint.clone();
        callers.spawn(async move {
            // All of them name the same segment of ours.
            let mut asked = request("nsc", "1");
            let mut own = asked.path.segments[0].clone();
            own.name = "nse".to_owned();
            own.id = format!("own-{}", n % 3);
            asked.path.segments.push(own);
            // A full mailbox is an honest answer here.
            let _ = endpoint.request(asked.clone(), soon()).await;
            let _ = endpoint.close(asked).await;
        });
    }
    callers.join_all().await;
    assert!(!exclusive.overlap.load(Ordering::SeqCst));
    assert!(exclusive.calls.load(Ordering::SeqCst) > 0);
    assert!(endpoint.shutdown(LONG).await);
    assert!(endpoint.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_connection_does_not_wait_for_another() {
    let gate = Gate::new();
    let chain = Chain::default().then(SlowOnly(gate.clone()));
    let endpoint = Endpoint::new(options(), chain);
    let slow = tokio::spawn({
        let endpoint = endpoint.clone();
        async move { endpoint.request(request("slow", "1"), soon()).await }
    });
    gate.entered.notified().await;
    endpoint.request(request("nsc", "2"), soon()).await.unwrap();
    gate.open.add_permits(1);
    slow.await.unwrap().unwrap();
}

/// A gate for the client `slow`.
struct SlowOnly(Gate);

impl Element for SlowOnly {
    const NAME: &'static str = "gate";
    type State = ();

    async fn request(
        &self,
        connection: Connection,
        state: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        match connection.client_name() {
            Some("slow") => Element::request(&self.0, connection, state, next).await,
            _ => next.request(connection).await,
        }
    }

    async fn close(&self, _: &Connection, (): &mut ()) -> Result<(), Error> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_element_can_ask_for_a_close_from_the_top() {
    let (chain, log) = recording();
    let handle = Handle::default();
    let endpoint = Endpoint::new(options().handle(&handle), chain);
    endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    let id = handle.connections()[0].id.clone();
    handle.close(&id);
    handle.close(&id);
    assert!(closed(&endpoint).await);
    assert_eq!(log.take(), ["+1", "+2", "+3", "-3", "-2", "-1"]);
    handle.refresh(&id);
    assert!(
        closed(&endpoint).await,
        "a refresh after the Close does nothing"
    );
    assert_eq!(log.take().len(), 0);
}

async fn closed(endpoint: &Endpoint) -> bool {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    endpoint.connections().is_empty()
}

#[tokio::test(start_paused = true)]
async fn an_element_can_ask_that_the_chain_runs_again() {
    let count = Count::default();
    let endpoint = Endpoint::new(options(), Chain::default().then(count.clone()));
    let asked = request_valid_for("nsc", "1", 60 * SECOND);
    endpoint.request(asked, soon()).await.unwrap();
    let id = endpoint.connections()[0].id.clone();
    assert_eq!(closes_after(&count, 30 * SECOND).await, 0);
    endpoint.handle().refresh(&id);
    assert_eq!(closes_after(&count, 10 * SECOND).await, 0);
    assert_eq!(count.requests(), 2);
    assert_eq!(
        closes_after(&count, 20 * SECOND).await,
        1,
        "the expiry stays"
    );
}

#[tokio::test(start_paused = true)]
async fn a_handle_without_an_endpoint_does_nothing() {
    let handle = Handle::default();
    handle.close(&request("nsc", "1").id);
    handle.ask_refresh(&|_| true, &|_| {});
    assert!(handle.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn shutdown_closes_everything_and_admits_nothing() {
    let (chain, log) = recording();
    let endpoint = Endpoint::new(options(), chain);
    let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    log.take();
    assert!(endpoint.shutdown(LONG).await);
    assert_eq!(log.take(), ["-3", "-2", "-1"]);
    let refused = endpoint.request(answer, soon()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn stop_leaves_what_is_up() {
    let (chain, log) = recording();
    let endpoint = Endpoint::new(options(), chain);
    endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    log.take();
    assert!(endpoint.stop(LONG).await);
    assert_eq!(log.take().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn stop_finishes_the_request_that_is_served() {
    let gate = Gate::new();
    let endpoint = Endpoint::new(options(), Chain::default().then(gate.clone()));
    let asked = tokio::spawn({
        let endpoint = endpoint.clone();
        async move { endpoint.request(request("nsc", "1"), soon()).await }
    });
    gate.entered.notified().await;
    let stopped = tokio::spawn(async move { endpoint.stop(LONG).await });
    tokio::task::yield_now().await;
    gate.open.add_permits(1);
    assert!(stopped.await.unwrap());
    asked.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_element_sees_its_own_end_of_the_path() {
    let chain = Chain::default().then(Check::new(|connection| {
        assert_eq!(
            connection.path.current().unwrap().id,
            connection.id.as_str()
        );
        assert!(connection.path.current().unwrap().expires.is_some());
        connection
            .path
            .segments
            .push(carrick_types::PathSegment::default());
        Ok(())
    }));
    let endpoint = Endpoint::new(options(), chain);
    let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    assert_eq!(answer.path.segments.len(), 2);
}
