use std::time::Duration;

use carrick_agent::Change;
use carrick_chain::elements::OnIdle;
use carrick_chain::testing::soon;
use tokio::time::timeout;

use super::world::{Neighbor, World, client, vxlan};
use crate::serving;

#[tokio::test]
async fn links_to_other_endpoints_do_not_keep_an_endpoint_that_has_no_clients() {
    let neighbor = Neighbor::new();
    let world = World::new(&neighbor).await;
    let on_idle = OnIdle::new(Duration::from_millis(20)).unwrap();
    let chain = serving::chain(&world.parts, Some(on_idle.clone()));
    let endpoint = carrick_chain::Endpoint::new(world.options(), chain);
    let of_peer = neighbor.request(vxlan("192.0.2.2", 7));
    let peer = endpoint.request(of_peer, soon()).await.unwrap();
    let own = endpoint.request(client("1"), soon()).await.unwrap();
    let mut idle = Box::pin(on_idle.idle());
    assert!(
        timeout(Duration::from_millis(200), &mut idle)
            .await
            .is_err()
    );
    endpoint.close(own).await.unwrap();
    idle.await;
    let refused = endpoint.request(peer, soon()).await.unwrap_err();
    assert_eq!(refused.source.to_string(), "endpoint expired");
}

#[tokio::test]
async fn a_hundred_refreshes_change_nothing() {
    let neighbor = Neighbor::new();
    for request in [client("1"), neighbor.request(vxlan("192.0.2.2", 7))] {
        let world = World::new(&neighbor).await;
        let endpoint = world.endpoint();
        let first = endpoint.request(request, soon()).await.unwrap();
        let (up, links) = (world.look(), world.agent.links());
        let mut answer = first.clone();
        for _ in 0..100 {
            answer = endpoint.request(answer, soon()).await.unwrap();
        }
        assert_eq!(answer.context, first.context);
        assert_eq!((world.look(), world.agent.links()), (up, links));
        // Each was put again as it is, and nothing was taken away meanwhile.
        let is_put = |change: &Change| matches!(change, Change::PutLink(_));
        let calls = world.agent.calls();
        assert_eq!(
            calls
                .iter()
                .flatten()
                .filter(|change| is_put(change))
                .count(),
            101
        );
        assert!(
            calls
                .iter()
                .flatten()
                .all(|change| !matches!(change, Change::DeleteLink { .. }))
        );
    }
}

#[tokio::test]
async fn a_thousand_connections_come_and_go_without_a_trace() {
    let neighbor = Neighbor::new();
    let world = World::new(&neighbor).await;
    let endpoint = world.endpoint();
    let stays = endpoint.request(client("stays"), soon()).await.unwrap();
    let before = world.look();
    for number in 0..1000 {
        let request = match number % 4 {
            0 => neighbor.request(vxlan("192.0.2.2", 7)),
            _ => client(&number.to_string()),
        };
        let answer = endpoint.request(request, soon()).await.unwrap();
        assert_ne!(answer.context.ip.src_addrs, stays.context.ip.src_addrs);
        endpoint.close(answer).await.unwrap();
    }
    assert_eq!(world.look(), before);
    endpoint.close(stays).await.unwrap();
    assert_eq!(world.look(), World::nothing());
    assert!(endpoint.connections().is_empty());
}

#[tokio::test]
async fn clients_that_come_at_once_get_an_address_each() {
    let neighbor = Neighbor::new();
    let world = World::new(&neighbor).await;
    let endpoint = world.endpoint();
    let requests = (0..100).map(|number| endpoint.request(client(&number.to_string()), soon()));
    let answers = futures::future::try_join_all(requests).await.unwrap();
    let mut addresses: Vec<_> = answers
        .iter()
        .map(|answer| answer.context.ip.src_addrs[0])
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 100);
    assert_eq!(world.look().workload, 100);
    let closes = answers.into_iter().map(|answer| endpoint.close(answer));
    futures::future::try_join_all(closes).await.unwrap();
    assert_eq!(world.look(), World::nothing());
}
