//! The endpoint's prefix changes: its clients follow at once.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use carrick_grpc::{Health, Security, ServerOptions, Url, listen, serve};
use carrick_proto::ipam::ipam_server::{Ipam, IpamServer};
use carrick_proto::ipam::{PrefixRequest, PrefixResponse};
use carrick_tests::traffic::{Echo, echoes};
use carrick_tests::{Lab, ip};
use carrick_types::Prefix;
use futures::stream::{BoxStream, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

const PODS: [&str; 4] = ["ant", "bee", "cat", "dog"];
const MOST: Duration = Duration::from_secs(1);

/// A prefix server that answers whatever the test says at that moment.
struct Fickle {
    prefix: watch::Receiver<String>,
    /// When an answer first had the prefix.
    told: watch::Sender<HashMap<String, Instant>>,
}

#[tonic::async_trait]
impl Ipam for Fickle {
    type ManagePrefixesStream = BoxStream<'static, Result<PrefixResponse, Status>>;

    async fn manage_prefixes(
        &self,
        request: Request<Streaming<PrefixRequest>>,
    ) -> Result<Response<Self::ManagePrefixesStream>, Status> {
        let (prefix, told) = (self.prefix.clone(), self.told.clone());
        let answers = request.into_inner().map(move |request| {
            let exclude_prefixes = request?.exclude_prefixes;
            let prefix = prefix.borrow().clone();
            told.send_modify(|told| {
                told.entry(prefix.clone()).or_insert_with(Instant::now);
            });
            Ok(PrefixResponse {
                prefix,
                exclude_prefixes,
            })
        });
        let mut response = Response::new(answers.boxed());
        // A short lease: what changed is heard with its next renewal.
        let lease = "900".parse().expect("a number is metadata");
        response
            .metadata_mut()
            .insert(carrick_ipam::server::LEASE_HEADER, lease);
        Ok(response)
    }
}

/// When all clients were told of one address each, inside of `prefix`; their
/// interfaces have it, and nothing else.
async fn renumbered(lab: &Lab, prefix: Prefix) -> Instant {
    let mut told = Vec::new();
    let what = format!("all clients are in {prefix}");
    let when = lab.wait(&what, async || {
        told.clear();
        for pod in PODS {
            let status = lab.status(&format!("nsc-{pod}")).await?;
            let addresses = status["connections"][0]["src_addrs"].clone();
            let addresses: Vec<String> = serde_json::from_value(addresses).ok()?;
            let inside = |text: &String| text.parse().is_ok_and(|net| prefix.covers(net));
            if addresses.len() != 1 || !addresses.iter().all(inside) {
                return None;
            }
            told.push(addresses);
        }
        Some(Instant::now())
    });
    let when = when.await;
    for (pod, addresses) in PODS.into_iter().zip(told) {
        let interfaces = ip::interfaces(lab.netns(pod));
        assert_eq!(interfaces["nsm-1"].addresses, addresses, "{pod}");
    }
    when
}

/// They reach each other, and have no route into `former` any more.
async fn all_is_well(lab: &Lab, former: Prefix) {
    let bee = lab.address("bee").await;
    let _echo = Echo::start(lab.netns("bee"), b"");
    assert!(echoes(lab.netns("ant"), bee, Duration::from_secs(5)));
    for pod in PODS {
        let routes = ip::routes(lab.netns(pod));
        let into = |route: &&String| {
            let to = route.split(' ').next().unwrap_or_default();
            to.parse::<Prefix>().is_ok_and(|to| former.overlaps(to))
        };
        assert_eq!(routes.iter().find(into), None, "{pod}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_prefix_renumbers_every_client_within_a_second() {
    let mut lab = Lab::new(&["one"]).await;
    let (prefix, asked) = watch::channel("172.16.7.0/24".to_owned());
    let (told, mut seen) = watch::channel(HashMap::new());
    let server = IpamServer::new(Fickle {
        prefix: asked,
        told,
    });
    let url = Url::unix(lab.path("prefixes.sock"));
    let listener = listen(&url, &Security::insecure()).await.unwrap();
    let routes = Health::new(&[]).await.routes().add_service(server);
    let end = CancellationToken::new();
    let stop = end.clone();
    let serving = tokio::spawn(async move {
        let options = ServerOptions::default();
        serve(listener, routes, &options, stop).await
    });

    lab.start_registry("east", "one");
    let servers = ("NSM_PREFIX_SERVER_URL", url.to_string());
    lab.start_nse("nse", "one", "one", "one", &[servers]);
    for pod in PODS {
        lab.start_nsc(pod, "one", "nse", &[]).await;
    }
    let mut former: Prefix = "172.16.7.0/24".parse().unwrap();
    renumbered(&lab, former).await;
    for next in ["10.200.8.0/24", "10.99.9.0/24"] {
        prefix.send_replace(next.to_owned());
        let heard = seen.wait_for(|told| told.contains_key(next)).await.unwrap()[next];
        let took = renumbered(&lab, next.parse().unwrap()).await - heard;
        println!("renumbered after {took:?}");
        assert!(took <= MOST, "{took:?}");
        all_is_well(&lab, former).await;
        former = next.parse().unwrap();
    }
    drop(lab);
    end.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_move_when_the_prefix_server_divides_another_network() {
    let mut lab = Lab::new(&["one"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    lab.start_nse("nse", "one", "one", "one", &[]);
    for pod in PODS {
        lab.start_nsc(pod, "one", "nse", &[]).await;
    }
    let former: Prefix = "172.16.0.0/24".parse().unwrap();
    renumbered(&lab, former).await;
    lab.kill("ipam");
    fs::remove_file(lab.dir().join("state/ipam.redb")).unwrap();
    lab.start_ipam("one", "10.99.0.0/16");
    let next: Prefix = "10.99.0.0/24".parse().unwrap();
    let heard = lab.wait("the endpoint has another prefix", async || {
        let status = lab.status("nse").await?;
        (status["prefixes"][0] == next.to_string()).then(Instant::now)
    });
    let heard = heard.await;
    let took = renumbered(&lab, next).await - heard;
    println!("renumbered after {took:?}");
    assert!(took <= MOST, "{took:?}");
    all_is_well(&lab, former).await;
}
