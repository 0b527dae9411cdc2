use std::sync::{Arc, Mutex};
use std::time::Duration;

use carrick_agent::{Agent, Change, Netns, Recording, Router};
use carrick_chain::testing::{Check, TestTokens, request, soon};
use carrick_chain::{Chain, Endpoint, EndpointOptions, Kind};
use carrick_types::{PathSegment, Route};

use super::*;
use crate::testing::{id, kernel, prefix, site, vxlan};

/// One end of links to an endpoint that answers under an id which the test changes.
struct Bed {
    endpoint: Endpoint,
    agent: Arc<Recording>,
    book: LinkBook,
    answers: Arc<Mutex<String>>,
    offered: Arc<Mutex<Vec<Mechanism>>>,
    vnis: Vnis,
}

async fn bed(site: Site) -> Bed {
    let agent = Arc::new(Recording::new());
    let router = Router {
        netns: site.router.clone(),
        addresses: Vec::new(),
        unreachable: Vec::new(),
    };
    agent.apply(vec![Change::PutRouter(router)]).await.unwrap();
    let (book, vnis) = (LinkBook::new(agent.clone()), Vnis::default());
    let answers = Arc::new(Mutex::new("peer-1".to_owned()));
    let offered = Arc::<Mutex<Vec<Mechanism>>>::default();
    let (answering, seen) = (answers.clone(), Arc::clone(&offered));
    let peer = Check::new(move |connection| {
        *seen.lock().unwrap() = std::mem::take(&mut connection.preferences);
        answer(
            connection,
            &answering.lock().unwrap(),
            &seen.lock().unwrap(),
        );
        Ok(())
    });
    let chain = Chain::default()
        .then(OwnEnd::new(site.clone(), book.clone()))
        .then(Offer::new(site, vnis.clone()))
        .then(peer);
    Bed {
        endpoint: Endpoint::new(EndpointOptions::new("nse-1", TestTokens::default()), chain),
        agent,
        book,
        answers,
        offered,
        vnis,
    }
}

/// Answers as an endpoint on another node, with 10.0.1.0/24; `id` may end in
/// the network identifier that it wants, else it takes the offered one.
fn answer(connection: &mut Connection, id: &str, offers: &[Mechanism]) {
    let tunnel = offers
        .iter()
        .find(|offer| offer.kind == MechanismType::Vxlan);
    connection.mechanism = tunnel.map(|tunnel| tunnel.clone().with(Mechanism::DST_IP, "192.0.2.2"));
    if let (Some((_, vni)), Some(tunnel)) = (id.split_once(' '), &mut connection.mechanism) {
        *tunnel = tunnel.clone().with(Mechanism::VNI, vni);
    }
    // An endpoint may say what it likes about our id.
    connection.id = ConnectionId::new("of-another").unwrap();
    connection.path.segments.push(PathSegment {
        name: "nse-2".to_owned(),
        id: id.to_owned(),
        ..PathSegment::default()
    });
    let ip = &mut connection.context.ip;
    ip.add_dst_addr("10.0.1.0/32".parse().unwrap());
    ip.add_src_route(Route::direct(prefix("10.0.1.0/24")));
}

impl Bed {
    async fn ask(&self, request: Connection) -> Result<Connection, carrick_chain::Error> {
        self.endpoint.request(request, soon()).await
    }

    fn answers(&self, id: &str) {
        id.clone_into(&mut self.answers.lock().unwrap());
    }

    fn links(&self) -> Vec<ConnectionId> {
        self.agent.links().into_iter().map(|link| link.id).collect()
    }

    fn is_clean(&self) -> bool {
        self.agent.links().is_empty() && self.book.link_ids().is_empty() && self.vnis.taken() == 0
    }
}

#[tokio::test]
async fn our_end_is_made_of_the_answer_under_the_endpoints_id() {
    let bed = bed(site()).await;
    let answer = bed.ask(request("keeper", "1")).await.unwrap();
    let links = bed.agent.links();
    let [link] = &links[..] else {
        panic!("{links:?} is not one link");
    };
    assert_eq!((link.id.as_str(), link.side), ("peer-1", Side::Client));
    assert_eq!(link.mtu.bytes(), 1450);
    assert_eq!(link.near.routes.len(), 2);
    bed.endpoint.close(answer).await.unwrap();
    assert!(bed.is_clean());
}

