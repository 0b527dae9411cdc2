use std::ops::RangeInclusive;
use std::time::Duration;

use carrick_chain::testing::{self, Fault, soon};
use carrick_chain::{Endpoint, Kind};
use carrick_types::{Connection, PathSegment};

use super::world::{Neighbor, World, client, kernel, offering, vxlan};

const LONG: Duration = Duration::from_secs(600);

/// A Request of each kind that the chain treats in its own way.
fn requests(neighbor: &Neighbor) -> [Connection; 4] {
    [
        client("1"),
        offering("1", vxlan("192.0.2.9", 9)),
        neighbor.request(kernel("file:///run/netns/carrick-2")),
        neighbor.request(vxlan("192.0.2.2", 7)),
    ]
}

/// Where a fault can be put: before each element, and behind the last.
async fn positions(neighbor: &Neighbor) -> RangeInclusive<usize> {
    0..=World::new(neighbor).await.chain().len()
}

#[tokio::test]
async fn in_the_beginning_nothing_is_left() {
    let neighbor = Neighbor::new();
    assert_eq!(World::new(&neighbor).await.look(), World::nothing());
}

#[tokio::test]
async fn each_kind_of_request_is_served() {
    let neighbor = Neighbor::new();
    for request in requests(&neighbor) {
        let world = World::new(&neighbor).await;
        let answer = world.endpoint().request(request, soon()).await.unwrap();
        let look = world.look();
        let is_peer = answer.client_name() == Some("nse-2");
        assert_eq!((look.book.len(), look.agent.len(), look.answers), (1, 2, 1));
        assert_eq!(
            (look.peer_links, look.dialled.len()),
            (is_peer.into(), is_peer.into())
        );
        assert_eq!(
            (look.leases.len(), look.names),
            ((!is_peer).into(), (!is_peer).into())
        );
        assert_eq!(look.workload, i64::from(!is_peer));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_at_any_element_leaves_nothing() {
    let neighbor = Neighbor::new();
    for request in requests(&neighbor) {
        testing::leaves_nothing_after_a_failure(
            &request,
            async || World::timed(&neighbor).await,
            async |world: &World| {
                let look = world.look();
                assert_eq!(look, World::nothing());
                look
            },
        )
        .await;
    }
}

#[tokio::test]
async fn all_may_be_done_and_undone_twice() {
    let neighbor = Neighbor::new();
    for request in requests(&neighbor) {
        testing::may_be_done_twice(
            &request,
            async || World::new(&neighbor).await,
            async |world: &World| world.look(),
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_fails_at_any_element_is_gone_on_with() {
    let neighbor = Neighbor::new();
    for request in requests(&neighbor) {
        testing::may_fail_to_close(
            &request,
            async || World::timed(&neighbor).await,
            async |world: &World| world.look(),
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_hangs_at_any_element_is_gone_on_with() {
    let neighbor = Neighbor::new();
    for position in positions(&neighbor).await {
        let world = World::timed(&neighbor).await;
        let chain = world
            .chain()
            .with_fault(position, Fault::hang_in_close().at(1));
        let endpoint = Endpoint::new(world.options(), chain);
        let answer = endpoint.request(client("1"), soon()).await.unwrap();
        let late = endpoint.close(answer).await.unwrap_err();
        assert_eq!(late.kind, Kind::DeadlineExceeded);
        assert!(endpoint.shutdown(LONG).await, "at {position}");
        assert_eq!(world.look(), World::nothing(), "at {position}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_at_any_element_leaves_what_is_up() {
    let neighbor = Neighbor::new();
    let faults = [
        || Fault::request(Kind::Unavailable),
        || Fault::answer_lost(Kind::Unavailable),
        Fault::hang,
    ];
    for request in requests(&neighbor) {
        for position in positions(&neighbor).await {
            for fault in faults {
                let fault = fault().at(2);
                let world = World::timed(&neighbor).await;
                let chain = world.chain().with_fault(position, fault.clone());
                let endpoint = Endpoint::new(world.options(), chain);
                let answer = endpoint.request(request.clone(), soon()).await.unwrap();
                let (up, links) = (world.look(), world.agent.links());
                endpoint.request(answer.clone(), soon()).await.unwrap_err();
                assert_eq!(world.look(), up, "{fault:?} at {position}");
                assert_eq!(world.agent.links(), links, "{fault:?} at {position}");
                let again = endpoint.request(answer.clone(), soon()).await;
                assert!(again.is_ok(), "{fault:?} at {position}: {again:?}");
                endpoint.close(answer).await.unwrap();
                assert_eq!(world.look(), World::nothing(), "{fault:?} at {position}");
            }
        }
    }
}

/// A Request whose id at the endpoint is known before it is served.
fn known_as(mut request: Connection, id: &str) -> Connection {
    request.path.segments.push(PathSegment {
        name: "nse-1".to_owned(),
        id: id.to_owned(),
        ..PathSegment::default()
    });
    request
}

#[tokio::test]
async fn a_panic_at_any_element_takes_one_connection_and_no_other() {
    let neighbor = Neighbor::new();
    for position in positions(&neighbor).await {
        let world = World::new(&neighbor).await;
        let chain = world.chain().with_fault(position, Fault::panic().at(1));
        let endpoint = Endpoint::new(world.options(), chain);
        let doomed = known_as(client("1"), "doomed");
        for _ in 0..2 {
            let error = endpoint.request(doomed.clone(), soon()).await.unwrap_err();
            assert_eq!(error.kind, Kind::Internal, "at {position}");
        }
        endpoint.failed().await;

        // What it held stays held, and nobody else gets it.
        let held = world.look();
        let others = [client("2"), neighbor.request(vxlan("192.0.2.2", 7))];
        for other in others {
            let answer = endpoint.request(other, soon()).await.unwrap();
            let addresses = answer.context.ip.src_addrs.clone();
            assert!(
                addresses
                    .iter()
                    .all(|net| !held.leases.contains(&carrick_types::host(net.addr()))),
                "at {position}"
            );
            endpoint.request(answer.clone(), soon()).await.unwrap();
            endpoint.close(answer).await.unwrap();
        }
        assert_eq!(world.look(), held, "at {position}");
        assert!(!endpoint.shutdown(LONG).await, "at {position}");
    }
}
