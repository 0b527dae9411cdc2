use std::collections::BTreeSet;

use carrick_grpc::Channel;
use carrick_proto::ipam::ipam_client::IpamClient;
use carrick_proto::ipam::{PrefixRequest, PrefixResponse, Type};
use carrick_proto::ippool::allocator_client::AllocatorClient;
use carrick_proto::ippool::ip_family::Family;
use carrick_proto::ippool::{Identifier, IpFamily as WireFamily, Subnet, SubnetRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use super::*;
use crate::testing::{HandClock, Served, served};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn options(network: &str, length: u8) -> ServerOptions {
    ServerOptions::new(vec![Network::new(prefix(network), length).unwrap()])
}

async fn start(options: ServerOptions) -> Served {
    served(&Store::in_memory().unwrap(), options).await
}

/// A stream as a Go endpoint or, with an owner, one of ours has it.
struct Stream {
    requests: mpsc::Sender<PrefixRequest>,
    answers: Streaming<PrefixResponse>,
    lease: Option<u64>,
}

impl Stream {
    async fn open(channel: &Channel, owner: Option<&str>) -> Self {
        let (requests, stream) = mpsc::channel(8);
        let mut request = Request::new(ReceiverStream::new(stream));
        if let Some(owner) = owner {
            request
                .metadata_mut()
                .insert(OWNER_HEADER, owner.parse().unwrap());
        }
        let response = IpamClient::new(channel.clone())
            .manage_prefixes(request)
            .await
            .unwrap();
        let lease = response
            .metadata()
            .get(LEASE_HEADER)
            .map(|ms| ms.to_str().unwrap().parse().unwrap());
        Self {
            requests,
            answers: response.into_inner(),
            lease,
        }
    }

    async fn send(&self, kind: Type, prefix: &str, excluded: &[String]) {
        let request = PrefixRequest {
            r#type: kind.into(),
            prefix: prefix.into(),
            exclude_prefixes: excluded.to_vec(),
        };
        self.requests.send(request).await.unwrap();
    }

    async fn ask(&mut self, prefix: &str, excluded: &[String]) -> Result<PrefixResponse, Status> {
        self.send(Type::Allocate, prefix, excluded).await;
        Ok(self.answers.message().await?.expect("an answer"))
    }

    async fn granted(&mut self, prefix: &str) -> String {
        self.ask(prefix, &[]).await.unwrap().prefix
    }
}

/// Waits until the book says so.
async fn until(server: &Server, condition: impl Fn(&[GrantStatus]) -> bool) {
    let mut changes = server.inner.changes.subscribe();
    while !condition(&server.status()) {
        changes.changed().await.unwrap();
    }
}

#[tokio::test]
async fn ten_clients_get_ten_prefixes_in_order() {
    let served = start(options("172.16.0.0/16", 24)).await;
    let mut streams = Vec::new();
    for i in 0..10 {
        let mut stream = Stream::open(&served.channel, None).await;
        let answer = stream.ask("", &[]).await.unwrap();
        assert_eq!(answer.prefix, format!("172.16.{i}.0/24"));
        assert!(answer.exclude_prefixes.is_empty());
        assert_eq!(stream.lease, None);
        streams.push(stream);
    }
}

#[tokio::test]
async fn a_stream_without_owner_gives_its_prefix_back_when_it_ends() {
    let served = start(options("172.16.0.0/16", 24)).await;
    for asked in ["", "172.16.0.0/30"] {
        for _ in 0..3 {
            let mut stream = Stream::open(&served.channel, None).await;
            let expected = if asked.is_empty() {
                "172.16.0.0/24"
            } else {
                asked
            };
            assert_eq!(stream.granted(asked).await, expected);
            drop(stream);
            until(&served.server, <[_]>::is_empty).await;
        }
    }
}

#[tokio::test]
async fn growing_exclusions_are_honoured_and_echoed() {
    let served = start(options("172.16.0.0/16", 24)).await;
    let mut excluded = Vec::new();
    let mut streams = Vec::new();
    for i in 0..10 {
        excluded.push(format!("172.16.{}.0/24", 2 * i));
        let mut stream = Stream::open(&served.channel, None).await;
        let answer = stream.ask("", &excluded).await.unwrap();
        assert_eq!(answer.prefix, format!("172.16.{}.0/24", 2 * i + 1));
        assert_eq!(answer.exclude_prefixes, excluded);
        streams.push(stream);
    }
}

#[tokio::test]
async fn an_odd_size_and_delete_and_what_is_taken() {
    let served = start(options("172.16.0.0/16", 24)).await;
    let (mut one, mut two) = (
        Stream::open(&served.channel, None).await,
        Stream::open(&served.channel, None).await,
    );
    assert_eq!(one.granted("172.16.0.0/30").await, "172.16.0.0/30");
    assert_eq!(
        two.granted("172.16.0.0/24").await,
        "172.16.1.0/24",
        "not wholly free"
    );
    assert_eq!(two.granted("172.16.0.0/30").await, "172.16.2.0/24", "taken");
    assert_eq!(
        two.granted("172.16.0.0/16").await,
        "172.16.3.0/24",
        "too much"
    );
    two.send(Type::Delete, "172.16.0.0/30", &[]).await;
    one.send(Type::Delete, "172.16.0.0/30", &[]).await;
    assert_eq!(
        one.granted("").await,
        "172.16.0.0/24",
        "DELETE has no answer"
    );
    assert_eq!(served.server.status().len(), 4);
}

#[tokio::test]
async fn a_request_that_is_wrong_ends_the_stream_and_leaks_nothing() {
    let served = start(options("172.16.0.0/16", 24)).await;
    for (kind, asked, excluded) in [
        (Type::Undefined, "", ""),
        (Type::Allocate, "x", ""),
        (Type::Allocate, "", "300.0.0.0/8"),
    ] {
        let mut stream = Stream::open(&served.channel, None).await;
        assert_eq!(stream.granted("").await, "172.16.0.0/24");
        let excluded: Vec<_> = (!excluded.is_empty())
            .then(|| excluded.to_owned())
            .into_iter()
            .collect();
        stream.send(kind, asked, &excluded).await;
        let status = stream.answers.message().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        until(&served.server, <[_]>::is_empty).await;
    }
}

#[tokio::test]
async fn an_empty_network_says_so_and_serves_again_once_something_is_free() {
    let served = start(options("10.0.0.0/23", 24)).await;
    let mut held = Stream::open(&served.channel, None).await;
    held.granted("").await;
    held.granted("").await;
    let mut late = Stream::open(&served.channel, None).await;
    let status = late.ask("", &[]).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::ResourceExhausted, "no free prefix in [10.0.0.0/23]")
    );
    held.send(Type::Delete, "10.0.0.0/24", &[]).await;
    until(&served.server, |grants| grants.len() == 1).await;
    let mut next = Stream::open(&served.channel, None).await;
    assert_eq!(next.granted("").await, "10.0.0.0/24");
}

