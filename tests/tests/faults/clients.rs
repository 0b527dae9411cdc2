//! One client that fails: it is told why, and nobody else notices.

use std::time::{Duration, SystemTime};

use carrick_grpc::convert::time_to_wire;
use carrick_tests::{Namespace, ip};
use tonic::Code::{InvalidArgument, ResourceExhausted, Unavailable};

use crate::site::{Held, Site, held};
use crate::wire::{Caller, kernel, parameters, refresh, segment};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_namespace_is_none_is_told_so_and_leaves_nothing() {
    let mut site = Site::one().await;
    site.lab.pod("eve").await;
    let caller = Caller::new(&site.lab, "nse").await;
    let before = site.held("nse").await;
    let router = format!("file://{}", site.lab.router("nse").path().display());
    let namespaces = [
        (
            "file:///run/netns/no-such-namespace",
            Unavailable,
            "no-such-namespace",
        ),
        ("inode://4/1", Unavailable, "4"),
        ("file:///proc/1/environ", InvalidArgument, "inodeURL"),
        (
            "file:///run/netns/../../etc/passwd",
            InvalidArgument,
            "inodeURL",
        ),
        ("http://example", InvalidArgument, "inodeURL"),
        ("", InvalidArgument, "inodeURL"),
        (&router, InvalidArgument, "inodeURL"),
    ];
    for (url, code, named) in namespaces {
        let mut wanted = caller.wanted("eve", site.lab.pod("eve").await);
        wanted.mechanism_preferences = vec![kernel(url)];
        caller
            .refused(url, wanted, code, &["mechanism.parameters.inodeURL", named])
            .await;
    }
    site.holds_again("nse", &before).await;
    site.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_interface_name_is_taken_or_none_is_told_so_and_leaves_nothing() {
    let mut site = Site::one().await;
    let caller = Caller::new(&site.lab, "nse").await;
    let before = site.held("nse").await;
    let ant = ip::interfaces(site.lab.pod("ant").await);
    let wanted = caller.wanted("eve", site.lab.pod("ant").await);
    caller
        .refused(
            "nsm-1",
            wanted,
            InvalidArgument,
            &["mechanism.parameters.name", "nsm-1"],
        )
        .await;
    for name in [".", "a/b", "sixteen-letters-", "a b", "lo"] {
        let mut wanted = caller.wanted("eve", site.lab.pod("ant").await);
        parameters(&mut wanted).insert("name".into(), name.into());
        caller
            .refused(name, wanted, InvalidArgument, &["name"])
            .await;
    }
    site.holds_again("nse", &before).await;
    assert_eq!(ip::interfaces(site.lab.pod("ant").await), ant);
    site.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_namespace_vanishes_is_told_so_and_leaves_nothing() {
    let site = Site::one().await;
    let caller = Caller::new(&site.lab, "nse").await;
    let before = site.held("nse").await;
    let pod = Namespace::new("eve");
    let answer = caller.request(caller.wanted("eve", &pod)).await.unwrap();
    assert_ne!(site.held("nse").await, before);
    let name = pod.name().to_owned();
    drop(pod);
    caller
        .refused("a refresh", refresh(&answer), Unavailable, &[&name])
        .await;
    caller.close(answer).await.unwrap();
    site.holds_again("nse", &before).await;
    site.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_that_vanish_midway_leave_nothing() {
    let site = Site::one().await;
    let caller = Caller::new(&site.lab, "nse").await;
    let before = site.held("nse").await;
    for delay in 0..24 {
        let pod = Namespace::new("eve");
        let name = format!("eve-{delay}");
        let (call, wanted) = (caller.clone(), caller.wanted(&name, &pod));
        let request = tokio::spawn(async move { call.request(wanted).await });
        // So that it vanishes at another step each time.
        tokio::time::timeout(Duration::from_millis(delay), std::future::pending::<()>())
            .await
            .unwrap_err();
        drop(pod);
        if let Ok(answer) = request.await.unwrap() {
            caller.close(answer).await.unwrap();
        }
    }
    site.holds_again("nse", &before).await;
    site.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_hang_up_midway_leave_nothing() {
    let mut site = Site::one().await;
    site.lab.pod("eve").await;
    let before = site.held("nse").await;
    for delay in 0..24 {
        // A channel of its own each, gone with the Request.
        let caller = Caller::new(&site.lab, "nse").await;
        let name = format!("eve-{delay}");
        let mut wanted = caller.wanted(&name, site.lab.pod("eve").await);
        // An answer that was on its way is nobody's until the token ends.
        let end = SystemTime::now() + Duration::from_secs(5);
        segment(&mut wanted).expires = Some(time_to_wire(end));
        let request = caller.request(wanted);
        let patience = Duration::from_millis(delay);
        if let Ok(Ok(answer)) = tokio::time::timeout(patience, request).await {
            caller.close(answer).await.unwrap();
        }
    }
    site.holds_again("nse", &before).await;
    assert!(ip::interfaces(site.lab.pod("eve").await).is_empty());
    site.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_is_forgotten_when_its_token_ends() {
    let mut site = Site::one().await;
    site.lab.pod("eve").await;
    let caller = Caller::new(&site.lab, "nse").await;
    let before = site.held("nse").await;
    let mut wanted = caller.wanted("eve", site.lab.pod("eve").await);
    let end = SystemTime::now() + Duration::from_secs(2);
    segment(&mut wanted).expires = Some(time_to_wire(end));
    caller.request(wanted).await.unwrap();
    assert_ne!(site.held("nse").await, before);
    site.holds_again("nse", &before).await;
    site.lost_nothing().await;
}

/// An endpoint whose prefix has three addresses for clients, and no more to be had.
async fn small() -> carrick_tests::Lab {
    let mut lab = carrick_tests::Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    let node = lab.node("one");
    let env = [
        ("NSM_LISTEN_ON", format!("tcp://{}:5006", node.address)),
        ("NSM_PREFIX", "172.16.0.0/30".into()),
        ("NSM_CLIENT_PREFIX_LEN", "30".into()),
    ];
    let netns = node.namespace.path();
    lab.start("ipam", &netns, &["ipam"], &env);
    lab.start_nse("nse", "one", "one", "one", &[]);
    lab.ready("nse").await;
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_is_named_and_serves_again_once_a_client_leaves() {
    let lab = small().await;
    let caller = Caller::new(&lab, "nse").await;
    let pods: Vec<_> = (0..5).map(|_| Namespace::new("pod")).collect();
    let (mut answers, mut full) = (Vec::new(), None);
    for (number, pod) in pods.iter().enumerate() {
        let wanted = caller.wanted(&format!("pod-{number}"), pod);
        match caller.request(wanted).await {
            Ok(answer) => answers.push(answer),
            Err(status) => full = full.or(Some((number, status))),
        }
    }
    let (number, status) = full.unwrap();
    assert_eq!(status.code(), ResourceExhausted, "{status:?}");
    assert!(status.message().contains("172.16.0.0/30"), "{status:?}");
    assert!(answers.len() >= 2, "{answers:?}");
    let kept: Held = held(&lab, "nse").await;
    let left = answers.pop().unwrap();
    caller.close(left).await.unwrap();
    let again = caller.wanted(&format!("pod-{number}"), &pods[number]);
    let answer = caller.request(again).await.unwrap();
    assert_ne!(held(&lab, "nse").await, kept);
    caller.close(answer).await.unwrap();
}
