//! Who claims to be a peer and is none, and peers that announce what is not theirs.

use std::time::{Duration, SystemTime};

use carrick_chain::Tokens;
use carrick_grpc::convert::time_to_wire;
use carrick_grpc::{Es256Tokens, Identity, Security, SpiffeId, TokenOptions, Url, dial};
use carrick_proto::connectioncontext::{ConnectionContext, IpContext, Route};
use carrick_proto::networkservice::NetworkServiceRequest;
use carrick_registry::{Client, ClientOptions, Endpoint};
use carrick_tests::{Lab, ip};
use carrick_types::{EndpointName, Labels, ServiceName, Token};
use tonic::Code::PermissionDenied;

use crate::site::Site;
use crate::wire::{Caller, connection, segment};

const LABEL: &str = "vl3Nse/nseSource/endpointName";

fn forgeries(cause: &str) -> String {
    format!("nse_vl3_forged_peers_total{{cause=\"{cause}\"}}")
}

fn refusals(cause: &str) -> String {
    format!("nse_vl3_refused_prefixes_total{{cause=\"{cause}\"}}")
}

/// Tokens of the endpoint `name`, signed with `identity`.
fn signed(identity: &Identity, name: &str, lifetime: Duration) -> Token {
    let options = TokenOptions {
        max_lifetime: lifetime,
    };
    let subject = SpiffeId::new("carrick", name).unwrap();
    let tokens = Es256Tokens::new(identity, subject, &options);
    tokens.token(None).unwrap()
}

