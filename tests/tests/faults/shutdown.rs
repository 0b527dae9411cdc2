//! Ends: orderly, impatient, and for the next start.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use carrick_tests::{Lab, ip};
use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::site::Site;

/// All files below a directory, logs left out.
fn files(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_none_or(|kind| kind != "log") {
            found.insert(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_ends_in_order_leaves_its_state_and_nothing_else() {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    for server in ["registry-east", "ipam"] {
        lab.ready(server).await;
    }
    lab.pod("ant").await;
    let (node, before) = (ip::interfaces(&lab.node("one").namespace), files(lab.dir()));
    lab.start_nse("nse", "one", "one", "one", &[]);
    lab.start_nsc("ant", "one", "nse", &[]).await;
    lab.address("ant").await;
    // The client is gone at once and cannot say so.
    lab.kill("nsc-ant");
    let begin = Instant::now();
    let status = lab.stop("nse").await;
    println!("ended after {:?}", begin.elapsed());
    assert!(status.success(), "{status}\n{}", lab.log("nse"));
    let router = lab.router("nse").path();
    assert!(!router.exists(), "{} is left", router.display());
    assert!(ip::interfaces(lab.pod("ant").await).is_empty());
    assert_eq!(ip::interfaces(&lab.node("one").namespace), node);
    let left: Vec<_> = files(lab.dir()).difference(&before).cloned().collect();
    let of_nse =
        |file: &String| file.ends_with("state/nse.redb") || file.ends_with("state/nse.key");
    let of_client = |file: &String| file.contains("nsc-ant");
    assert!(
        left.iter().all(|file| of_nse(file) || of_client(file)),
        "{left:?}"
    );
    let grants = lab.status("ipam").await.unwrap();
    assert!(!grants.to_string().contains("172.16.0.0/24"), "{grants}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_an_endpoint_at_once() {
    let mut site = Site::one().await;
    // Giving the prefix back takes its time now.
    site.lab.signal("ipam", Signal::SIGSTOP);
    site.lab.signal("nse", Signal::SIGTERM);
    let leaving = async || {
        site.lab
            .log("nse")
            .contains("subsystem stopped")
            .then_some(())
    };
    site.lab.wait("the endpoint is leaving", leaving).await;
    let begin = Instant::now();
    let status = site.lab.stop("nse").await;
    println!("aborted after {:?}", begin.elapsed());
    assert!(!status.success(), "{status}");
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    let log = site.lab.log("nse");
    assert!(log.contains("second signal"), "{log}");
    site.lab.signal("ipam", Signal::SIGCONT);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_keeps_data_plane_and_addresses() {
    let mut site = Site::upgradable().await;
    let (ant, bee) = (site.lab.address("ant").await, site.lab.address("bee").await);
    let before = site.held("nse").await;
    for nse in ["nse", "far", "nse"] {
        let begin = Instant::now();
        let status = site.lab.restart(nse).await;
        assert!(status.success(), "{status}");
        site.lab.ready(nse).await;
        println!("{nse} was away for {:?}", begin.elapsed());
        for nse in ["nse", "far"] {
            site.lab.linked(nse, 1).await;
        }
    }
    assert_eq!(site.lab.address("ant").await, ant);
    assert_eq!(site.lab.address("bee").await, bee);
    site.holds_again("nse", &before).await;
    site.lost_nothing().await;
}
