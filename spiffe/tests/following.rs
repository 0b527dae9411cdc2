//! The Workload API as it comes, changes and goes.

use std::time::{Duration, SystemTime};

use carrick_spiffe::testing::{Authority, WorkloadApi, answer};
use carrick_spiffe::{NoSvid, Source, WorkloadEndpoint};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

async fn ready(source: &Source) -> String {
    let context = timeout(PATIENCE, source.ready())
        .await
        .expect("an identity comes");
    context.svid().id().to_string()
}

#[tokio::test]
async fn a_workload_api_that_comes_late_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let source = Source::follow(WorkloadEndpoint::Unix(socket.clone()));
    let mut news = source.clone();
    assert!(matches!(source.current(), Err(NoSvid::None(_))));
    while source.fault().is_none() {
        timeout(PATIENCE, news.changed()).await.unwrap();
    }
    let fault = source.fault().unwrap();
    assert!(fault.contains("cannot be connected to"), "{fault}");

    let _api = WorkloadApi::start_at(&socket, Authority::new("own.test").answer("nse", &[]));
    assert_eq!(ready(&source).await, "spiffe://own.test/nse");
    assert_eq!(source.fault(), None);
}

#[tokio::test]
async fn an_identity_that_changes_is_taken_at_once() {
    let own = Authority::new("own.test");
    let api = WorkloadApi::start(own.answer("nse", &[]));
    let source = api.follow();
    ready(&source).await;
    let mut news = source.clone();
    let before = source.current().unwrap();
    api.give(own.answer("nse", &[&Authority::new("other.test")]));
    let mut after = source.current().unwrap();
    while before.svid().certificate() == after.svid().certificate() {
        timeout(PATIENCE, news.changed()).await.unwrap();
        after = source.current().unwrap();
    }
    let domains: Vec<_> = after.verifier().trust_domains().collect();
    assert_eq!(domains, ["other.test", "own.test"]);
}

#[tokio::test]
async fn what_was_given_last_holds_until_it_ends() {
    let own = Authority::new("own.test");
    let end = SystemTime::now() + Duration::from_millis(2500);
    let api = WorkloadApi::start(answer(own.issue_until("nse", end), &[]));
    let source = api.follow();
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(source.clone().tell_usable(move |usable| {
        let _ = told.send(usable.map_err(|e| e.to_string()));
    }));
    ready(&source).await;
    drop(api);
    let mut news = source.clone();
    while source.fault().is_none() {
        timeout(PATIENCE, news.changed()).await.unwrap();
    }
    assert!(
        source.current().is_ok(),
        "the Workload API is gone, the identity is not"
    );

    let mut seen = Vec::new();
    while !matches!(seen[..], [.., Ok(()), Err(_)]) {
        seen.push(timeout(PATIENCE, tells.recv()).await.unwrap().unwrap());
    }
    let last = seen.pop().unwrap().unwrap_err();
    assert!(last.contains("ended"), "readiness is told: {last}");
    assert!(matches!(source.current(), Err(NoSvid::Expired { .. })));
}

/// An answer that makes no sense must not take away what there is.
#[tokio::test]
async fn an_answer_that_cannot_be_used_changes_nothing() {
    let own = Authority::new("own.test");
    let api = WorkloadApi::start(own.answer("nse", &[]));
    let source = api.follow();
    ready(&source).await;
    let mut bad = own.answer("nse", &[]);
    bad.svids.clear();
    api.give(bad);
    let mut news = source.clone();
    while source.fault().is_none() {
        timeout(PATIENCE, news.changed()).await.unwrap();
    }
    assert!(source.fault().unwrap().contains("no identity"));
    assert_eq!(ready(&source).await, "spiffe://own.test/nse");
}
