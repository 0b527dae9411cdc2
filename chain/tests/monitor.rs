//! `MonitorConnections`: what subscribers hear.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use carrick_chain::testing::{Check, TestTokens, request, soon};
use carrick_chain::{
    Chain, ConnectionEvent, Endpoint, EndpointOptions, EventKind, Monitor, Selector,
};
use carrick_types::{Connection, Mtu, PathSegment, State};
use futures::{FutureExt, StreamExt};
use proptest::prelude::*;

const LONG: Duration = Duration::from_secs(3600);

fn endpoint() -> Endpoint {
    Endpoint::new(
        EndpointOptions::new("nse", TestTokens::default()),
        Chain::default(),
    )
}

/// The next event, which must be there.
#[track_caller]
fn event(monitor: &mut Monitor) -> ConnectionEvent {
    monitor
        .next()
        .now_or_never()
        .expect("an event is there")
        .expect("the stream goes on")
}

#[track_caller]
fn assert_silent(monitor: &mut Monitor) {
    assert_eq!(monitor.next().now_or_never(), None);
}

fn kind_and_clients(event: &ConnectionEvent) -> (EventKind, Vec<&str>) {
    (
        event.kind,
        event
            .connections
            .iter()
            .filter_map(|c| c.client_name())
            .collect(),
    )
}

fn by_name(name: &str) -> Selector {
    Selector::segment(name, "")
}

#[tokio::test(start_paused = true)]
async fn the_first_event_says_what_there_is_even_if_that_is_nothing() {
    let endpoint = endpoint();
    let mut early = endpoint.monitor(Selector::default());
    assert_eq!(
        kind_and_clients(&event(&mut early)),
        (EventKind::InitialStateTransfer, vec![])
    );
    endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    let mut late = endpoint.monitor(Selector::default());
    let initial = event(&mut late);
    assert_eq!(
        kind_and_clients(&initial),
        (EventKind::InitialStateTransfer, vec!["nsc"])
    );
    assert_silent(&mut late);
}

#[tokio::test(start_paused = true)]
async fn each_request_is_an_update_and_a_close_is_a_delete() {
    let endpoint = endpoint();
    let mut all = endpoint.monitor(Selector::default());
    let mut one = endpoint.monitor(by_name("a"));
    event(&mut all);
    event(&mut one);
    let answer = endpoint.request(request("a", "1"), soon()).await.unwrap();
    endpoint.request(request("b", "2"), soon()).await.unwrap();
    endpoint.request(answer.clone(), soon()).await.unwrap();
    endpoint.close(answer).await.unwrap();
    for expected in [
        (EventKind::Update, vec!["a"]),
        (EventKind::Update, vec!["b"]),
        (EventKind::Update, vec!["a"]),
        (EventKind::Delete, vec!["a"]),
    ] {
        assert_eq!(kind_and_clients(&event(&mut all)), expected);
    }
    for expected in [EventKind::Update, EventKind::Update, EventKind::Delete] {
        assert_eq!(kind_and_clients(&event(&mut one)), (expected, vec!["a"]));
    }
    assert_silent(&mut all);
    assert_silent(&mut one);
}

#[tokio::test(start_paused = true)]
async fn an_update_is_the_answer_with_the_id_and_index_of_this_hop() {
    let chain = Chain::default().then(Check::new(|connection| {
        connection.context.mtu = Mtu::new(1400).ok();
        let own = connection.path.index;
        connection.path.segments[own]
            .metrics
            .insert("hops".into(), "1".into());
        Ok(())
    }));
    let endpoint = Endpoint::new(EndpointOptions::new("nse", TestTokens::default()), chain);
    let mut monitor = endpoint.monitor(Selector::default());
    event(&mut monitor);
    let mut answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    answer.id = carrick_types::ConnectionId::new(&answer.path.segments[1].id).unwrap();
    answer.path.index = 1;
    assert_eq!(*event(&mut monitor).connections[0], answer);
}

