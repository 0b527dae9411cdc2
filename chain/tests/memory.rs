//! What an idle connection costs. Alone in its process, since the kernel counts
//! the memory of a process and not of a test.

use std::time::Duration;

use carrick_chain::testing::{Count, TestTokens, request, soon};
use carrick_chain::{Chain, Endpoint, EndpointOptions, Selector};
use carrick_types::PathSegment;
use futures::StreamExt;

const CONNECTIONS: usize = 10_000;
const KIB: usize = 1024;

/// Bytes in use, from `VmRSS` of `/proc/self/status`, which is in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a process");
    let kib = line
        .trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .expect("a number");
    kib * KIB
}

#[tokio::test]
async fn an_idle_connection_with_its_monitor_costs_less_than_eight_kib() {
    let chain = (0..10).fold(Chain::default(), |chain, _| chain.then(Count::default()));
    let options = EndpointOptions::new("nse", TestTokens::default());
    let endpoint = Endpoint::new(options, chain);
    let before = resident();
    let mut monitors = Vec::new();
    for n in 0..CONNECTIONS {
        // As in a mesh: client, manager and forwarder stand before us.
        let mut asked = request("nsc", &format!("4fd2cd2e-64f3-4e3f-bb0c-{n:012}"));
        for hop in ["manager", "forwarder"] {
            asked.path.segments.push(PathSegment {
                name: hop.to_owned(),
                id: format!("{hop:.8}-64f3-4e3f-bb0c-{n:012}"),
                ..asked.path.segments[0].clone()
            });
        }
        for segment in &mut asked.path.segments {
            segment.token = "x".repeat(500);
        }
        asked.path.index = 2;
        asked.id = carrick_types::ConnectionId::new(&asked.path.segments[2].id).unwrap();
        let selector = Selector::segment("forwarder", asked.id.as_str());
        endpoint.request(asked, soon()).await.unwrap();
        let mut monitor = endpoint.monitor(selector);
        assert_eq!(monitor.next().await.unwrap().connections.len(), 1);
        monitors.push(monitor);
    }
    let each = (resident() - before) / CONNECTIONS;
    println!("{each} bytes for each connection");
    assert!(each < 8 * KIB, "{each} bytes for each connection");
    assert!(endpoint.shutdown(Duration::from_secs(60)).await);
    let told = futures::future::join_all(monitors.into_iter().map(StreamExt::count)).await;
    assert!(
        told.iter().all(|&events| events == 1),
        "each hears of its own end alone"
    );
}
