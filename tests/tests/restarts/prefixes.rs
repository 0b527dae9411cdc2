//! Prefixes outlive lost streams, dead endpoints and a server that stands still.

use std::time::Duration;

use carrick_tests::{Lab, PATIENCE};
use nix::sys::signal::Signal;
use tokio::time::Instant;

/// How long the server keeps a prefix without a sign of its endpoint.
const LEASE: Duration = Duration::from_secs(3);

/// Two nodes; a prefix server whose networks have room for four prefixes.
async fn lab() -> Lab {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    let node = lab.node("one");
    let env = [
        ("NSM_LISTEN_ON", format!("tcp://{}:5006", node.address)),
        ("NSM_PREFIX", "172.16.0.0/16".to_owned()),
        ("NSM_CLIENT_PREFIX_LEN", "24".to_owned()),
        ("CARRICK_LEASE", format!("{}s", LEASE.as_secs())),
    ];
    let netns = node.namespace.path();
    lab.start("ipam", &netns, &["ipam"], &env);
    lab
}

async fn start(lab: &mut Lab, nse: &str) -> String {
    lab.start_nse(nse, "one", "one", "one", &[]);
    prefix(lab, nse).await
}

async fn prefix(lab: &Lab, nse: &str) -> String {
    lab.wait(&format!("{nse} has its prefix"), async || {
        let status = lab.status(nse).await?;
        Some(status["prefixes"][0].as_str()?.to_owned())
    })
    .await
}

/// Waits for a time, which is what the test is about.
async fn after(lab: &Lab, time: Duration) {
    let end = Instant::now() + time;
    let over = async || (Instant::now() >= end).then_some(());
    lab.wait_within(time + PATIENCE, "the time is over", over)
        .await;
}

/// What the server has granted.
async fn grants(lab: &Lab) -> String {
    let granted = async || Some(lab.status("ipam").await?.to_string());
    lab.wait("the server answers", granted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_survives_its_endpoint_for_the_grace_period_and_no_longer() {
    let mut lab = lab().await;
    let own = start(&mut lab, "nse").await;
    lab.down("nse");
    let killed = Instant::now();
    let other = start(&mut lab, "other").await;
    assert_ne!(own, other);
    assert!(grants(&lab).await.contains(&own));
    lab.up("nse");
    assert_eq!(prefix(&lab, "nse").await, own);
    assert!(killed.elapsed() < LEASE, "the machine is too slow to tell");
    // Held over many leases, it is freed one lease after its endpoint's end.
    after(&lab, LEASE * 2).await;
    assert!(grants(&lab).await.contains(&own));
    lab.kill("nse");
    let killed = Instant::now();
    lab.wait("the prefix is free", async || {
        let status = lab.status("ipam").await?;
        (!status.to_string().contains(&own)).then_some(())
    })
    .await;
    println!(
        "freed {:?} after the kill, lease {LEASE:?}",
        killed.elapsed()
    );
    assert!(killed.elapsed() > LEASE / 2, "{:?}", killed.elapsed());
    assert!(killed.elapsed() < LEASE * 3, "{:?}", killed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stood_still_renumbers_nobody() {
    let mut lab = lab().await;
    let own = start(&mut lab, "nse").await;
    lab.start_nsc("ant", "one", "nse", &[]).await;
    let address = lab.address("ant").await;
    lab.signal("ipam", Signal::SIGSTOP);
    // One that comes in the meantime asks first when the server goes on.
    lab.start_nse("late", "one", "one", "one", &[]);
    after(&lab, LEASE * 2).await;
    assert_eq!(prefix(&lab, "nse").await, own);
    assert_eq!(lab.address("ant").await, address);
    lab.start_nsc("bee", "one", "nse", &[]).await;
    lab.address("bee").await;
    lab.signal("ipam", Signal::SIGCONT);
    let late = prefix(&lab, "late").await;
    lab.linked("nse", 1).await;
    after(&lab, LEASE).await;
    assert_eq!(prefix(&lab, "nse").await, own);
    assert_ne!(late, own);
    assert_eq!(lab.address("ant").await, address);
}
