//! One endpoint, two pods.

use carrick_tests::Lab;
use carrick_tests::traffic::{Echo, fetch};

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_of_one_endpoint_reach_each_other() {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    lab.start_nse("nse", "one", "one", "one", &[]);
    lab.start_nsc("ant", "one", "nse", &[]).await;
    lab.start_nsc("bee", "one", "nse", &[]).await;
    let address = lab.address("bee").await;
    lab.address("ant").await;
    let _echo = Echo::start(lab.pod("bee").await, b"hello from bee");
    assert_eq!(fetch(lab.pod("ant").await, address).unwrap(), b"hello from bee");
}
