//! A new process over what a former one left: its store and its links.

use std::sync::Arc;
use std::time::Duration;

use carrick_agent::{Agent, Change, Link, Recording, Side};
use carrick_chain::Endpoint;
use carrick_chain::testing::{request_valid_for, soon};
use carrick_types::{Connection, ConnectionId};

use super::world::{Look, Neighbor, World, client, kernel, vxlan};
use crate::run::restore;

const LONG: Duration = Duration::from_secs(600);

/// A process that is there again: nobody has told it of a peer yet.
async fn again(former: World) -> (World, Endpoint) {
    let (store, agent) = (former.store.clone(), former.agent.clone());
    drop(former);
    let world = World::over(&store, &agent);
    world.plane().put_router(&world.parts).await;
    let endpoint = world.endpoint();
    restore(&world.parts, &endpoint, &world.answers).await;
    (world, endpoint)
}

/// Serves two clients and a peer, whose tunnel carries smaller packets: all
/// come again for that.
async fn serve(world: &World, neighbor: &Neighbor) -> (Vec<Connection>, Look) {
    let endpoint = world.endpoint();
    let requests = [
        client("1"),
        client("2"),
        neighbor.request(vxlan("192.0.2.2", 7)),
    ];
    let mut answers = Vec::new();
    for request in requests {
        answers.push(endpoint.request(request, soon()).await.unwrap());
    }
    for answer in &mut answers {
        *answer = endpoint.request(answer.clone(), soon()).await.unwrap();
    }
    let up = world.look();
    assert!(endpoint.stop(LONG).await);
    (answers, up)
}

fn is_put(change: &Change) -> bool {
    matches!(change, Change::PutLink(_) | Change::PutRouter(_))
}

#[tokio::test]
async fn a_restart_changes_nothing_that_anybody_could_see() {
    let neighbor = Neighbor::new();
    let former = World::new(&neighbor).await;
    let (answers, before) = serve(&former, &neighbor).await;
    let (links, told) = (former.agent.links(), former.agent.calls().len());

    let (world, endpoint) = again(former).await;
    let calls = world.agent.calls();
    assert!(calls[told..].iter().flatten().all(is_put));
    assert_eq!(world.agent.links(), links);
    let after = world.look();
    assert_eq!(
        (&after.leases, &after.book, after.names),
        (&before.leases, &before.book, before.names)
    );
    assert_eq!(
        (&after.peers, &after.dialled),
        (&before.peers, &before.dialled)
    );
    assert_eq!(
        (after.workload, after.mtu, after.tunnels),
        (before.workload, before.mtu, before.tunnels)
    );
    assert_eq!((after.answers, world.parts.leases.absent().len()), (3, 0));

    // The clients notice nothing, and all can be undone.
    world.parts.vl3.handle(neighbor.seen());
    for answer in answers {
        let again = endpoint.request(answer.clone(), soon()).await.unwrap();
        assert_eq!(again.context, answer.context);
        endpoint.close(again).await.unwrap();
    }
    assert_eq!(world.look(), World::nothing());
}

#[tokio::test]
async fn a_restart_may_come_twice_and_in_the_middle() {
    let neighbor = Neighbor::new();
    let former = World::new(&neighbor).await;
    let (_, before) = serve(&former, &neighbor).await;
    let links = former.agent.links();
    let (middle, endpoint) = again(former).await;
    // Killed: its endpoint is neither stopped nor shut down.
    drop(endpoint);
    let (world, endpoint) = again(middle).await;
    assert_eq!(world.agent.links(), links);
    assert_eq!(world.look().leases, before.leases);
    assert!(endpoint.shutdown(LONG).await);
    assert_eq!(world.look().agent, World::nothing().agent);
}

fn orphan(of: &Link, id: &str, side: Side, owner: &str) -> Change {
    let mut link = of.clone();
    link.id = ConnectionId::new(id).unwrap();
    link.side = side;
    owner.clone_into(&mut link.owner);
    Change::PutLink(Box::new(link))
}

fn ids(agent: &Recording) -> Vec<String> {
    agent
        .links()
        .iter()
        .map(|link| link.id.to_string())
        .collect()
}