/// What answers depend on changes while the first Request is served, before it
/// can be among those that are asked for a refresh.
#[tokio::test(start_paused = true)]
async fn an_answer_that_became_stale_while_it_was_made_is_asked_for_again() {
    let size = Arc::new(Mutex::new(Mtu::new(1500).unwrap()));
    let (read, change) = (size.clone(), size.clone());
    let chain = Chain::default()
        .then(Check::new(move |connection| {
            connection.context.mtu = Some(*read.lock().unwrap());
            Ok(())
        }))
        .then(Check::new(move |_| {
            *change.lock().unwrap() = Mtu::new(1400).unwrap();
            Ok(())
        }));
    let options = EndpointOptions::new("nse", TestTokens::default()).is_stale(Arc::new(
        move |connection: &Connection| connection.context.mtu != Some(*size.lock().unwrap()),
    ));
    let endpoint = Endpoint::new(options, chain);
    let mut monitor = endpoint.monitor(Selector::default());
    event(&mut monitor);

    let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    assert_eq!(event(&mut monitor).connections[0].state, State::Up);
    let asked = event(&mut monitor);
    assert_eq!(asked.kind, EventKind::Update);
    assert_eq!(asked.connections[0].state, State::RefreshRequested);
    assert_eq!(
        answer.state,
        State::Up,
        "the answer itself asks for nothing"
    );

    endpoint.request(answer, soon()).await.unwrap();
    assert_eq!(event(&mut monitor).connections[0].state, State::Up);
    assert_silent(&mut monitor);
}

#[tokio::test(start_paused = true)]
async fn a_client_follows_its_own_connection_by_the_id_of_its_segment() {
    let endpoint = endpoint();
    let mut own = endpoint.monitor(Selector::segment("nsc", "1"));
    let mut alien = endpoint.monitor(Selector::segment("other", "1"));
    event(&mut own);
    event(&mut alien);
    endpoint.request(request("nsc", "2"), soon()).await.unwrap();
    assert_silent(&mut own);
    endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    assert_eq!(event(&mut own).kind, EventKind::Update);
    assert_silent(&mut alien);
    let mut late = endpoint.monitor(Selector::segment("nsc", "1"));
    assert_eq!(event(&mut late).connections.len(), 1);
}

