//! Programs that are not there, stand still, or are there twice.

use carrick_tests::{Lab, admin};
use nix::sys::signal::Signal;

use crate::site::{Site, start_registry};

/// What a program says is missing until it is ready.
async fn missing(lab: &Lab, name: &str) -> Option<String> {
    let (code, body) = admin::get(&lab.admin(name), "/readyz").await.ok()?;
    (code != 200).then_some(body)
}

async fn says(lab: &Lab, name: &str, word: &str) {
    lab.wait(&format!("{name} says {word}"), async || {
        missing(lab, name).await?.contains(word).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_may_be_started_in_the_wrong_order() {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_nse("nse", "one", "one", "one", &[]);
    lab.start_nsc("ant", "one", "nse", &[]).await;
    says(&lab, "nse", "prefix").await;
    assert!(!lab.is_ready("nsc-ant").await);
    lab.start_ipam("one", "172.16.0.0/16");
    // The prefix is enough for clients of the node: the registry is for others.
    lab.address("ant").await;
    says(&lab, "nse", "registered").await;
    start_registry(&mut lab);
    lab.ready("nse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_registry_and_prefix_server_those_who_are_there_go_on() {
    let mut site = Site::two().await;
    for server in ["registry", "ipam"] {
        site.lab.down(server);
    }
    // One that comes now gets its address: its endpoint has its prefix.
    site.lab.start_nsc("cat", "one", "nse", &[]).await;
    site.lab.address("cat").await;
    let prefix = site.lab.prefixes("nse").await;
    for server in ["registry", "ipam"] {
        site.lab.up(server);
    }
    for program in ["registry", "ipam", "nse", "far"] {
        site.lab.ready(program).await;
    }
    site.lab.start_nse("late", "one", "one", "one", &[]);
    for nse in ["nse", "far", "late"] {
        site.lab.linked(nse, 2).await;
    }
    assert_eq!(site.lab.prefixes("nse").await, prefix);
    site.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_stands_still_keeps_its_links_and_goes_on() {
    let mut site = Site::two().await;
    let before = site.held("far").await;
    let pid = site.lab.pid("far");
    site.lab.signal("far", Signal::SIGSTOP);
    // Its new client has to wait; three probes of a peer are 1.5 s.
    site.lab.start_nsc("cat", "two", "far", &[]).await;
    let probed = tokio::time::Instant::now() + std::time::Duration::from_secs(3);
    site.lab
        .wait("six probes", async || {
            (tokio::time::Instant::now() > probed).then_some(())
        })
        .await;
    site.lab.linked("nse", 1).await;
    assert!(site.lab.ended("far").is_none());
    site.lab.signal("far", Signal::SIGCONT);
    site.lab.address("cat").await;
    site.lab.linked("far", 1).await;
    assert_eq!(site.lab.pid("far"), pid);
    assert!(site.lab.stop("nsc-cat").await.success());
    site.holds_again("far", &before).await;
    site.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_endpoint_of_one_name_waits_until_the_first_leaves() {
    let mut site = Site::two().await;
    let before = site.held("nse").await;
    let more = [
        ("NSM_NAME", "nse".to_owned()),
        ("CARRICK_STATE_DIR", site.lab.path("other-state")),
    ];
    site.lab.start_nse("second", "two", "one", "one", &more);
    says(&site.lab, "second", "nse").await;
    let log = site.lab.log("second");
    assert!(log.contains("not registered; trying again"), "{log}");
    assert!(site.lab.is_ready("nse").await);
    site.lab.linked("far", 1).await;
    site.holds_again("nse", &before).await;
    site.lost_nothing_and(async |lab| {
        // Also its client has left by then.
        assert!(lab.stop("nsc-ant").await.success());
        assert!(lab.stop("nse").await.success());
        lab.ready("second").await;
        lab.linked("far", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_endpoints_do_not_share_their_state() {
    let mut site = Site::one().await;
    let more = [("NSM_NAME", "nse".to_owned())];
    site.lab.start_nse("second", "one", "one", "one", &more);
    let mut status = None;
    for _ in 0..200 {
        status = site.lab.ended("second");
        if status.is_some() {
            break;
        }
        let tick = std::time::Duration::from_millis(50);
        let _ = tokio::time::timeout(tick, std::future::pending::<()>()).await;
    }
    assert_eq!(status.and_then(|status| status.code()), Some(1));
    let log = site.lab.log("second");
    assert!(log.contains("nse.redb"), "{log}");
    site.lost_nothing().await;
}
