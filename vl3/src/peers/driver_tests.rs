use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use carrick_agent::Netns;
use carrick_types::{ConnectionId, EndpointName, Labels};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::testing::LoopbackAgent;
use crate::{Cause, Vl3, Vl3Options, health};

/// Refuses as often as told, then connects; writes down what it is asked.
#[derive(Default)]
struct Fake {
    refusals: Mutex<u32>,
    hangs: Mutex<bool>,
    log: Mutex<Vec<String>>,
}

impl Fake {
    fn note(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

impl Dialer for Fake {
    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, Result<Link, DialError>> {
        self.note(format!("dial {}", endpoint.id));
        async move {
            if *self.hangs.lock().unwrap() {
                std::future::pending::<()>().await;
            }
            let mut refusals = self.refusals.lock().unwrap();
            if let Some(left) = refusals.checked_sub(1) {
                *refusals = left;
                let source = "connection refused".into();
                return Err(DialError {
                    reason: Reason::Unavailable,
                    source,
                });
            }
            let connection = ConnectionId::new(format!("to-{}", endpoint.id)).unwrap();
            Ok(Link {
                addresses: vec!["10.0.1.0".parse().unwrap()],
                ..Link::new(connection)
            })
        }
        .boxed()
    }

    fn close(&self, connection: ConnectionId) -> BoxFuture<'_, ()> {
        self.note(format!("close {connection}"));
        async {}.boxed()
    }

    fn evict(&self, connection: ConnectionId) -> BoxFuture<'_, ()> {
        self.note(format!("evict {connection}"));
        async {}.boxed()
    }

    fn route(&self, link: Link, installed: bool) -> BoxFuture<'_, ()> {
        self.note(format!("route {} {installed}", link.connection));
        async {}.boxed()
    }
}

struct Bed {
    vl3: Vl3,
    fake: Arc<Fake>,
    agent: Arc<LoopbackAgent>,
    tell: mpsc::Sender<Discovery>,
    _stop: DropGuard,
}

fn bed() -> Bed {
    let vl3 = Vl3::new(Vl3Options::new(EndpointName::new("m").unwrap()));
    vl3.set_prefixes(&["10.0.0.0/24".parse().unwrap()]);
    vl3.handle(Event::Registered(SystemTime::now()));
    let (fake, agent) = (
        Arc::new(Fake::default()),
        Arc::new(LoopbackAgent::default()),
    );
    let (tell, told) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let discovery = futures::stream::unfold(told, async |mut told: mpsc::Receiver<Discovery>| {
        let next = told.recv().await?;
        Some((next, told))
    });
    tokio::spawn(Peers::new(vl3.clone(), fake.clone()).run(discovery.boxed(), stop.clone()));
    tokio::spawn(health::run(
        vl3.clone(),
        agent.clone(),
        Netns::Own,
        health::Probing::default(),
        stop.clone(),
    ));
    Bed {
        vl3,
        fake,
        agent,
        tell,
        _stop: stop.drop_guard(),
    }
}

impl Bed {
    async fn see(&self, name: &str) {
        let seen = Discovery::Seen(Endpoint {
            id: PeerId::new(EndpointName::new(name).unwrap(), Domain::own()),
            url: String::new(),
            registered_at: Some(SystemTime::UNIX_EPOCH),
            node: None,
            labels: Labels::default(),
        });
        self.tell.send(seen).await.unwrap();
    }

    /// Waits until the first peer is in a state; how long that took.
    async fn until(&self, state: PeerState) -> Duration {
        let (start, mut changes) = (Instant::now(), self.vl3.changes());
        while self.vl3.status().first().map(|status| status.state) != Some(state) {
            changes.changed().await.unwrap();
        }
        start.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_refuses_three_times_is_connected_and_the_attempts_are_counted() {
    let bed = bed();
    *bed.fake.refusals.lock().unwrap() = 3;
    bed.see("a").await;
    bed.until(PeerState::Linked).await;
    let metrics = bed.vl3.metrics();
    let cause = Cause {
        cause: "unavailable",
    };
    assert_eq!(metrics.performed_dials.get(), 4);
    assert_eq!(metrics.failed_dials.get_or_create(&cause).get(), 3);
    assert_eq!((metrics.links.get(), metrics.linked_peers.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_status_says_why_a_dial_failed() {
    let bed = bed();
    *bed.fake.refusals.lock().unwrap() = u32::MAX;
    bed.see("a").await;
    bed.until(PeerState::Waiting).await;
    while bed.vl3.status()[0].last_error.is_none() {
        sleep(Duration::from_millis(1)).await;
    }
    let status = bed.vl3.status().remove(0);
    assert_eq!(
        status.last_error.as_deref(),
        Some("cannot connect: unavailable: connection refused")
    );
}

#[tokio::test(start_paused = true)]
async fn a_dial_without_answer_ends_at_its_deadline() {
    let bed = bed();
    *bed.fake.hangs.lock().unwrap() = true;
    bed.see("a").await;
    bed.until(PeerState::Dialing).await;
    let took = bed.until(PeerState::Waiting).await;
    assert_eq!(took, Peers::DIAL_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_killed_peer_loses_its_routes_within_two_seconds() {
    let bed = bed();
    bed.see("a").await;
    bed.until(PeerState::Linked).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(bed.fake.taken(), ["dial a"]);
    *bed.fake.refusals.lock().unwrap() = u32::MAX;
    bed.agent
        .away
        .lock()
        .unwrap()
        .push("10.0.1.0".parse().unwrap());
    let start = Instant::now();
    while !bed
        .fake
        .log
        .lock()
        .unwrap()
        .iter()
        .any(|line| line == "route to-a false")
    {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(
        start.elapsed() <= Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_data_path_that_returns_is_used_within_five_seconds() {
    let bed = bed();
    bed.see("a").await;
    bed.until(PeerState::Linked).await;
    *bed.fake.refusals.lock().unwrap() = u32::MAX;
    bed.agent
        .away
        .lock()
        .unwrap()
        .push("10.0.1.0".parse().unwrap());
    sleep(Duration::from_secs(20)).await;
    assert_eq!(bed.vl3.metrics().linked_peers.get(), 0);
    bed.agent.away.lock().unwrap().clear();
    assert!(bed.until(PeerState::Linked).await <= Duration::from_secs(5));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(bed.fake.taken().last().unwrap(), "route to-a true");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_while_dialled_is_let_be() {
    let bed = bed();
    *bed.fake.hangs.lock().unwrap() = true;
    bed.see("a").await;
    bed.until(PeerState::Dialing).await;
    let peer = PeerId::new(EndpointName::new("a").unwrap(), Domain::own());
    bed.tell.send(Discovery::Gone(peer)).await.unwrap();
    let mut changes = bed.vl3.changes();
    while !bed.vl3.status().is_empty() {
        changes.changed().await.unwrap();
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bed.fake.taken(), ["dial a"]);
}