#[test]
fn a_selector_wants_a_run_of_segments_and_one_of_its_services() {
    let connection = request("nsc", "1");
    let selector = |segments: &[(&str, &str)], services: &[&str]| Selector {
        segments: (segments.iter())
            .map(|(name, id)| PathSegment {
                name: (*name).into(),
                id: (*id).into(),
                ..PathSegment::default()
            })
            .collect(),
        network_services: services.iter().map(|&service| service.to_owned()).collect(),
    };
    assert!(selector(&[], &[]).matches(&connection));
    assert!(selector(&[("", "1")], &["other", "service"]).matches(&connection));
    assert!(!selector(&[("nsc", "")], &["other"]).matches(&connection));
    assert!(!selector(&[("nsc", "2")], &[]).matches(&connection));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_asked_for_of_those_chosen_with_what_has_changed() {
    let endpoint = endpoint();
    for (client, id) in [("a", "1"), ("b", "2")] {
        endpoint.request(request(client, id), soon()).await.unwrap();
    }
    let mut all = endpoint.monitor(Selector::default());
    event(&mut all);
    let mtu = Mtu::new(1400).ok();
    endpoint.ask_refresh(
        &|connection: &Connection| connection.client_name() == Some("a"),
        &|connection| connection.context.mtu = mtu,
    );
    let asked = event(&mut all);
    assert_eq!(kind_and_clients(&asked), (EventKind::Update, vec!["a"]));
    assert_eq!(asked.connections[0].state, State::RefreshRequested);
    assert_eq!(asked.connections[0].context.mtu, mtu);
    assert_silent(&mut all);
    // Who comes too late for the event reads it at the beginning.
    let mut late = endpoint.monitor(by_name("a"));
    assert_eq!(
        event(&mut late).connections[0].state,
        State::RefreshRequested
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_shutdown_after_its_deletes() {
    let endpoint = endpoint();
    endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    let monitor = endpoint.monitor(Selector::default());
    assert!(endpoint.shutdown(LONG).await);
    let kinds: Vec<_> = monitor.map(|event| event.kind).collect().await;
    assert_eq!(kinds, [EventKind::InitialStateTransfer, EventKind::Delete]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_stop_without_deletes() {
    let endpoint = endpoint();
    endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    let monitor = endpoint.monitor(Selector::default());
    assert!(endpoint.stop(LONG).await);
    let kinds: Vec<_> = monitor.map(|event| event.kind).collect().await;
    assert_eq!(kinds, [EventKind::InitialStateTransfer]);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_misses_neither_the_last_state_nor_a_delete() {
    let endpoint = endpoint();
    let gone = endpoint
        .request(request("gone", "0"), soon())
        .await
        .unwrap();
    let mut slow = endpoint.monitor(Selector::default());
    event(&mut slow);
    let mut kept = endpoint
        .request(request("kept", "1"), soon())
        .await
        .unwrap();
    endpoint.close(gone).await.unwrap();
    for n in 0..500 {
        kept.labels = [("n", n.to_string())].into_iter().collect();
        kept = endpoint.request(kept, soon()).await.unwrap();
        let passing = endpoint
            .request(request("passing", "2"), soon())
            .await
            .unwrap();
        endpoint.close(passing).await.unwrap();
    }
    let mut events = Vec::new();
    while let Some(event) = slow.next().now_or_never() {
        events.push(event.unwrap());
    }
    assert!(events.len() < 200, "{} events are held", events.len());
    let last = |client| {
        let of = |event: &&ConnectionEvent| event.connections[0].client_name() == Some(client);
        events
            .iter()
            .rfind(of)
            .map(|event| (event.kind, event.connections[0].labels.clone()))
    };
    assert_eq!(last("gone").unwrap().0, EventKind::Delete);
    let (kind, labels) = last("kept").unwrap();
    assert_eq!((kind, labels.value("n")), (EventKind::Update, Some("499")));
    assert!(last("passing").is_none_or(|(kind, _)| kind == EventKind::Delete));
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Close(u8),
    Read,
    Request(u8),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_reader_always_ends_up_with_what_there_is(
        acts in prop::collection::vec(
            prop_oneof![
                3 => (0u8..40).prop_map(Act::Request),
                2 => (0u8..40).prop_map(Act::Close),
                1 => Just(Act::Read),
            ],
            0..400,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let endpoint = endpoint();
            let mut monitor = endpoint.monitor(Selector::default());
            let mut seen = std::collections::BTreeSet::new();
            let mut answers = std::collections::BTreeMap::new();
            for act in acts.into_iter().chain([Act::Read; 1]) {
                match act {
                    Act::Request(n) => {
                        let asked = answers.remove(&n);
                        let asked = asked.unwrap_or_else(|| request("nsc", &n.to_string()));
                        answers.insert(n, endpoint.request(asked, soon()).await.unwrap());
                    }
                    Act::Close(n) => {
                        if let Some(answer) = answers.remove(&n) {
                            endpoint.close(answer).await.unwrap();
                        }
                    }
                    Act::Read => read(&mut monitor, 1, &mut seen),
                }
            }
            read(&mut monitor, usize::MAX, &mut seen);
            let is: std::collections::BTreeSet<_> =
                endpoint.connections().iter().map(|c| c.id.clone()).collect();
            assert_eq!(seen, is);
        });
    }
}

fn read(
    monitor: &mut Monitor,
    most: usize,
    seen: &mut std::collections::BTreeSet<carrick_types::ConnectionId>,
) {
    for _ in 0..most {
        let Some(event) = monitor.next().now_or_never() else {
            return;
        };
        let event = event.unwrap();
        for connection in &event.connections {
            match event.kind {
                EventKind::Delete => seen.remove(&connection.id),
                EventKind::InitialStateTransfer | EventKind::Update => {
                    seen.insert(connection.id.clone())
                }
            };
        }
    }
}
