use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use carrick_chain::testing::{Check, TestTokens, request, soon};
use carrick_chain::{Chain, Element, Endpoint, EndpointOptions, Error, Kind, Next};
use carrick_types::{
    Connection, ConnectionId, DnsConfig, EndpointName, IpNet, Labels, Mtu, Prefix, Route, State,
};
use hickory_proto::rr::{LowerName, Name};

use super::*;
use crate::dns::Records;
use crate::peers::{self, Domain, Event, PeerId, PeerState};
use crate::recognise::PEER_LABEL;
use crate::{Cause, Vl3, Vl3Options};

struct Bed {
    vl3: Vl3,
    records: Records,
    mtu: MtuElement,
    asked: Arc<Asked>,
    endpoint: Endpoint,
}

/// Remembers who was asked to come again.
#[derive(Default)]
struct Asked {
    connections: Mutex<Vec<Connection>>,
    named: Mutex<Vec<(String, u32, State)>>,
    again: Mutex<Vec<String>>,
}

impl Refresh for Asked {
    fn ask(&self, which: &dyn Fn(&Connection) -> bool, change: &dyn Fn(&mut Connection)) {
        for mut connection in self.connections.lock().unwrap().clone() {
            if which(&connection) {
                change(&mut connection);
                let mtu = connection.context.mtu.map_or(0, Mtu::bytes);
                self.named
                    .lock()
                    .unwrap()
                    .push((connection.id.to_string(), mtu, connection.state));
            }
        }
    }

