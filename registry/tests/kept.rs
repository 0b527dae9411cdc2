//! Registrations and watches over failures.

mod bed;

use std::time::Duration;

use bed::{Bed, endpoint, name, next, service, until};
use carrick_registry::{
    Client, ClientOptions, Endpoint, EndpointQuery, Error, RegistrationOptions, RegistrationState,
    ServerOptions, Service, ServiceQuery,
};
use carrick_store::Store;
use tokio::time::{Instant, sleep, timeout};

fn vl3() -> EndpointQuery {
    EndpointQuery::by_service(service("vl3"))
}

fn options() -> RegistrationOptions {
    RegistrationOptions::default()
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

async fn found(client: &Client) -> Vec<Endpoint> {
    client.find_endpoints(&vl3()).await.expect("an answer")
}

#[tokio::test(start_paused = true)]
async fn a_registration_is_refreshed_before_it_expires() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    let kept = client.keep_registered(endpoint("a"), vec![Service::new(service("vl3"))], options());
    kept.registered().await;
    let mut watch = client.watch_endpoints(vl3());
    assert_eq!(until(&mut watch, "synced").await, ["+a", "synced"]);
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(next(&mut watch).await, "+a");
    }
    let each = start.elapsed() / 10;
    assert!(
        each > Duration::from_secs(35) && each < Duration::from_secs(45),
        "{each:?}"
    );
    let services = client
        .find_services(&ServiceQuery::default())
        .await
        .unwrap();
    assert_eq!(services, [Service::new(service("vl3"))]);
}

#[tokio::test(start_paused = true)]
async fn an_unregistered_endpoint_is_gone_and_its_service_stays() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    let kept = client.keep_registered(endpoint("a"), vec![Service::new(service("vl3"))], options());
    kept.registered().await;
    kept.unregister(deadline()).await.unwrap();
    assert!(found(&client).await.is_empty());
    assert_eq!(
        client
            .find_services(&ServiceQuery::default())
            .await
            .unwrap()
            .len(),
        1
    );
    sleep(Duration::from_secs(300)).await;
    assert!(found(&client).await.is_empty(), "it does not come back");
}

