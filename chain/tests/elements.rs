//! The standard elements in a chain.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::time::Duration;

use carrick_chain::elements::{Mechanisms, OnIdle, kernel_of_own_namespace};
use carrick_chain::testing::{Fault, TestTokens, request, soon};
use carrick_chain::{Chain, Element, Endpoint, EndpointOptions, Error, Kind};
use carrick_types::{Connection, Mechanism, MechanismClass, MechanismType};
use tokio::time::{Instant, sleep_until};

const SECOND: Duration = Duration::from_secs(1);

fn endpoint(chain: Chain) -> Endpoint {
    Endpoint::new(EndpointOptions::new("nse", TestTokens::default()), chain)
}

fn with(element: impl Element) -> Endpoint {
    endpoint(Chain::default().then(element))
}

fn mechanism(kind: MechanismType) -> Mechanism {
    Mechanism::new(MechanismClass::Local, kind)
}

async fn chosen(
    mechanisms: Mechanisms,
    named: Option<MechanismType>,
    preferred: impl IntoIterator<Item = MechanismType>,
) -> Result<Connection, Error> {
    let mut asked = request("nsc", "1");
    asked.mechanism = named.map(mechanism);
    asked.preferences = preferred.into_iter().map(mechanism).collect();
    with(mechanisms).request(asked, soon()).await
}

use MechanismType::{Kernel, Memif, Noop, Vxlan};

#[tokio::test(start_paused = true)]
async fn the_first_preference_that_is_supported_is_chosen() {
    let both = || Mechanisms::new([Vxlan, Kernel]);
    let answer = chosen(both(), None, [Memif, Kernel, Vxlan]).await.unwrap();
    assert_eq!(answer.mechanism, Some(mechanism(Kernel)));
    assert!(answer.preferences.is_empty());
    assert_eq!(
        answer.path.segments[1].metrics["server_interface"],
        "KERNEL/"
    );
    let answer = chosen(both(), Some(Vxlan), [Kernel]).await.unwrap();
    assert_eq!(
        answer.mechanism,
        Some(mechanism(Vxlan)),
        "what is named wins"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_not_supported_is_refused_with_its_causes() {
    let text = |error: Error| (error.kind, error.source.to_string());
    let error = chosen(Mechanisms::new([Kernel]), Some(Memif), [])
        .await
        .unwrap_err();
    assert_eq!(
        text(error),
        (Kind::Invalid, "unsupported mechanism MEMIF".to_owned())
    );
    let error = chosen(Mechanisms::new([Kernel]), None, [Memif, Vxlan])
        .await
        .unwrap_err();
    let expected = "cannot support any of the requested mechanism; \
                    unsupported mechanism MEMIF; unsupported mechanism VXLAN";
    assert_eq!(text(error), (Kind::Invalid, expected.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_any_mechanism_passes_only_where_it_may() {
    let error = chosen(Mechanisms::new([Kernel]), None, [])
        .await
        .unwrap_err();
    assert_eq!(
        error.source.to_string(),
        "cannot support any of the requested mechanism"
    );
    let answer = chosen(Mechanisms::new([Kernel]).optional(), None, [])
        .await
        .unwrap();
    assert_eq!(answer.mechanism, None);
}

#[tokio::test(start_paused = true)]
async fn a_preference_that_cannot_be_prepared_makes_way_for_the_next() {
    let mechanisms = Mechanisms::new([Noop]).with(Kernel, |_, _| Err("no namespace".into()));
    let answer = chosen(mechanisms, None, [Kernel, Noop]).await.unwrap();
    assert_eq!(answer.mechanism, Some(mechanism(Noop)));
}

#[tokio::test(start_paused = true)]
async fn a_kernel_mechanism_keeps_its_interface_over_a_refresh() {
    let endpoint = with(Mechanisms::default().with(Kernel, kernel_of_own_namespace));
    let mut asked = request("nsc", "1");
    asked.preferences = vec![mechanism(Kernel)];
    let answer = endpoint.request(asked, soon()).await.unwrap();
    let again = endpoint.request(answer.clone(), soon()).await.unwrap();
    assert_eq!(again.mechanism, answer.mechanism);
    let name = answer
        .mechanism
        .unwrap()
        .parameter(Mechanism::NAME)
        .unwrap()
        .to_owned();
    let metrics = &answer.path.segments[1].metrics;
    assert_eq!(metrics["server_interface"], format!("KERNEL/{name}"));
}

async fn pass(time: Duration) {
    let then = Instant::now() + time;
    sleep_until(then).await;
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
}

/// An endpoint that idles for a minute, and its end.
fn idling(fault: Option<Fault>) -> (Endpoint, tokio::task::JoinHandle<()>) {
    let on_idle = OnIdle::new(60 * SECOND).unwrap();
    let idle = tokio::spawn(on_idle.clone().idle());
    (
        endpoint(Chain::default().then(on_idle).then_some(fault)),
        idle,
    )
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_nobody_asks_becomes_idle_and_refuses() {
    let (endpoint, idle) = idling(None);
    pass(59 * SECOND).await;
    assert!(!idle.is_finished());
    idle.await.unwrap();
    let error = endpoint
        .request(request("nsc", "1"), soon())
        .await
        .unwrap_err();
    assert_eq!(error.source.to_string(), "endpoint expired");
}

#[tokio::test(start_paused = true)]
async fn a_connection_keeps_an_endpoint_from_idling_until_it_is_closed() {
    let (endpoint, idle) = idling(None);
    let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    pass(1000 * SECOND).await;
    endpoint.request(answer.clone(), soon()).await.unwrap();
    assert!(!idle.is_finished());
    endpoint.close(answer).await.unwrap();
    pass(59 * SECOND).await;
    assert!(!idle.is_finished());
    idle.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_request_counts_as_activity() {
    let (endpoint, idle) = idling(Some(Fault::request(Kind::Internal)));
    pass(50 * SECOND).await;
    endpoint
        .request(request("nsc", "1"), soon())
        .await
        .unwrap_err();
    pass(50 * SECOND).await;
    assert!(!idle.is_finished());
    idle.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_served_keeps_an_endpoint_from_idling() {
    let (endpoint, idle) = idling(Some(Fault::hang()));
    let slow = tokio::spawn(async move {
        endpoint
            .request(request("nsc", "1"), Instant::now() + 100 * SECOND)
            .await
    });
    pass(99 * SECOND).await;
    assert!(!idle.is_finished());
    slow.await.unwrap().unwrap_err();
    idle.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_does_not_count_keeps_nobody_but_is_refused_in_the_end() {
    let on_idle = OnIdle::new(60 * SECOND).unwrap();
    let on_idle =
        on_idle.counting(|connection| connection.path.client().is_none_or(|c| c.id != "peer"));
    let idle = tokio::spawn(on_idle.clone().idle());
    let endpoint = endpoint(Chain::default().then(on_idle));
    let peer = endpoint
        .request(request("other", "peer"), soon())
        .await
        .unwrap();
    let client = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    pass(100 * SECOND).await;
    assert!(!idle.is_finished());
    endpoint.close(client).await.unwrap();
    idle.await.unwrap();
    for late in [peer, request("nsc", "2")] {
        let error = endpoint.request(late, soon()).await.unwrap_err();
        assert_eq!(error.source.to_string(), "endpoint expired");
    }
}

#[test]
fn no_period_means_forever() {
    assert!(OnIdle::new(Duration::ZERO).is_none());
    assert!(OnIdle::new(SECOND).is_some());
}