#[tokio::test]
async fn an_owner_keeps_its_prefix_over_a_lost_stream_until_the_lease_ends() {
    let clock = HandClock::default();
    let lease = Duration::from_secs(5);
    let served = start(ServerOptions {
        lease,
        clock: clock.clock(),
        ..options("10.0.0.0/16", 24)
    })
    .await;
    let mut a = Stream::open(&served.channel, Some("nse-a")).await;
    assert_eq!(a.lease, Some(5000));
    assert_eq!(a.granted("").await, "10.0.0.0/24");
    clock.advance(lease * 10);
    served.server.sweep().await;
    assert_eq!(
        served.server.status().len(),
        1,
        "an open stream is a sign of life"
    );
    drop(a);
    until(&served.server, |grants| !grants[0].connected).await;

    let mut b = Stream::open(&served.channel, Some("nse-b")).await;
    assert_eq!(
        b.granted("10.0.0.0/24").await,
        "10.0.1.0/24",
        "not to another owner"
    );
    let mut go = Stream::open(&served.channel, None).await;
    assert_eq!(
        go.granted("10.0.0.0/24").await,
        "10.0.2.0/24",
        "nor to nobody"
    );
    let mut a = Stream::open(&served.channel, Some("nse-a")).await;
    assert_eq!(
        a.granted("").await,
        "10.0.0.0/24",
        "found without being named"
    );
    assert_eq!(a.granted("").await, "10.0.3.0/24", "a further one");
    drop(a);
    until(&served.server, |grants| {
        !grants[0].connected && !grants[3].connected
    })
    .await;

    clock.advance(lease);
    assert_eq!(b.granted("").await, "10.0.0.0/24", "the lease is over");
    assert_eq!(served.server.inner.options.metrics.expired.get(), 2);
}