#[tokio::test]
async fn when_the_endpoint_answers_under_another_id_the_former_link_goes() {
    let bed = bed(site()).await;
    let answer = bed.ask(request("keeper", "1")).await.unwrap();
    bed.answers("peer-2 77");
    let answer = bed.ask(answer).await.unwrap();
    assert_eq!(bed.links(), [id("peer-2 77")]);
    assert_eq!(bed.book.link_ids(), bed.links());
    bed.endpoint.close(answer).await.unwrap();
    assert!(bed.is_clean());
}

#[tokio::test]
async fn where_the_new_link_cannot_be_made_the_former_one_stays() {
    let bed = bed(site()).await;
    let answer = bed.ask(request("keeper", "1")).await.unwrap();
    bed.answers("peer-2"); // with the identifier that the former one has
    let failed = bed.ask(answer.clone()).await.unwrap_err();
    assert_eq!(failed.kind, Kind::Unavailable);
    assert_eq!(bed.links(), [id("peer-1")]);
    bed.answers("peer-2 77");
    let answer = bed.ask(answer).await.unwrap();
    assert_eq!(bed.links(), [id("peer-2 77")]);
    bed.endpoint.close(answer).await.unwrap();
    assert!(bed.is_clean());
}

#[tokio::test]
async fn a_failed_refresh_leaves_our_end_and_the_next_mends_it() {
    let bed = bed(site()).await;
    let answer = bed.ask(request("keeper", "1")).await.unwrap();
    bed.agent.fail_at(0);
    bed.ask(answer.clone()).await.unwrap_err();
    assert_eq!(bed.links(), [id("peer-1")]);
    let answer = bed.ask(answer).await.unwrap();
    bed.endpoint.close(answer).await.unwrap();
    assert!(bed.is_clean());
}

#[tokio::test]
async fn an_answer_under_the_id_of_another_link_is_refused() {
    let bed = bed(site()).await;
    let first = bed.ask(request("keeper", "1")).await.unwrap();
    let before = bed.agent.links();
    let second = bed.ask(request("keeper", "2")).await.unwrap_err();
    assert_eq!(second.kind, Kind::Invalid);
    assert_eq!(bed.agent.links(), before);
    bed.endpoint.close(first).await.unwrap();
    assert!(bed.is_clean());
}

#[tokio::test]
async fn an_endpoint_offers_its_namespace_and_a_tunnel() {
    let bed = bed(site()).await;
    bed.ask(request("keeper", "1")).await.unwrap();
    let offered = bed.offered.lock().unwrap().clone();
    let kernel = kernel("file:///run/netns/router").with(Mechanism::NODE_NAME, "node-a");
    let vni = offered[1].parameter(Mechanism::VNI).unwrap();
    let vxlan = vxlan("192.0.2.1")
        .with(Mechanism::SRC_PORT, 4789)
        .with(Mechanism::VNI, vni);
    assert_eq!(offered, [kernel, vxlan]);
}

#[tokio::test]
async fn without_an_underlay_address_no_tunnel_is_offered() {
    let bed = bed(Site {
        underlay: None,
        router: Netns::Own,
        ..site()
    })
    .await;
    let answer = bed.ask(request("keeper", "1")).await.unwrap();
    let offered = bed.offered.lock().unwrap().clone();
    assert_eq!(offered.len(), 1);
    assert_eq!(offered[0].kind, MechanismType::Kernel);
    assert_eq!(bed.vnis.taken(), 0);
    assert!(answer.mechanism.is_none() && bed.agent.links().is_empty());
}

#[tokio::test]
async fn our_end_is_gone_at_the_end_of_the_process() {
    let bed = bed(site()).await;
    bed.ask(request("keeper", "1")).await.unwrap();
    assert!(bed.endpoint.shutdown(Duration::from_secs(5)).await);
    assert!(bed.is_clean());
}

#[tokio::test]
async fn the_answer_says_what_our_underlay_carries() {
    let bed = bed(site()).await;
    let mut request = request("keeper", "1");
    request.context.mtu = Some(Mtu::JUMBO);
    let answer = bed.ask(request).await.unwrap();
    assert_eq!(answer.context.mtu.map(Mtu::bytes), Some(1450));
}