#[tokio::test]
async fn links_that_nobody_claims_are_removed_and_those_of_others_are_not() {
    let neighbor = Neighbor::new();
    let former = World::new(&neighbor).await;
    let endpoint = former.endpoint();
    let answer = endpoint.request(client("1"), soon()).await.unwrap();
    assert!(endpoint.stop(LONG).await);
    let link = former.agent.links().remove(0);
    let orphans = vec![
        orphan(&link, "orphan", Side::Endpoint, "nse-1"),
        orphan(&link, "to a peer", Side::Client, "nse-1"),
        orphan(&link, "of another", Side::Endpoint, "nse-9"),
    ];
    former.agent.apply(orphans).await.unwrap();
    let (world, _endpoint) = again(former).await;
    let mut expected = vec![link.id.to_string(), "of another".into(), "to a peer".into()];
    expected.sort_unstable();
    let mut left = ids(&world.agent);
    left.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(answer.path.segments[1].id, link.id.as_str());
}

#[tokio::test(start_paused = true)]
async fn links_to_peers_are_removed_when_they_were_not_taken_up_in_time() {
    let agent = Arc::new(Recording::new());
    let store = carrick_store::Store::in_memory().unwrap();
    let world = World::over(&store, &agent);
    world.plane().put_router(&world.parts).await;
    let tunnel = |id: &str, vni: u32| Link {
        id: ConnectionId::new(id).unwrap(),
        side: Side::Client,
        owner: "nse-1".to_owned(),
        mtu: carrick_types::Mtu::ETHERNET,
        near: carrick_agent::End {
            netns: world.plane().site.router.clone(),
            name: carrick_types::IfName::new(id).unwrap(),
            addresses: Vec::new(),
            routes: Vec::new(),
        },
        neighbors: Vec::new(),
        kind: carrick_agent::LinkKind::Vxlan {
            vni: carrick_types::Vni::new(vni).unwrap(),
            local: [192, 0, 2, 1].into(),
            remote: [192, 0, 2, 2].into(),
            port: 4789,
        },
    };
    agent
        .apply(vec![Change::PutLink(Box::new(tunnel("lost", 1)))])
        .await
        .unwrap();
    let taken_up = ConnectionId::new("c").unwrap();
    world
        .plane()
        .book
        .put(&taken_up, tunnel("kept", 2))
        .await
        .unwrap();
    world.plane().sweep_peers().await;
    assert_eq!(ids(&agent), ["kept"]);
}

#[tokio::test]
async fn what_expired_while_nobody_was_there_is_closed() {
    let neighbor = Neighbor::new();
    let former = World::new(&neighbor).await;
    let endpoint = former.endpoint();
    let mut brief = client("1");
    brief.path = request_valid_for("nsc", "1", Duration::from_secs(3600)).path;
    let answer = endpoint.request(brief, soon()).await.unwrap();
    assert!(endpoint.stop(LONG).await);
    let stored = former.answers.all().unwrap().remove(0);
    let mut expired = stored.clone();
    expired.path.segments[0].expires = Some(std::time::SystemTime::UNIX_EPOCH);
    carrick_chain::Journal::put(&former.answers, &expired)
        .await
        .unwrap();
    drop(answer);

    let (world, endpoint) = again(former).await;
    assert!(endpoint.shutdown(LONG).await);
    assert_eq!(world.look().agent, World::nothing().agent);
    assert_eq!((world.look().leases.len(), world.look().answers), (0, 0));
}

#[tokio::test]
async fn a_peer_is_known_again_though_no_registry_is_reachable() {
    let neighbor = Neighbor::new();
    let former = World::new(&neighbor).await;
    let endpoint = former.endpoint();
    let offer = kernel("file:///run/netns/carrick-2");
    let answer = endpoint
        .request(neighbor.request(offer), soon())
        .await
        .unwrap();
    assert!(endpoint.stop(LONG).await);
    let (world, endpoint) = again(former).await;
    let id = ConnectionId::new(&answer.path.segments[1].id).unwrap();
    assert_eq!(world.parts.vl3.dialled_by(&id), Some(Neighbor::id()));
    assert_eq!((world.look().workload, world.look().leases.len()), (0, 0));
    let again = endpoint.request(answer.clone(), soon()).await.unwrap();
    assert_eq!(again.context, answer.context);
}