#[tokio::test]
async fn an_owner_that_is_back_before_its_old_stream_is_gone_takes_its_prefix_along() {
    let served = start(options("10.0.0.0/16", 24)).await;
    let mut old = Stream::open(&served.channel, Some("nse")).await;
    assert_eq!(old.granted("").await, "10.0.0.0/24");
    let mut new = Stream::open(&served.channel, Some("nse")).await;
    assert_eq!(new.granted("10.0.0.0/24").await, "10.0.0.0/24");
    drop(old);
    let mut other = Stream::open(&served.channel, Some("other")).await;
    assert_eq!(other.granted("10.0.0.0/24").await, "10.0.1.0/24");
    assert!(served.server.status()[0].connected);
}

#[tokio::test]
async fn grants_survive_a_restart_and_nobody_else_gets_them_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ipam.redb");
    let clock = HandClock::default();
    let options = || ServerOptions {
        clock: clock.clock(),
        ..options("10.0.0.0/16", 24)
    };
    {
        let store = Store::open(&path).unwrap();
        let served = served(&store, options()).await;
        let (mut a, mut go) = (
            Stream::open(&served.channel, Some("a")).await,
            Stream::open(&served.channel, None).await,
        );
        assert_eq!(a.granted("").await, "10.0.0.0/24");
        assert_eq!(go.granted("").await, "10.0.1.0/24");
        served.shutdown.cancel();
        let status = a.answers.message().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        drop((a, go));
        served.ended().await;
    }
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(crate::inspect::inspect(&path).unwrap().grants.len(), 2);
    let served = served(&Store::open(&path).unwrap(), options()).await;
    let mut new = Stream::open(&served.channel, None).await;
    assert_eq!(
        new.granted("").await,
        "10.0.2.0/24",
        "a new endpoint comes first"
    );
    let mut a = Stream::open(&served.channel, Some("a")).await;
    assert_eq!(a.granted("10.0.0.0/24").await, "10.0.0.0/24");
    let mut go = Stream::open(&served.channel, None).await;
    assert_eq!(
        go.granted("10.0.1.0/24").await,
        "10.0.1.0/24",
        "who asks for it by name"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_parallel_allocations_do_not_overlap() {
    let served = start(options("10.0.0.0/8", 24)).await;
    let tasks = (0..1000).map(|i| {
        let channel = served.channel.clone();
        tokio::spawn(async move {
            let owner = format!("nse-{i}");
            let mut stream = Stream::open(&channel, (i % 2 == 0).then_some(owner.as_str())).await;
            let asked = if i % 10 == 0 {
                format!("10.{}.0.0/30", i % 250)
            } else {
                String::new()
            };
            (stream.granted(&asked).await, stream)
        })
    });
    let mut granted = BTreeSet::new();
    let mut streams = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        let (text, stream) = task.await.unwrap();
        granted.insert(prefix(&text));
        streams.push(stream);
    }
    assert_eq!(granted.len(), 1000);
    assert_eq!(
        carrick_types::overlaps(&granted.into_iter().collect::<Vec<_>>()),
        None
    );
}

