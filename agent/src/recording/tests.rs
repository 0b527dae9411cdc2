use carrick_types::{IfName, Mtu, Vni};

use super::*;
use crate::End;

fn router(name: &str) -> Change {
    Change::PutRouter(Router {
        netns: Netns::Named(name.to_owned()),
        addresses: Vec::new(),
        unreachable: Vec::new(),
    })
}

fn link(router: &str, id: &str, side: Side, kind: LinkKind) -> Change {
    Change::PutLink(Box::new(Link {
        id: ConnectionId::new(id).unwrap(),
        side,
        owner: "nse".to_owned(),
        mtu: Mtu::ETHERNET,
        near: End {
            netns: Netns::Named(router.to_owned()),
            name: IfName::new("c1").unwrap(),
            addresses: Vec::new(),
            routes: Vec::new(),
        },
        neighbors: Vec::new(),
        kind,
    }))
}

fn open(to: &str) -> LinkKind {
    LinkKind::VethOpen {
        netns: Netns::Named(to.to_owned()),
        name: IfName::new("p1").unwrap(),
    }
}

fn tunnel(vni: u32) -> LinkKind {
    LinkKind::Vxlan {
        vni: Vni::new(vni).unwrap(),
        local: [192, 0, 2, 1].into(),
        remote: [192, 0, 2, 2].into(),
        port: 4789,
    }
}

fn delete(router: &str, id: &str, side: Side) -> Change {
    Change::DeleteLink {
        netns: Netns::Named(router.to_owned()),
        id: ConnectionId::new(id).unwrap(),
        side,
    }
}

#[tokio::test]
async fn a_batch_that_fails_leaves_nothing() {
    let agent = Recording::new();
    agent.fail_if(|change| matches!(change, Change::PutLink(_)));
    let batch = || vec![router("a"), link("a", "x", Side::Endpoint, tunnel(1))];
    agent.apply(batch()).await.unwrap_err();
    assert_eq!(agent.leftovers(), [""; 0]);
    assert_eq!(agent.calls().len(), 1);
    agent.recover();
    agent.apply(batch()).await.unwrap();
    assert_eq!(agent.leftovers().len(), 2);
}

#[tokio::test]
async fn the_batch_counted_out_fails_and_the_next_does_not() {
    let agent = Recording::new();
    agent.fail_at(1);
    agent.apply(vec![router("a")]).await.unwrap();
    agent.apply(vec![router("b")]).await.unwrap_err();
    agent.apply(vec![router("b")]).await.unwrap();
    assert_eq!(agent.routers().len(), 2);
}

#[tokio::test]
async fn a_given_end_needs_its_maker_and_goes_with_it() {
    let agent = Recording::new();
    agent.apply(vec![router("a"), router("b")]).await.unwrap();
    let given = link("b", "x", Side::Client, LinkKind::Given);
    let early = agent.apply(vec![given.clone()]).await.unwrap_err();
    assert!(matches!(early, Error::NoDevice { .. }));
    let made = link("a", "x", Side::Endpoint, open("b"));
    agent
        .apply(vec![made.clone(), given.clone()])
        .await
        .unwrap();
    assert_eq!(agent.links().len(), 2);
    agent
        .apply(vec![delete("a", "x", Side::Endpoint)])
        .await
        .unwrap();
    assert_eq!(agent.links().len(), 0);
    agent.apply(vec![made, given]).await.unwrap();
    agent
        .apply(vec![delete("b", "x", Side::Client)])
        .await
        .unwrap();
    agent
        .apply(vec![delete("b", "x", Side::Client)])
        .await
        .unwrap();
    assert_eq!(agent.links().len(), 0);
}

#[tokio::test]
async fn an_identifier_is_used_once_and_a_link_may_be_put_again() {
    let agent = Recording::new();
    let first = link("a", "x", Side::Endpoint, tunnel(1));
    agent.apply(vec![router("a"), first.clone()]).await.unwrap();
    agent.apply(vec![first]).await.unwrap();
    let second = link("a", "y", Side::Endpoint, tunnel(1));
    let error = agent.apply(vec![second]).await.unwrap_err();
    assert!(matches!(error, Error::VniInUse { .. }));
}

#[tokio::test]
async fn what_is_in_a_lost_namespace_is_lost() {
    let agent = Recording::new();
    let made = link("a", "x", Side::Endpoint, open("pod"));
    agent.apply(vec![router("a"), made]).await.unwrap();
    agent.lose(&Netns::Named("pod".to_owned()));
    assert_eq!(agent.links().len(), 0);
    let netns = Netns::Named("a".to_owned());
    agent
        .apply(vec![Change::DeleteRouter { netns }])
        .await
        .unwrap();
    assert_eq!(agent.leftovers(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_as_told() {
    let agent = Recording::new();
    let second = Duration::from_secs(1);
    let ping = || {
        agent.ping(
            &Netns::Own,
            [10, 0, 0, 0].into(),
            [10, 0, 0, 1].into(),
            second,
        )
    };
    assert!(ping().await.unwrap().is_some());
    agent.answer_pings(|_, _, _| None);
    assert_eq!(ping().await.unwrap(), None);
}
