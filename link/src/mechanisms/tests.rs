use carrick_chain::testing::{TestTokens, request, soon};
use carrick_chain::{Chain, Endpoint, EndpointOptions, Kind};
use carrick_types::{MechanismClass, MechanismType, Mtu};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::testing::{ip, kernel, site, vxlan};

struct Bed {
    endpoint: Endpoint,
    vnis: Vnis,
}

fn bed(site: Site) -> Bed {
    let vnis = Vnis::default();
    let chain = Chain::default().then(Mechanisms::new(site, vnis.clone()));
    Bed {
        endpoint: Endpoint::new(EndpointOptions::new("nse-1", TestTokens::default()), chain),
        vnis,
    }
}

impl Bed {
    async fn ask(&self, request: Connection) -> Result<Connection, carrick_chain::Error> {
        self.endpoint.request(request, soon()).await
    }

    async fn chosen(&self, offers: &[Mechanism]) -> Mechanism {
        let answer = self.ask(offering(offers)).await.unwrap();
        answer.mechanism.expect("one is chosen")
    }

    /// Why none of the offers was chosen.
    async fn reason(&self, offers: &[Mechanism]) -> String {
        let error = self.ask(offering(offers)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
        assert_eq!(self.vnis.taken(), 0);
        error.source.to_string()
    }
}

/// A Request of another client each time.
fn offering(offers: &[Mechanism]) -> Connection {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
    let mut request = request("nsc", &number);
    request.preferences = offers.to_vec();
    request
}

fn pod() -> Mechanism {
    kernel("file:///proc/12/ns/net")
}

#[tokio::test]
async fn the_first_offer_that_can_be_done_is_taken() {
    let memif = Mechanism::new(MechanismClass::Local, MechanismType::Memif);
    let bed = bed(site());
    let chosen = bed
        .chosen(&[memif.clone(), pod(), vxlan("192.0.2.2")])
        .await;
    assert_eq!(chosen.kind, Kernel);
    assert!(
        chosen
            .parameter(Mechanism::NAME)
            .is_some_and(|name| name.len() <= IfName::MAX)
    );
    let chosen = bed.chosen(&[memif, vxlan("192.0.2.2"), pod()]).await;
    assert_eq!(chosen.kind, Vxlan);
    assert_eq!(chosen.parameter(Mechanism::DST_IP), Some("192.0.2.1"));
    assert_eq!(chosen.parameter(Mechanism::DST_PORT), Some("4789"));
}

#[tokio::test]
async fn a_namespace_on_another_node_is_passed_over() {
    let bed = bed(site());
    let elsewhere = pod().with(Mechanism::NODE_NAME, "node-b");
    let chosen = bed.chosen(&[elsewhere.clone(), vxlan("192.0.2.2")]).await;
    assert_eq!(chosen.kind, Vxlan);
    bed.endpoint
        .shutdown(std::time::Duration::from_secs(1))
        .await;
    let reason = super::tests::bed(site()).reason(&[elsewhere]).await;
    assert!(
        reason.contains("nodeName: \"node-b\" is not this node"),
        "{reason}"
    );
}

#[tokio::test]
async fn without_an_underlay_address_a_tunnel_is_refused_with_that_reason() {
    let bed = bed(Site {
        underlay: None,
        ..site()
    });
    let reason = bed.reason(&[vxlan("192.0.2.2")]).await;
    assert!(
        reason.contains("this node has no underlay address"),
        "{reason}"
    );
    assert_eq!(bed.chosen(&[vxlan("192.0.2.2"), pod()]).await.kind, Kernel);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_every_reason() {
    let bed = bed(site());
    let none = bed.reason(&[]).await;
    assert!(none.contains("the Request offers none"), "{none}");
    let other = MechanismType::Other("SRV6".to_owned());
    let offers = [
        Mechanism::new(MechanismClass::Remote, other),
        kernel("file:///etc/shadow"),
        kernel(""),
        pod().with(Mechanism::NAME, "a-name-that-is-too-long"),
        vxlan("nowhere"),
        vxlan("192.0.2.2").with(Mechanism::VNI, 0),
        vxlan("192.0.2.2").with(Mechanism::VNI, 16_777_216),
    ];
    let all = bed.reason(&offers).await;
    for reason in [
        "SRV6",
        "/etc/shadow",
        "inodeURL: \"\"",
        "too-long",
        "nowhere",
        "\"0\"",
        "16777216",
    ] {
        assert!(all.contains(reason), "{reason} in {all}");
    }
}

#[tokio::test]
async fn the_router_itself_is_never_a_clients_namespace() {
    let own = format!("file:///proc/{}/ns/net", std::process::id());
    let task = format!("file:///proc/{0}/task/{0}/ns/net", std::process::id());
    let named = ["file:///run/netns/router", "file:///var/run/netns/router"];
    for url in named {
        let reason = bed(site()).reason(&[kernel(url)]).await;
        assert!(reason.contains("other than the endpoint's own"), "{reason}");
    }
    let in_own = Site {
        router: Netns::Own,
        ..site()
    };
    for url in [&own, &task] {
        let reason = bed(in_own.clone()).reason(&[kernel(url)]).await;
        assert!(reason.contains("other than the endpoint's own"), "{reason}");
    }
    let in_own_by_path = Site {
        router: Netns::Path(own.strip_prefix("file://").unwrap().into()),
        ..site()
    };
    let reason = bed(in_own_by_path).reason(&[kernel(&task)]).await;
    assert!(reason.contains("other than the endpoint's own"), "{reason}");
    assert_eq!(bed(in_own).chosen(&[kernel(named[0])]).await.kind, Kernel);
    assert_eq!(bed(site()).chosen(&[kernel(&own)]).await.kind, Kernel);
}

#[tokio::test]
async fn an_identifier_that_is_taken_is_replaced() {
    let bed = bed(site());
    let offer = vxlan("192.0.2.2").with(Mechanism::VNI, 7);
    let first = bed.chosen(std::slice::from_ref(&offer)).await;
    let second = bed.chosen(&[offer]).await;
    assert_eq!(first.parameter(Mechanism::VNI), Some("7"));
    assert_ne!(second.parameter(Mechanism::VNI), Some("7"));
    assert_eq!(bed.vnis.taken(), 2);
}

#[tokio::test]
async fn a_refresh_keeps_what_was_chosen_and_a_close_gives_it_back() {
    let bed = bed(site());
    let answer = bed.ask(offering(&[vxlan("192.0.2.2")])).await.unwrap();
    for preferences in [
        Vec::new(),
        vec![pod(), vxlan("192.0.2.2").with(Mechanism::VNI, 9)],
    ] {
        let mut refresh = answer.clone();
        refresh.preferences = preferences;
        let again = bed.ask(refresh.clone()).await.unwrap();
        assert_eq!(again.mechanism, answer.mechanism);
        refresh.mechanism = None;
        let again = bed.ask(refresh).await.unwrap();
        assert_eq!(again.mechanism, answer.mechanism);
    }
    assert_eq!(bed.vnis.taken(), 1);
    bed.endpoint.close(answer).await.unwrap();
    assert_eq!(bed.vnis.taken(), 0);
}

#[tokio::test]
async fn a_client_that_moved_gets_a_new_link() {
    let bed = bed(site());
    let mut refresh = bed.ask(offering(&[vxlan("192.0.2.2")])).await.unwrap();
    let before = refresh.mechanism.take();
    refresh.preferences = vec![vxlan("192.0.2.3")];
    let after = bed.ask(refresh).await.unwrap().mechanism.unwrap();
    assert_eq!(after.parameter(Mechanism::SRC_IP), Some("192.0.2.3"));
    assert_ne!(Some(after), before);
    assert_eq!(bed.vnis.taken(), 1);
}

#[tokio::test]
async fn packets_leave_room_for_the_tunnel() {
    let bed = bed(site());
    let mtu = |answer: Connection| answer.context.mtu.unwrap().bytes();
    assert_eq!(
        mtu(bed.ask(offering(&[vxlan("192.0.2.2")])).await.unwrap()),
        1450
    );
    assert_eq!(mtu(bed.ask(offering(&[pod()])).await.unwrap()), 9000);
    let mut small = offering(&[vxlan("192.0.2.2")]);
    small.context.mtu = Some(Mtu::MIN);
    assert_eq!(mtu(bed.ask(small).await.unwrap()), 1280);
    let v6 = super::tests::bed(Site {
        underlay: Some(ip("2001:db8::1")),
        ..site()
    });
    assert_eq!(
        mtu(v6.ask(offering(&[vxlan("2001:db8::2")])).await.unwrap()),
        1430
    );
}
