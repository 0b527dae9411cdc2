use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::config::Journal;
use crate::control::testing::{Memory, flow};
use crate::control::{Change, Control, Wanted};
use crate::dataplane::{Dataplane, Local};
use crate::service::{Mode, Server, ServerId, Service, ServiceName, Vip};

fn service(servers: u8) -> Service {
    let mut service = Service::new(ServiceName::new("web").unwrap());
    service.mode = Mode::Ipip;
    service.vips = vec![Vip::all("10.0.0.1/32".parse().unwrap())];
    service.servers = (1..=servers).map(server).collect();
    service
}

fn server(n: u8) -> Server {
    Server::new(
        ServerId::new(format!("s{n}")).unwrap(),
        [192, 0, 2, n].into(),
    )
}

struct Balancer {
    control: Control<Memory>,
    link: Link,
}

impl Balancer {
    fn turn(&mut self, now: Instant) -> bool {
        self.link.turn(&mut self.control, now).unwrap()
    }

    fn open(&mut self, client: u32) -> Option<Identity> {
        self.control
            .dataplane_mut()
            .packet(flow("10.0.0.1", client), true)
    }

    fn goes_on(&mut self, client: u32) -> Option<Identity> {
        self.control
            .dataplane_mut()
            .packet(flow("10.0.0.1", client), false)
    }
}

/// Free ports of loopback, held until all are known.
fn addresses(count: usize) -> Vec<SocketAddr> {
    let sockets: Vec<_> = (0..count)
        .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    sockets
        .iter()
        .map(|socket| socket.local_addr().unwrap())
        .collect()
}

fn balancer(addresses: &[SocketAddr], own: usize, servers: u8, run: u64, now: Instant) -> Balancer {
    let mut control = Control::adopt(Memory::default()).unwrap();
    control
        .replace(Wanted::new(Local::default(), [service(servers)]))
        .unwrap();
    let peers = addresses
        .iter()
        .copied()
        .filter(|one| *one != addresses[own]);
    let config = Journal {
        listen: addresses[own],
        peers: peers.collect(),
        interval: Duration::from_millis(1),
    };
    Balancer {
        control,
        link: Link::open(&config, run, now).unwrap(),
    }
}

/// Turns until nothing is to be told and everyone has joined. Loopback
/// delivers a datagram before the sender's call returns.
fn settle(balancers: &mut [Balancer], now: Instant) {
    for _ in 0..10_000 {
        let busy: Vec<_> = balancers.iter_mut().map(|one| one.turn(now)).collect();
        let joined = balancers.iter().all(|one| {
            let (joined, peers) = one.link.joined();
            joined == peers
        });
        if joined && !busy.contains(&true) {
            return;
        }
    }
    panic!("the balancers did not settle");
}

/// Ten thousand live flows on two balancers, servers that come and go, then
/// one balancer dies: no flow changes its server.
#[test]
fn a_balancer_dies_after_servers_changed_and_no_flow_breaks() {
    let now = Instant::now();
    let addresses = addresses(2);
    let mut both: Vec<_> = (0..2)
        .map(|own| balancer(&addresses, own, 100, 1, now))
        .collect();
    let mut was = Vec::new();
    for client in 0..10_000 {
        if client == 4_000 {
            // One leaves before its flows matter, one comes, one is drained.
            let name = || ServiceName::new("web").unwrap();
            let id = |n: u8| server(n).id;
            for one in &mut both {
                one.control
                    .change(&[
                        Change::PutServer(name(), server(200)),
                        Change::SetWeight(name(), id(7), 0),
                    ])
                    .unwrap();
            }
        }
        was.push(both[client as usize % 2].open(client).unwrap());
        if client % 500 == 0 {
            settle(&mut both, now);
        }
    }
    settle(&mut both, now);
    let mut counts = std::collections::HashMap::new();
    for identity in &was[..4_000] {
        *counts.entry(identity).or_insert(0) += 1;
    }
    let even = counts.values().all(|count| (38..=42).contains(count));
    assert!(even, "{counts:?}");

    let mut left = both.pop().unwrap();
    drop(both);
    let broken = (0..10_000)
        .zip(was)
        .filter(|(client, was)| left.goes_on(*client) != Some(*was));
    assert_eq!(broken.count(), 0);
}