#[tokio::test]
async fn a_network_of_each_family_is_chosen_by_excluding_the_other() {
    let networks = vec![
        Network::new(prefix("10.0.0.0/16"), 24).unwrap(),
        Network::new(prefix("2001:db8::/64"), 112).unwrap(),
    ];
    let served = start(ServerOptions::new(networks)).await;
    let mut stream = Stream::open(&served.channel, Some("nse")).await;
    let v6 = stream.ask("", &["0.0.0.0/0".to_owned()]).await.unwrap();
    assert_eq!(v6.prefix, "2001:db8::/112");
    assert_eq!(stream.granted("").await, "10.0.0.0/24");
}

#[test]
fn wrong_networks_are_refused() {
    assert!(Network::new(prefix("10.0.0.0/24"), 16).is_err());
    assert!(Network::new(prefix("10.0.0.0/24"), 32).is_err());
    assert!(Network::new(prefix("0.0.0.0/0"), 24).is_err());
    let overlapping =
        ["10.0.0.0/8", "10.1.0.0/16"].map(|text| Network::new(prefix(text), 24).unwrap());
    let store = Store::in_memory().unwrap();
    let error = Server::open(&store, ServerOptions::new(overlapping.to_vec())).unwrap_err();
    assert!(matches!(error, ServerError::Options(_)));
    assert!(Server::open(&store, ServerOptions::new(Vec::new())).is_err());
}

fn subnet_request(name: &str, family: Family, prefix_len: u32) -> SubnetRequest {
    SubnetRequest {
        identifier: Some(Identifier {
            fqdn: "cp.example".into(),
            name: name.into(),
            connectivity_domain: "helloworld".into(),
        }),
        addr_family: Some(WireFamily {
            family: family.into(),
        }),
        prefix_len,
    }
}

fn text(subnet: &Subnet) -> &str {
    &subnet.prefix.as_ref().unwrap().subnet
}

#[tokio::test]
async fn subnets_of_the_allocator_come_from_the_same_book() {
    let clock = HandClock::default();
    let served = start(ServerOptions {
        clock: clock.clock(),
        ..options("10.60.0.0/16", 24)
    })
    .await;
    let mut allocator = AllocatorClient::new(served.channel.clone());
    let mut stream = Stream::open(&served.channel, None).await;
    assert_eq!(stream.granted("").await, "10.60.0.0/24");
    let ask = |name, length| subnet_request(name, Family::Ipv4, length);
    for _ in 0..2 {
        let subnet = allocator
            .allocate_subnet(ask("c1_nse", 22))
            .await
            .unwrap()
            .into_inner();
        assert_eq!((text(&subnet), subnet.lease_timeout), ("10.60.4.0/22", 24));
    }
    let usual = allocator
        .allocate_subnet(ask("c2_nse", 0))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(text(&usual), "10.60.1.0/24");

    clock.advance(Duration::from_secs(23 * 3600));
    allocator.renew_subnet_lease(usual.clone()).await.unwrap();
    clock.advance(Duration::from_secs(2 * 3600));
    served.server.sweep().await;
    let left: Vec<_> = served
        .server
        .status()
        .iter()
        .map(|grant| grant.prefix)
        .collect();
    assert_eq!(left, ["10.60.0.0/24", "10.60.1.0/24"].map(prefix));

    let mut foreign = usual.clone();
    foreign.identifier = ask("c1_nse", 0).identifier;
    let status = allocator
        .renew_subnet_lease(foreign.clone())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    allocator.free_subnet(foreign).await.unwrap();
    assert_eq!(served.server.status().len(), 2);
    allocator.free_subnet(usual).await.unwrap();
    assert_eq!(served.server.status().len(), 1);
}