#[tokio::test(start_paused = true)]
async fn unregistering_at_a_dead_registry_ends_at_the_deadline() {
    let mut bed = Bed::start(ServerOptions::default());
    let kept = bed
        .client()
        .keep_registered(endpoint("a"), vec![], options());
    kept.registered().await;
    bed.kill();
    let start = Instant::now();
    assert!(kept.unregister(deadline()).await.is_err());
    assert!(start.elapsed() <= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_dropped_expires() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    let kept = client.keep_registered(endpoint("a"), vec![], options());
    kept.registered().await;
    drop(kept);
    assert_eq!(found(&client).await.len(), 1);
    sleep(Duration::from_secs(61)).await;
    assert!(found(&client).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_taken_away_comes_back_at_once() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    let kept = client.keep_registered(endpoint("a"), vec![], options());
    kept.registered().await;
    let mut watch = client.watch_endpoints(vl3());
    until(&mut watch, "synced").await;
    for _ in 0..3 {
        let start = Instant::now();
        client.unregister_endpoint(&endpoint("a")).await.unwrap();
        assert_eq!(until(&mut watch, "-a").await.last().unwrap(), "-a");
        assert_eq!(next(&mut watch).await, "+a");
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_registration_comes_back_after_the_registry_forgot_everything() {
    let mut bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    let kept = client.keep_registered(endpoint("a"), vec![Service::new(service("vl3"))], options());
    kept.registered().await;
    let before = found(&client).await;
    let mut watch = client.watch_endpoints(vl3());
    until(&mut watch, "synced").await;
    bed.kill();
    sleep(Duration::from_secs(2)).await;
    bed.restart(ServerOptions::default());
    let start = Instant::now();
    // Whether the watch saw it missing depends on who was back first.
    until(&mut watch, "+a").await;
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    let after = found(&client).await;
    assert_eq!(
        after[0].registered_at, before[0].registered_at,
        "its age among peers stays"
    );
    let services = client
        .find_services(&ServiceQuery::default())
        .await
        .unwrap();
    assert_eq!(services.len(), 1, "with its service");
}

#[tokio::test(start_paused = true)]
async fn a_watch_with_grace_does_not_take_the_living_for_dead() {
    let mut bed = Bed::start(ServerOptions::default());
    let kept = bed
        .client()
        .keep_registered(endpoint("a"), vec![], options());
    kept.registered().await;
    bed.client()
        .register_endpoint(&endpoint("dead"))
        .await
        .unwrap();
    let patient = ClientOptions {
        grace: Duration::from_secs(20),
        ..ClientOptions::default()
    };
    let mut watch = Client::new(bed.channel(), patient).watch_endpoints(vl3());
    assert_eq!(until(&mut watch, "synced").await, ["+a", "+dead", "synced"]);
    bed.kill();
    bed.restart(ServerOptions::default());
    let events = until(&mut watch, "-dead").await;
    assert!(!events.contains(&"-a".to_owned()), "{events:?}");
}

// Not paused: the store's thread takes real time.
#[tokio::test]
async fn a_registry_that_restarts_with_its_store_loses_nobody() {
    let store = Store::in_memory().unwrap();
    let with_store = || ServerOptions {
        store: Some(store.clone()),
        ..ServerOptions::default()
    };
    let mut bed = Bed::start(with_store());
    let client = bed.client();
    client.register_endpoint(&endpoint("a")).await.unwrap();
    let mut watch = client.watch_endpoints(vl3());
    assert_eq!(until(&mut watch, "synced").await, ["+a", "synced"]);
    bed.kill();
    bed.restart(with_store());
    assert_eq!(next(&mut watch).await, "synced");
    assert_eq!(found(&client).await[0].name, name("a"));
}

#[tokio::test(start_paused = true)]
async fn a_registration_waits_for_a_registry_that_is_not_there_yet() {
    let mut bed = Bed::start(ServerOptions::default());
    bed.kill();
    let kept = bed
        .client()
        .keep_registered(endpoint("a"), vec![], options());
    let mut state = kept.state();
    let lost = |state: &RegistrationState| matches!(state, RegistrationState::Lost(_));
    state.wait_for(lost).await.unwrap();
    sleep(Duration::from_secs(30)).await;
    bed.restart(ServerOptions::default());
    timeout(Duration::from_secs(16), kept.registered())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_loses_nothing_before_the_entry_expires() {
    let mut bed = Bed::start(ServerOptions::default());
    let kept = bed
        .client()
        .keep_registered(endpoint("a"), vec![], options());
    kept.registered().await;
    bed.kill();
    sleep(Duration::from_secs(50)).await;
    assert!(kept.state().borrow().is_registered());
    sleep(Duration::from_secs(40)).await;
    assert!(!kept.state().borrow().is_registered());
}

#[tokio::test(start_paused = true)]
async fn the_second_endpoint_of_a_name_waits_until_the_first_has_left() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    let first = client.keep_registered(endpoint("a"), vec![], options());
    first.registered().await;
    let mut other = endpoint("a");
    other.url = Some("tcp://elsewhere:1".into());
    let second = client.keep_registered(other.clone(), vec![], options());
    let mut state = second.state();
    let conflict = |state: &RegistrationState| matches!(state, RegistrationState::Lost(error) if matches!(**error, Error::Conflict { .. }));
    state.wait_for(conflict).await.unwrap();
    sleep(Duration::from_secs(120)).await;
    assert!(conflict(&state.borrow()));
    assert_eq!(found(&client).await[0].url, endpoint("a").url);
    first.unregister(deadline()).await.unwrap();
    timeout(Duration::from_secs(21), second.registered())
        .await
        .unwrap();
    assert_eq!(found(&client).await[0].url, other.url);
}

#[tokio::test(start_paused = true)]
async fn a_loser_of_a_conflict_does_not_unregister_the_holder() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    client.register_endpoint(&endpoint("a")).await.unwrap();
    let mut other = endpoint("a");
    other.url = Some("tcp://elsewhere:1".into());
    let second = client.keep_registered(other, vec![], options());
    let mut state = second.state();
    state
        .wait_for(|state| matches!(state, RegistrationState::Lost(_)))
        .await
        .unwrap();
    second.unregister(deadline()).await.unwrap();
    assert_eq!(found(&client).await.len(), 1);
}

/// Our registry refuses a second endpoint of a name unless it has the same
/// URL, and so stands for NSM's, which refuse none.
fn with_key(key: &str) -> Endpoint {
    let mut endpoint = endpoint("a");
    let labels = [(Endpoint::KEY_LABEL, key)].into_iter().collect();
    endpoint.labels.insert(service("vl3"), labels);
    endpoint
}

#[tokio::test(start_paused = true)]
async fn a_name_that_another_takes_is_left_to_it_until_it_is_gone() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    let (first, other) = (with_key("1"), with_key("2"));
    let kept = client.keep_registered(first.clone(), vec![], options());
    kept.registered().await;
    client.register_endpoint(&other).await.unwrap();

    let mut state = kept.state();
    let lost = state.wait_for(|state| !state.is_registered()).await;
    let RegistrationState::Lost(error) = lost.unwrap().clone() else {
        panic!("it is not lost");
    };
    assert!(matches!(*error, Error::Taken { .. }), "{error}");
    let url = other.url.as_deref().unwrap();
    let told = format!("endpoint a was registered by another one, at {url:?}");
    assert_eq!(error.to_string(), told);
    // For as long as the other one lives, whatever this one changes.
    let zone = |endpoint: &Endpoint| endpoint.labels_for("vl3")?.value("zone").map(str::to_owned);
    kept.update(|endpoint| {
        let labels = endpoint.labels.get_mut("vl3").unwrap();
        labels.0.insert("zone".into(), "b".into());
    });
    for _ in 0..4 {
        sleep(Duration::from_secs(30)).await;
        assert_eq!(found(&client).await[0].key(), Some("2"));
        client.register_endpoint(&other).await.unwrap();
    }
    client.unregister_endpoint(&other).await.unwrap();
    timeout(Duration::from_secs(3), kept.registered())
        .await
        .unwrap();
    let back = found(&client).await.remove(0);
    assert_eq!(back.key(), Some("1"));
    assert_eq!(zone(&back).as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn who_lost_its_name_does_not_unregister_the_holder() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    let kept = client.keep_registered(with_key("1"), vec![], options());
    kept.registered().await;
    client.register_endpoint(&with_key("2")).await.unwrap();
    let mut state = kept.state();
    state
        .wait_for(|state| !state.is_registered())
        .await
        .unwrap();
    kept.unregister(deadline()).await.unwrap();
    assert_eq!(found(&client).await[0].key(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_changed_label_is_registered_at_once() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    let kept = client.keep_registered(endpoint("a"), vec![], options());
    kept.registered().await;
    let registered_at = found(&client).await[0].registered_at;
    let mut watch = client.watch_endpoints(vl3());
    until(&mut watch, "synced").await;
    let start = Instant::now();
    kept.update(|endpoint| {
        let labels = [("zone", "b")].into_iter().collect();
        endpoint.labels.insert(service("vl3"), labels);
    });
    assert_eq!(next(&mut watch).await, "+a");
    assert!(start.elapsed() < Duration::from_secs(1));
    let changed = found(&client).await.remove(0);
    assert_eq!(changed.labels_for("vl3").unwrap().value("zone"), Some("b"));
    assert_eq!(changed.registered_at, registered_at);
}

#[tokio::test(start_paused = true)]
async fn the_rules_of_a_service_outlive_endpoints_that_know_none() {
    let bed = Bed::start(ServerOptions::default());
    let client = bed.client();
    let ruled = Service {
        matches: vec![carrick_registry::Match::default()],
        ..Service::new(service("vl3"))
    };
    client.register_service(&ruled).await.unwrap();
    let kept = client.keep_registered(endpoint("a"), vec![Service::new(service("vl3"))], options());
    kept.registered().await;
    assert_eq!(
        client
            .find_services(&ServiceQuery::default())
            .await
            .unwrap(),
        [ruled]
    );
}