#[test]
fn who_joins_late_learns_all_flows() {
    let now = Instant::now();
    let addresses = addresses(3);
    let mut all: Vec<_> = (0..2)
        .map(|own| balancer(&addresses[..2], own, 10, 1, now))
        .collect();
    let was: Vec<_> = (0..5_000).map(|client| all[0].open(client)).collect();
    settle(&mut all, now);
    // The first balancer is replaced by a new process that knows nothing.
    drop(all.remove(0));
    all.insert(0, balancer(&addresses[..2], 0, 10, 2, now));
    settle(&mut all, now);
    for (client, was) in (0..).zip(was) {
        assert_eq!(all[0].goes_on(client), was);
    }
}

#[test]
fn a_lost_datagram_is_noticed_and_all_is_asked_for() {
    let now = Instant::now();
    let [here, there] = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap());
    let (mut sender, mut receiver) = (Exchange::new(1, [there]), Exchange::new(1, [here]));
    let record = |client| Record {
        key: flow("10.0.0.1", client),
        server: Identity::of(&["a"]),
        state: crate::dataplane::FlowState::Opening,
        idle: Duration::ZERO,
        translated: None,
    };
    let mut know = std::collections::HashSet::new();
    let mut exchange = |sender: &mut Exchange, receiver: &mut Exchange, now, lose: bool| {
        for (_, datagram) in receiver.send(now, 100) {
            if sender.receive(there, &datagram).asked {
                sender.answer(there, (0..300).map(record));
            }
        }
        for (_, datagram) in sender.send(now, 100).into_iter().skip(usize::from(lose)) {
            know.extend(
                receiver
                    .receive(here, &datagram)
                    .records
                    .iter()
                    .map(|r| r.key),
            );
        }
        know.len()
    };
    exchange(&mut sender, &mut receiver, now, false);
    assert_eq!(receiver.joined(), 1);
    sender.tell((300..700).map(record));
    let knows = exchange(&mut sender, &mut receiver, now, true);
    assert!(knows < 700 && receiver.joined() == 0, "{knows}");
    let later = now + Duration::from_secs(2);
    exchange(&mut sender, &mut receiver, later, false);
    assert_eq!((receiver.joined(), receiver.tally().missed), (1, 1));
}

#[test]
fn records_of_strangers_are_refused() {
    let peer: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let stranger: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let mut exchange = Exchange::new(1, [peer]);
    let datagram = Exchange::new(2, [stranger])
        .send(Instant::now(), 1)
        .remove(0)
        .1;
    assert_eq!(exchange.receive(stranger, &datagram), Received::default());
    assert_eq!(exchange.receive(peer, b"nonsense"), Received::default());
    assert_eq!(exchange.tally().refused, 2);
}

#[test]
fn a_queue_for_a_peer_that_is_away_is_bounded() {
    let peer: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let mut exchange = Exchange::new(1, [peer]);
    for client in 0..20_000 {
        exchange.tell([Record {
            key: flow("10.0.0.1", client),
            server: Identity::of(&["a"]),
            state: crate::dataplane::FlowState::Opening,
            idle: Duration::ZERO,
            translated: None,
        }]);
    }
    assert_eq!(exchange.tally().overflowed, 20_000 - QUEUE as u64);
}

#[test]
fn only_flows_with_packets_since_are_told_again() {
    let now = Instant::now();
    let addresses = addresses(2);
    let mut both: Vec<_> = (0..2)
        .map(|own| balancer(&addresses, own, 10, 1, now))
        .collect();
    settle(&mut both, now);
    both[0].open(1);
    settle(&mut both, now);
    let sent = both[0].link.tally().sent;
    settle(&mut both, now + REFRESH);
    assert_eq!(both[0].link.tally().sent, sent + 1);
    let mut flows = 0;
    both[1]
        .control
        .dataplane()
        .each_flow(&mut |_| flows += 1)
        .unwrap();
    assert_eq!(flows, 1);
}