#[tokio::test]
async fn the_allocator_refuses_what_is_not_valid() {
    let served = start(options("10.60.0.0/16", 24)).await;
    let mut allocator = AllocatorClient::new(served.channel.clone());
    let nameless = subnet_request("", Family::Ipv4, 24);
    let (one, long) = (
        subnet_request("a", Family::Ipv4, 1),
        subnet_request("a", Family::Ipv4, 33),
    );
    for wrong in [nameless, one, long, SubnetRequest::default()] {
        let status = allocator.allocate_subnet(wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let v6 = allocator
        .allocate_subnet(subnet_request("a", Family::Ipv6, 64))
        .await
        .unwrap_err();
    assert_eq!(v6.code(), Code::ResourceExhausted);
    let mut subnet = allocator
        .allocate_subnet(subnet_request("a", Family::Ipv4, 24))
        .await
        .unwrap()
        .into_inner();
    subnet.prefix.as_mut().unwrap().addr_family = Some(WireFamily {
        family: Family::Ipv6.into(),
    });
    let status = allocator.renew_subnet_lease(subnet).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// The book alone, with lost writes and restarts at any moment.
#[test]
fn no_two_grants_ever_overlap_and_nothing_is_lost() {
    let steps = std::env::var("CARRICK_IPAM_STEPS").map_or(20_000, |steps| steps.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(3);
    let networks = [Network::new(prefix("10.0.0.0/20"), 24).unwrap()];
    let options = GrantOptions {
        lease: Duration::from_secs(20),
        anonymous_grace: Duration::ZERO,
        restart_grace: Duration::from_secs(5),
        most: 4,
    };
    let mut now = SystemTime::UNIX_EPOCH;
    let open = |known: Vec<(Prefix, GrantRecord)>, now| {
        Grants::new(&networks, &[], options.clone(), known, now).unwrap()
    };
    let mut book = open(Vec::new(), now);
    let mut disk: std::collections::BTreeMap<Prefix, GrantRecord> =
        std::collections::BTreeMap::new();
    for step in 0..steps {
        now += Duration::from_secs(random.u64(..3));
        let change = match random.u8(..10) {
            0 => book.detach(random.u64(..8), now),
            1 => book.expire(now),
            2 if random.u8(..20) == 0 => {
                book = open(disk.clone().into_iter().collect(), now);
                Change::default()
            }
            3 => {
                let all: Vec<_> = disk.keys().copied().collect();
                let any = all.get(random.usize(..all.len().max(1))).copied();
                any.map_or_else(Change::default, |prefix| {
                    book.delete(prefix, Some("o1"), Some(1))
                })
            }
            _ => {
                let stream = random.u64(..8);
                let owner = format!("o{stream}");
                let asked = [10, 0, random.u8(..16), random.u8(..)];
                let asked = Prefix::of(asked.into(), random.u8(24..31)).unwrap();
                let ask = GrantAsk {
                    stream: Some(stream),
                    owner: stream.is_multiple_of(2).then_some(owner.as_str()),
                    asked: random.bool().then_some(asked),
                    ..GrantAsk::default()
                };
                let mut change = Change::default();
                if let Ok(granted) = book.allocate(&ask, now) {
                    let known = disk.get(&granted.prefix);
                    assert_eq!(known.is_some(), granted.renewed, "step {step}: {granted:?}");
                    assert!(known.is_none_or(|known| known.owner == granted.record.owner));
                    change.put.push((granted.prefix, granted.record));
                }
                change
            }
        };
        if random.u8(..20) == 0 && change.put.is_empty() {
            book.unwritten(&change, now);
            continue;
        }
        disk.extend(change.put.iter().cloned());
        change
            .remove
            .iter()
            .for_each(|prefix| drop(disk.remove(prefix)));
        book.written(&change);
        let granted: Vec<_> = book.iter().map(|(prefix, ..)| prefix).collect();
        assert_eq!(
            granted,
            disk.keys().copied().collect::<Vec<_>>(),
            "step {step}"
        );
        assert_eq!(carrick_types::overlaps(&granted), None, "step {step}");
    }
}
