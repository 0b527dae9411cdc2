//! An agent that fails, or whose answers are lost.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carrick_agent::{Agent, Change, Error, Found, Netns, Protocol, Recording, Socket};
use carrick_chain::Kind;
use carrick_chain::testing::soon;
use futures::future::{BoxFuture, pending};

use super::world::{Neighbor, World, client, kernel, vxlan};

const LONG: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn an_agent_that_fails_at_any_call_leaves_nothing_in_the_end() {
    let neighbor = Neighbor::new();
    let requests = [
        client("1"),
        neighbor.request(kernel("file:///run/netns/carrick-2")),
        neighbor.request(vxlan("192.0.2.2", 7)),
    ];
    for request in requests {
        // A Request, a refresh and a Close are three calls; at the fourth nothing fails.
        for call in 0..4 {
            let world = World::timed(&neighbor).await;
            let endpoint = world.endpoint();
            world.agent.fail_at(call);

            let first = endpoint.request(request.clone(), soon()).await;
            assert_eq!(first.is_err(), call == 0);
            let Ok(answer) = first else {
                assert_eq!(world.look(), World::nothing());
                continue;
            };
            let (up, links) = (world.look(), world.agent.links());
            let refresh = endpoint.request(answer.clone(), soon()).await;
            assert_eq!(refresh.is_err(), call == 1);
            assert_eq!((world.look(), world.agent.links()), (up, links));
            assert_eq!(endpoint.close(answer).await.is_err(), call == 2);
            assert!(endpoint.shutdown(LONG).await);
            assert_eq!(world.look(), World::nothing(), "call {call}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_is_kept_while_its_link_cannot_be_removed() {
    let neighbor = Neighbor::new();
    let world = World::timed(&neighbor).await;
    let endpoint = world.endpoint();
    let answer = endpoint.request(client("1"), soon()).await.unwrap();
    world
        .agent
        .fail_if(|change| matches!(change, Change::DeleteLink { .. }));
    endpoint.close(answer.clone()).await.unwrap_err();
    let second = endpoint.request(client("2"), soon()).await.unwrap();
    assert_ne!(second.context.ip.src_addrs, answer.context.ip.src_addrs);
    world.agent.recover();
    assert!(endpoint.shutdown(LONG).await);
    assert_eq!(world.look(), World::nothing());
}

/// Does what it is told, but its answer never comes while `loses`.
struct Mute {
    agent: Arc<Recording>,
    loses: AtomicBool,
}

impl Agent for Mute {
    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let done = self.agent.apply(changes).await;
            if self.loses.load(Ordering::SeqCst) {
                pending::<()>().await;
            }
            done
        })
    }

    fn list<'a>(
        &'a self,
        netns: &'a Netns,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Found>, Error>> {
        self.agent.list(netns, owner)
    }

    fn ping<'a>(
        &'a self,
        _: &'a Netns,
        _: IpAddr,
        _: IpAddr,
        _: Duration,
    ) -> BoxFuture<'a, Result<Option<Duration>, Error>> {
        unreachable!("no link is probed here")
    }

    fn bind<'a>(
        &'a self,
        _: &'a Netns,
        _: Protocol,
        _: SocketAddr,
    ) -> BoxFuture<'a, Result<Socket, Error>> {
        unreachable!("no name is served here")
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_making_was_not_heard_of_is_removed() {
    let neighbor = Neighbor::new();
    let world = World::timed(&neighbor).await;
    let mute = Arc::new(Mute {
        agent: world.agent.clone(),
        loses: AtomicBool::new(true),
    });
    let world = world.with_agent(mute.clone());
    let endpoint = world.endpoint();
    let late = endpoint.request(client("1"), soon()).await.unwrap_err();
    assert_eq!(late.kind, Kind::DeadlineExceeded);
    mute.loses.store(false, Ordering::SeqCst);
    assert!(endpoint.shutdown(LONG).await);
    assert_eq!(world.look(), World::nothing());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_was_not_heard_of_leaves_what_is_up() {
    let neighbor = Neighbor::new();
    let world = World::timed(&neighbor).await;
    let mute = Arc::new(Mute {
        agent: world.agent.clone(),
        loses: AtomicBool::new(false),
    });
    let world = world.with_agent(mute.clone());
    let endpoint = world.endpoint();
    let answer = endpoint.request(client("1"), soon()).await.unwrap();
    let up = world.look();
    mute.loses.store(true, Ordering::SeqCst);
    let late = endpoint.request(answer.clone(), soon()).await.unwrap_err();
    assert_eq!(late.kind, Kind::DeadlineExceeded);
    assert_eq!(world.look(), up);
    mute.loses.store(false, Ordering::SeqCst);
    let answer = endpoint.request(answer, soon()).await.unwrap();
    endpoint.close(answer).await.unwrap();
    assert_eq!(world.look(), World::nothing());
}