fn carry(request: &mut NetworkServiceRequest, token: &Token) {
    let segment = segment(request);
    segment.token.clone_from(&token.value);
    // So that it is the token's own end that counts.
    let hour = SystemTime::now() + Duration::from_secs(3600);
    segment.expires = Some(time_to_wire(hour));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_forged_peer_label_is_refused_and_counted() {
    let mut site = Site::two().await;
    site.lab.pod("eve").await;
    let caller = Caller::new(&site.lab, "nse").await;
    let before = site.held("nse").await;
    for (label, cause) in [
        ("far", "mismatch"),
        ("nse", "mismatch"),
        ("eve", "unregistered"),
    ] {
        let mut forged = caller.wanted("eve", site.lab.pod("eve").await);
        let labels = &mut connection(&mut forged).labels;
        labels.insert(LABEL.into(), label.into());
        let count = site.metric("nse", &forgeries(cause)).await;
        caller
            .refused(label, forged, PermissionDenied, &["peer"])
            .await;
        assert_eq!(
            site.metric("nse", &forgeries(cause)).await,
            count + 1,
            "{label}"
        );
    }
    site.holds_again("nse", &before).await;
    assert!(ip::interfaces(site.lab.pod("eve").await).is_empty());
    site.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_an_endpoint_is_of_no_use_without_its_token() {
    let mut site = Site::two().await;
    site.lab.pod("eve").await;
    let caller = Caller::new(&site.lab, "nse").await;
    let before = site.held("nse").await;
    let key = site.lab.path("state/far.key");
    let real = Identity::load_or_create(key.as_ref()).unwrap();
    let expired = signed(&real, "far", Duration::from_secs(1));
    let over = async || (SystemTime::now() > expired.expires).then_some(());
    site.lab.wait("the token is over", over).await;
    let none = Token {
        value: String::new(),
        expires: expired.expires,
    };
    let hour = Duration::from_secs(3600);
    let tokens = [
        ("no token", none),
        (
            "another's token",
            signed(&Identity::generate(), "far", hour),
        ),
        ("an expired token", expired),
    ];
    for (what, token) in tokens {
        for labelled in [false, true] {
            let mut forged = caller.wanted("far", site.lab.pod("eve").await);
            carry(&mut forged, &token);
            if labelled {
                let labels = &mut connection(&mut forged).labels;
                labels.insert(LABEL.into(), "far".into());
            }
            let count = site.metric("nse", &forgeries("bad_token")).await;
            caller
                .refused(what, forged, PermissionDenied, &["token"])
                .await;
            let now = site.metric("nse", &forgeries("bad_token")).await;
            assert_eq!(now, count + 1, "{what}");
        }
    }
    site.holds_again("nse", &before).await;
    site.lab.linked("nse", 1).await;
    site.lost_nothing().await;
}

/// Registers the endpoint `eve`, known by `identity`.
async fn register(lab: &Lab, identity: &Identity) {
    let url = Url::unix(lab.socket("registry"));
    let channel = dial(&url, &Security::insecure(), Duration::from_secs(5)).await;
    let client = Client::new(channel.unwrap(), ClientOptions::default());
    let vl3 = ServiceName::new("vl3").unwrap();
    let mut eve = Endpoint::new(EndpointName::new("eve").unwrap(), [vl3.clone()]);
    let key = (Endpoint::KEY_LABEL, identity.public_key_text());
    eve.labels = [(vl3, Labels::from_iter([key]))].into();
    eve.url = Some("tcp://192.0.2.1:9".into());
    client.register_endpoint(&eve).await.unwrap();
}

/// Makes a Request one of a peer that announces its address and prefixes.
fn announce(request: &mut NetworkServiceRequest, address: &str, prefixes: &[&str]) {
    let route = |prefix: &&str| Route {
        prefix: (*prefix).into(),
        next_hop: address.into(),
    };
    let connection = connection(request);
    connection.labels.insert(LABEL.into(), "eve".into());
    connection.context = Some(ConnectionContext {
        ip_context: Some(IpContext {
            src_ip_addrs: vec![format!("{address}/32")],
            dst_routes: prefixes.iter().map(route).collect(),
            ..IpContext::default()
        }),
        ..ConnectionContext::default()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_a_peer_announces_only_its_own_part_of_the_network_is_taken() {
    let mut site = Site::two().await;
    site.lab.pod("eve").await;
    let caller = Caller::new(&site.lab, "nse").await;
    let identity = Identity::generate();
    register(&site.lab, &identity).await;
    let own = site.lab.prefixes("nse").await.remove(0);
    let far = site.lab.prefixes("far").await.remove(0);
    let before = site.held("nse").await;
    let hour = Duration::from_secs(3600);
    let token = signed(&identity, "eve", hour);
    let bad = [
        ("a foreign network", "10.9.0.0/24", "outside"),
        ("the loopback network", "127.0.0.0/8", "outside"),
        ("everything", "0.0.0.0/0", "outside"),
        ("the endpoint's own prefix", &own, "own"),
        ("another peer's prefix", &far, "held"),
    ];
    for (what, prefix, cause) in bad {
        let mut wanted = caller.wanted("eve", site.lab.pod("eve").await);
        carry(&mut wanted, &token);
        let address = prefix.split('/').next().unwrap();
        announce(&mut wanted, address, &[prefix]);
        let count = site.metric("nse", &refusals(cause)).await;
        caller
            .refused(what, wanted, PermissionDenied, &["no address of eve"])
            .await;
        assert!(site.metric("nse", &refusals(cause)).await > count, "{what}");
    }
    site.holds_again("nse", &before).await;

    let mut wanted = caller.wanted("eve", site.lab.pod("eve").await);
    carry(&mut wanted, &token);
    let prefixes = [
        &own,
        &far,
        "127.0.0.0/8",
        "172.16.0.0/16",
        "10.9.0.0/24",
        "172.16.200.0/24",
    ];
    announce(&mut wanted, "172.16.200.0", &prefixes);
    let answer = caller.request(wanted).await.unwrap();
    let routed = async || {
        let routes = ip::routes(site.lab.router("nse"));
        let eve = |route: &&String| !before.routes().contains(*route);
        let new: Vec<String> = routes.iter().filter(eve).cloned().collect();
        (new.len() == 2).then_some(new)
    };
    let new = site.lab.wait("eve's routes are there", routed).await;
    assert!(
        new[0].starts_with("172.16.200.0/24 via 172.16.200.0 dev "),
        "{new:?}"
    );
    assert!(new[1].starts_with("172.16.200.0/32 dev "), "{new:?}");
    let kept = |route: &String| ip::routes(site.lab.router("nse")).contains(route);
    assert!(before.routes().iter().all(kept), "a route is gone");
    caller.close(answer).await.unwrap();
    site.holds_again("nse", &before).await;
    site.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_with_a_foreign_prefix_or_one_of_another_is_not_linked() {
    let mut site = Site::two().await;
    let own = site.lab.prefixes("nse").await.remove(0);
    let before = site.held("nse").await;
    for (name, prefix) in [("stranger", "10.9.0.0/24"), ("double", &*own)] {
        let more = [("CARRICK_PREFIXES", prefix.to_owned())];
        site.lab.start_nse(name, "one", "one", "one", &more);
        site.lab.ready(name).await;
        site.lab
            .wait("it is refused", async || {
                let status = site.lab.status("nse").await?;
                let peers = status["peers"].as_array()?;
                let peer = peers.iter().find(|peer| peer["name"] == name)?;
                assert_ne!(peer["state"], "linked", "{peer}");
                let cause = if name == "double" { "own" } else { "outside" };
                let count = site.metric("nse", &refusals(cause)).await;
                (count > 0).then_some(())
            })
            .await;
        let status = site.lab.stop(name).await;
        assert!(status.success(), "{name}: {status}");
    }
    site.holds_again("nse", &before).await;
    site.lost_nothing().await;
}