    fn again(&self, id: &ConnectionId) {
        self.again.lock().unwrap().push(id.to_string());
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn id(name: &str) -> PeerId {
    PeerId::new(EndpointName::new(name).unwrap(), Domain::own())
}

/// Gives every client 10.0.0.9, as the addresses element would, and its host route.
fn addresses(vl3: &Vl3) -> Check {
    let vl3 = vl3.clone();
    Check::new(move |connection| {
        if vl3.dialled_by(&connection.id).is_none() {
            connection.context.ip.add_src_addr("10.0.0.9/32".parse()?);
            connection
                .context
                .ip
                .add_dst_route(Route::direct("10.0.0.9/32".parse()?));
        }
        Ok(())
    })
}

/// An endpoint `nse` with 10.0.0.0/24 whose own registration is of second 100.
fn bed() -> Bed {
    bed_with(Vl3Options {
        verify: Box::new(|token, key| token == key),
        ..Vl3Options::new(EndpointName::new("nse").unwrap())
    })
}

fn bed_with(options: Vl3Options) -> Bed {
    let vl3 = Vl3::new(options);
    vl3.set_prefixes(&[prefix("10.0.0.0/24")]);
    let (records, asked) = (Records::default(), Arc::new(Asked::default()));
    let mtu = MtuElement::new(Mtu::JUMBO, asked.clone());
    let templates = vec![
        "{{ index .Labels \"podName\" }}.{{ .NetworkService }}."
            .parse()
            .unwrap(),
    ];
    let extra = DnsConfig {
        server_ips: vec![ip("9.9.9.9")],
        search_domains: vec!["corp".into()],
    };
    let dns = DnsContextOptions {
        templates,
        configs: vec![extra],
    };
    let chain = Chain::default()
        .then(Recognise::new(vl3.clone()))
        .then(addresses(&vl3))
        .then(DnsContext::new(vl3.clone(), records.clone(), dns))
        .then(mtu.clone())
        .then(Announce::new(vl3.clone()));
    let endpoint = Endpoint::new(EndpointOptions::new("nse", TestTokens::default()), chain);
    Bed {
        vl3,
        records,
        mtu,
        asked,
        endpoint,
    }
}

impl Bed {
    fn register(&self, name: &str, key: Option<&str>) {
        let labels = key
            .map(|key| (peers::Endpoint::KEY, key))
            .into_iter()
            .collect::<Labels>();
        self.vl3.handle(Event::Seen(peers::Endpoint {
            id: id(name),
            url: String::new(),
            registered_at: Some(SystemTime::UNIX_EPOCH),
            node: None,
            labels,
        }));
    }

    async fn request(&self, request: Connection) -> Result<Connection, Error> {
        self.endpoint.request(request, soon()).await
    }

    fn forged(&self, cause: &'static str) -> u64 {
        self.vl3
            .metrics()
            .forged_peers
            .get_or_create(&Cause { cause })
            .get()
    }

    fn refused(&self, cause: &'static str) -> u64 {
        self.vl3
            .metrics()
            .refused_prefixes
            .get_or_create(&Cause { cause })
            .get()
    }

    fn found(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.records
            .addresses(&LowerName::new(&Name::from_ascii(name).unwrap()))
    }
}

/// What the peer `name` with `prefixes` asks, the first being that of its address.
fn of_peer(name: &str, prefixes: &[&str]) -> Connection {
    let mut request = request(name, &format!("id-{name}"));
    let own = prefix(prefixes[0]).network();
    request.labels.0.insert(PEER_LABEL.into(), name.into());
    request.context.ip.src_addrs = vec![IpNet::from(own)];
    for text in prefixes {
        request
            .context
            .ip
            .add_dst_route(Route::via(prefix(text), own));
    }
    request.context.dns = vec![DnsConfig {
        server_ips: vec![own],
        search_domains: Vec::new(),
    }];
    request
}

#[tokio::test(start_paused = true)]
async fn a_registered_peer_is_linked_with_its_prefix() {
    let bed = bed();
    bed.register("a", None);
    let answer = bed.request(of_peer("a", &["10.0.1.0/24"])).await.unwrap();
    let (peer, link, alive) = bed.vl3.links().remove(0);
    assert_eq!((peer, alive), (id("a"), true));
    assert_eq!(link.addresses, [ip("10.0.1.0")]);
    assert_eq!(
        link.prefixes,
        [prefix("10.0.1.0/24"), prefix("10.0.1.0/32")]
    );
    assert_eq!(link.name_servers(), [ip("10.0.1.0")]);
    assert_eq!(answer.context.dns[0].server_ips, [ip("10.0.0.0")]);
    // Its own server besides, and none that only clients are told of.
    assert_eq!(answer.context.dns[1].server_ips, [ip("10.0.1.0")]);
    assert_eq!(answer.context.dns.len(), 2);
    bed.endpoint.close(answer).await.unwrap();
    assert!(bed.vl3.links().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_with_a_forged_label_is_denied_and_counted() {
    let bed = bed();
    let mut forged = request("nsc", "1");
    forged.labels.0.insert(PEER_LABEL.into(), "nsc".into());
    let error = bed.request(forged).await.unwrap_err();
    assert_eq!(
        (error.kind, bed.forged("unregistered")),
        (Kind::PermissionDenied, 1)
    );
    assert!(bed.vl3.status().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_dials_before_its_registration_is_known_is_waited_for() {
    let bed = bed();
    let (linked, ()) = tokio::join!(bed.request(of_peer("a", &["10.0.1.0/24"])), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        bed.register("a", None);
    });
    linked.unwrap();
    assert_eq!(bed.forged("unregistered"), 0);
}

/// What an endpoint of NSM's own asks: no label, its addresses one after
/// another as they changed.
fn of_nsm_peer(name: &str, prefixes: &[&str]) -> Connection {
    let mut request = of_peer(name, &prefixes[..1]);
    request.labels.0.remove(PEER_LABEL);
    for text in &prefixes[1..] {
        let own = prefix(text).network();
        let ip = &mut request.context.ip;
        ip.add_src_addr(IpNet::from(own));
        ip.add_dst_route(Route::via(prefix(text), own));
    }
    request
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_a_label_that_dials_before_its_registration_is_known_is_no_client() {
    let bed = bed();
    let request = of_nsm_peer("a", &["10.0.1.0/24"]);
    let (linked, ()) = tokio::join!(bed.request(request), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        bed.register("a", None);
    });
    assert_eq!(
        linked.unwrap().context.ip.src_addrs,
        [IpNet::from(ip("10.0.1.0"))]
    );
    assert_eq!(bed.vl3.links().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_announces_a_prefix_and_is_nobody_is_served_as_a_client() {
    let bed = bed();
    bed.request(of_nsm_peer("nsc", &["10.0.1.0/24"]))
        .await
        .unwrap();
    assert!(bed.vl3.links().is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_a_renumbered_peer_without_a_label_only_the_present_prefix_counts() {
    let bed = bed();
    bed.register("a", None);
    bed.register("b", None);
    bed.request(of_nsm_peer("a", &["10.0.1.0/24"]))
        .await
        .unwrap();
    let moved = of_nsm_peer("a", &["10.0.1.0/24", "10.0.5.0/24"]);
    let answer = bed.request(moved).await.unwrap();
    assert_eq!(answer.context.ip.src_addrs, [IpNet::from(ip("10.0.5.0"))]);
    let (_, link, _) = bed.vl3.links().remove(0);
    assert_eq!(
        link.prefixes,
        [prefix("10.0.5.0/24"), prefix("10.0.5.0/32")]
    );
    // The former prefix is free for the one that was granted it since.
    bed.request(of_peer("b", &["10.0.1.0/24"])).await.unwrap();
    assert_eq!(bed.refused("held"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_does_not_fit_keeps_a_false_peer_out() {
    let bed = bed();
    bed.register("a", Some("secret"));
    let error = bed
        .request(of_peer("a", &["10.0.1.0/24"]))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind, bed.forged("bad_token")),
        (Kind::PermissionDenied, 1)
    );
    let mut right = of_peer("a", &["10.0.1.0/24"]);
    right.path.segments[0].token = "secret".into();
    bed.request(right).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn foreign_prefixes_are_left_out_and_counted() {
    let bed = bed();
    bed.register("a", None);
    let announced = ["10.0.1.0/24", "8.8.8.0/24", "10.0.0.128/25", "10.0.0.0/16"];
    bed.request(of_peer("a", &announced)).await.unwrap();
    let (_, link, _) = bed.vl3.links().remove(0);
    assert_eq!(
        link.prefixes,
        [prefix("10.0.1.0/24"), prefix("10.0.1.0/32")]
    );
    assert_eq!((bed.refused("outside"), bed.refused("own")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_announces_anothers_prefix_only_is_denied_until_that_one_is_gone() {
    let bed = bed();
    bed.register("a", None);
    bed.register("b", None);
    let held = bed.request(of_peer("a", &["10.0.1.0/24"])).await.unwrap();
    let error = bed
        .request(of_peer("b", &["10.0.1.0/24"]))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind, bed.refused("held")),
        (Kind::PermissionDenied, 2)
    );
    bed.endpoint.close(held).await.unwrap();
    bed.request(of_peer("b", &["10.0.1.0/24"])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_clients_routes_are_never_installed() {
    let bed = bed();
    let mut client = request("nsc", "1");
    client
        .context
        .ip
        .add_dst_route(Route::direct(prefix("10.0.5.0/24")));
    let answer = bed.request(client).await.unwrap();
    assert_eq!(
        answer.context.ip.dst_routes,
        [Route::direct(prefix("10.0.0.9/32"))]
    );
    assert_eq!(bed.vl3.metrics().active_workload.get(), 1);
    bed.request(answer.clone()).await.unwrap();
    assert_eq!(
        bed.vl3.metrics().active_workload.get(),
        1,
        "a refresh is not another client"
    );
    bed.endpoint.close(answer).await.unwrap();
    assert_eq!(bed.vl3.metrics().active_workload.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_does_not_turn_into_a_peer() {
    let bed = bed();
    let mut client = bed.request(request("a", "1")).await.unwrap();
    bed.register("a", None);
    client
        .context
        .ip
        .add_dst_route(Route::direct(prefix("10.0.5.0/24")));
    let error = bed.request(client).await.unwrap_err();
    assert_eq!(
        (error.kind, bed.forged("turned_peer")),
        (Kind::PermissionDenied, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_restored_peer_is_known_while_no_registry_is_reachable() {
    let before = bed();
    before.register("a", None);
    before
        .request(of_peer("a", &["10.0.1.0/24"]))
        .await
        .unwrap();
    let stored = before.endpoint.connections().remove(0);
    let after = bed();
    after.vl3.restore(&stored);
    after
        .endpoint
        .restore(Connection::clone(&stored))
        .await
        .unwrap();
    assert_eq!(after.vl3.status()[0].state, PeerState::Linked);
    assert_eq!(after.vl3.links()[0].1.prefixes.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_mark_of_a_peer_in_a_request_means_nothing() {
    let bed = bed();
    let mut forged = request("nsc", "1");
    forged
        .context
        .extra
        .insert(Vl3::PEER_KEY.into(), "/nsc".into());
    let answer = bed.request(forged).await.unwrap();
    assert!(bed.vl3.links().is_empty());
    assert!(!answer.context.extra.contains_key(Vl3::PEER_KEY));
}

#[tokio::test(start_paused = true)]
async fn without_a_prefix_clients_are_told_to_come_again() {
    let bed = bed();
    bed.vl3.set_prefixes(&[]);
    let error = bed.request(request("nsc", "1")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_the_name_server_and_gets_its_name() {
    let bed = bed();
    let mut client = request("nsc", "1");
    client.labels.0.insert("podName".into(), "Hello".into());
    let stale = DnsConfig {
        server_ips: vec![ip("10.0.7.0")],
        search_domains: vec!["service".into()],
    };
    client.context.dns = vec![stale];
    let answer = bed.request(client).await.unwrap();
    let dns = &answer.context.dns;
    assert_eq!(dns.len(), 2, "{dns:?}");
    assert_eq!(
        (&dns[0].server_ips[..], &dns[0].search_domains[..]),
        (&[ip("10.0.0.0")][..], &["service".to_owned()][..])
    );
    assert_eq!(dns[1].server_ips, [ip("9.9.9.9")]);
    assert_eq!(bed.found("hello.service."), Some(vec![ip("10.0.0.9")]));
    let again = bed.request(answer.clone()).await.unwrap();
    assert_eq!(again.context.dns, answer.context.dns);
    bed.endpoint.close(answer).await.unwrap();
    assert_eq!(bed.found("hello.service."), None);
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_forgets_no_name_and_a_close_after_it_takes_it_away() {
    let bed = bed();
    let fails = Arc::new(Mutex::new(false));
    let told = fails.clone();
    let names = DnsContextOptions {
        templates: vec!["{{ index .Labels \"podName\" }}.vl3.".parse().unwrap()],
        ..DnsContextOptions::default()
    };
    let last = Check::new(move |_| {
        if *told.lock().unwrap() {
            return Err("the link cannot be made".into());
        }
        Ok(())
    });
    let chain = Chain::default()
        .then(addresses(&bed.vl3))
        .then(DnsContext::new(bed.vl3.clone(), bed.records.clone(), names))
        .then(last);
    let endpoint = Endpoint::new(EndpointOptions::new("nse", TestTokens::default()), chain);
    let mut first = request("nsc", "1");
    first.labels.0.insert("podName".into(), "pod".into());
    let answer = endpoint.request(first, soon()).await.unwrap();
    *fails.lock().unwrap() = true;
    let mut renamed = answer.clone();
    renamed.labels.0.insert("podName".into(), "new".into());
    endpoint.request(renamed, soon()).await.unwrap_err();
    assert_eq!(bed.found("pod.vl3."), Some(vec![ip("10.0.0.9")]));
    assert_eq!(bed.found("new.vl3."), None);
    endpoint.close(answer).await.unwrap();
    assert_eq!(bed.found("pod.vl3."), None);
}

#[tokio::test(start_paused = true)]
async fn a_client_without_the_label_gets_no_name_but_is_served() {
    let bed = bed();
    bed.request(request("nsc", "1")).await.unwrap();
    assert!(bed.records.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_lowers_the_size_for_the_others_and_its_leaving_lifts_it() {
    let bed = bed();
    let fast = bed.request(request("fast", "1")).await.unwrap();
    assert_eq!(fast.context.mtu, Some(Mtu::JUMBO));
    bed.asked.connections.lock().unwrap().push(Connection {
        id: "fast-here".parse().unwrap(),
        ..fast
    });
    let mut slow = request("slow", "2");
    slow.context.mtu = Some(Mtu::ETHERNET);
    let slow = bed.request(slow).await.unwrap();
    assert_eq!(bed.mtu.current(), Mtu::ETHERNET);
    let asked = |mtu| [("fast-here".to_owned(), mtu, State::RefreshRequested)];
    assert_eq!(
        std::mem::take(&mut *bed.asked.named.lock().unwrap()),
        asked(1500)
    );
    bed.asked.connections.lock().unwrap()[0].context.mtu = Some(Mtu::ETHERNET);
    bed.endpoint.close(slow).await.unwrap();
    assert_eq!(*bed.asked.named.lock().unwrap(), asked(9000));
}

/// The last element of a client's chain: a call to the other endpoint.
struct Call(Endpoint);

impl Element for Call {
    const NAME: &'static str = "call";
    type State = Connection;

    async fn request(
        &self,
        connection: Connection,
        state: &mut Option<Connection>,
        _: Next<'_>,
    ) -> Result<Connection, Error> {
        let answer = self.0.request(connection, soon()).await?;
        *state = Some(answer.clone());
        Ok(answer)
    }

    async fn close(&self, _: &Connection, answer: &mut Connection) -> Result<(), Error> {
        self.0.close(answer.clone()).await
    }
}

/// What the addresses element tells a peer: our address and routes, and the network's.
fn server_side() -> Check {
    Check::new(|connection| {
        let own = ip("10.0.0.0");
        connection.context.ip.add_dst_addr(IpNet::from(own));
        for text in ["10.0.0.0/32", "10.0.0.0/24", "10.0.0.0/16", "7.7.7.0/24"] {
            connection
                .context
                .ip
                .add_src_route(Route::via(prefix(text), own));
        }
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn a_dialler_announces_what_it_holds_and_takes_what_is_the_peers() {
    let server = bed();
    server.register("newer", None);
    let chain = Chain::default()
        .then(Recognise::new(server.vl3.clone()))
        .then(server_side());
    let server_end = Endpoint::new(
        EndpointOptions::new("nse", TestTokens::default()),
        chain.then(Announce::new(server.vl3.clone())),
    );
    let client = Vl3::new(Vl3Options::new(EndpointName::new("newer").unwrap()));
    client.set_prefixes(&[prefix("10.0.1.0/24")]);
    let chain = Chain::default()
        .then(PeerClient::new(client.clone(), id("nse")))
        .then(Call(server_end));
    let front = Endpoint::new(EndpointOptions::new("front", TestTokens::default()), chain);
    let answer = front.request(request("newer", "1"), soon()).await.unwrap();
    let link = PeerClient::link(&answer);
    assert_eq!(link.addresses, [ip("10.0.0.0")]);
    assert_eq!(
        link.prefixes,
        [prefix("10.0.0.0/32"), prefix("10.0.0.0/24")]
    );
    let (_, theirs, _) = server.vl3.links().remove(0);
    assert_eq!(
        theirs.prefixes,
        [prefix("10.0.1.0/24"), prefix("10.0.1.0/32")]
    );
    let again = front.request(answer, soon()).await.unwrap();
    assert_eq!(PeerClient::link(&again), link);
}

/// While a client's Request is served, one with a slow link comes in.
struct Interrupted {
    mtu: MtuElement,
    slow: Mutex<Option<Connection>>,
}

impl Element for Interrupted {
    const NAME: &'static str = "interrupted";
    type State = ();

    async fn request(
        &self,
        connection: Connection,
        state: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        *state = Some(());
        let slow = self.slow.lock().unwrap().take();
        if let Some(slow) = slow {
            let chain = Chain::default().then(self.mtu.clone());
            let endpoint = Endpoint::new(EndpointOptions::new("b", TestTokens::default()), chain);
            endpoint.request(slow, soon()).await.unwrap();
        }
        next.request(connection).await
    }

    async fn close(&self, _: &Connection, (): &mut ()) -> Result<(), Error> {
        Ok(())
    }
}

#[tokio::test]
async fn a_minimum_that_falls_while_a_link_is_made_reaches_that_link() {
    let asked = Arc::new(Asked::default());
    let mtu = MtuElement::new(Mtu::JUMBO, asked.clone());
    let mut slow = request("slow", "2");
    slow.context.mtu = Some(Mtu::ETHERNET);
    let chain = Chain::default().then(mtu.clone()).then(Interrupted {
        mtu,
        slow: Mutex::new(Some(slow)),
    });
    let endpoint = Endpoint::new(EndpointOptions::new("a", TestTokens::default()), chain);
    let fast = endpoint
        .request(request("fast", "1"), soon())
        .await
        .unwrap();
    assert_eq!(fast.context.mtu, Some(Mtu::JUMBO));
    let id = fast.path.following().unwrap().id.clone();
    assert_eq!(*asked.again.lock().unwrap(), *std::slice::from_ref(&id));

    let kept = endpoint.connections()[0].as_ref().clone();
    asked.connections.lock().unwrap().push(kept);
    let fast = endpoint.request(fast, soon()).await.unwrap();
    assert_eq!(fast.context.mtu, Some(Mtu::ETHERNET));
    let told = [(id, 1500, State::RefreshRequested)];
    assert_eq!(*asked.named.lock().unwrap(), told);
    assert_eq!(asked.again.lock().unwrap().len(), 1, "once is enough");
}
