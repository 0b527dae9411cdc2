//! Balancers that tell each other their flows: the packet program's own tables
//! and journal, packets by its test run, records over UDP. Needs root and
//! `CAP_BPF`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use carrick_lb::config::{Balancer as Settings, Journal};
use carrick_lb::control::{Change, Control, Wanted};
use carrick_lb::dataplane::Local;
use carrick_lb::journal::Link;
use carrick_lb::kernel::{Kernel, Options};
use carrick_lb::packet::{Packet, TcpFlags};
use carrick_lb::service::{Mode, Server, ServerId, Service, ServiceName, Vip};
use carrick_tests::require_root;

const FLOWS: u32 = 10_000;

struct Balancer {
    control: Control<Kernel>,
    link: Link,
}

fn server(number: u8) -> Server {
    let id = ServerId::new(format!("s{number}")).unwrap();
    Server::new(id, Ipv4Addr::new(192, 0, 2, number).into())
}

fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

fn service() -> Service {
    let mut service = Service::new(web());
    service.mode = Mode::Ipip;
    for vip in ["198.51.100.1/32", "2001:db8:f::1/128"] {
        service.vips.push(Vip::all(vip.parse().unwrap()));
    }
    service.servers = (1..=100).map(server).collect();
    service
}

impl Balancer {
    fn new(addresses: &[SocketAddr], own: usize, run: u64) -> Self {
        let settings = Settings {
            // Roomy: a flow that finds no place is not told of, and a third full
            // one in some ten thousand finds none.
            flows: 524_288,
            ..Settings::default()
        };
        let options = Options {
            pins: None,
            journal: true,
            ..Options::of(&settings).unwrap()
        };
        let mut control = Control::adopt(Kernel::open(&options).unwrap()).unwrap();
        let local = Local {
            v4: Some(Ipv4Addr::new(203, 0, 113, 1)),
            v6: None,
        };
        control.replace(Wanted::new(local, [service()])).unwrap();
        let peers = addresses
            .iter()
            .copied()
            .filter(|one| *one != addresses[own]);
        let journal = Journal {
            listen: addresses[own],
            peers: peers.collect(),
            interval: Duration::from_millis(1),
        };
        Self {
            control,
            link: Link::open(&journal, run, Instant::now()).unwrap(),
        }
    }

    fn turn(&mut self) -> bool {
        self.link.turn(&mut self.control, Instant::now()).unwrap()
    }

    /// The server a packet of a client's flow goes to: the outer destination.
    fn packet(&self, client: u32, flags: TcpFlags) -> Ipv4Addr {
        let (source, destination): (IpAddr, IpAddr) = if client.is_multiple_of(4) {
            let source = Ipv6Addr::from_bits(0x2001_0db8_000c << 80 | u128::from(client));
            (source.into(), "2001:db8:f::1".parse().unwrap())
        } else {
            let source = Ipv4Addr::from_bits(0x1400_0000 + client);
            (source.into(), "198.51.100.1".parse().unwrap())
        };
        let packet = Packet::tcp((source, 40_000).into(), (destination, 5001).into(), flags);
        let frame = packet.frame([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let program = self.control.dataplane().program();
        let outcome = program.run(&frame).unwrap();
        let outer: [u8; 4] = outcome.frame[30..34].try_into().unwrap();
        outer.into()
    }
}

fn addresses() -> Vec<SocketAddr> {
    let sockets: Vec<_> = (0..2)
        .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    sockets
        .iter()
        .map(|socket| socket.local_addr().unwrap())
        .collect()
}

/// Turns until everybody has told all; loopback delivers at once.
fn settle(balancers: &mut [Balancer]) {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let busy = balancers
            .iter_mut()
            .fold(false, |busy, one| one.turn() | busy);
        let joined = balancers.iter().all(|one| one.link.joined() == (1, 1));
        if joined && !busy {
            return;
        }
    }
    panic!("the balancers did not settle");
}

#[test]
fn no_flow_breaks_when_a_balancer_dies_after_servers_changed() {
    require_root();
    let addresses = addresses();
    let mut both = vec![
        Balancer::new(&addresses, 0, 1),
        Balancer::new(&addresses, 1, 1),
    ];
    settle(&mut both);
    let mut was = Vec::new();
    for client in 0..FLOWS {
        if client == FLOWS / 2 {
            let changes = [
                Change::PutServer(web(), server(200)),
                Change::SetWeight(web(), server(7).id, 0),
            ];
            for one in &mut both {
                one.control.change(&changes).unwrap();
            }
        }
        was.push(both[client as usize % 2].packet(client, TcpFlags::SYN));
        if client % 256 == 0 {
            for one in &mut both {
                while one.turn() {}
            }
        }
    }
    settle(&mut both);
    let mut counts = BTreeMap::new();
    for server in &was[..FLOWS as usize / 2] {
        *counts.entry(*server).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 100);
    assert!(
        counts.values().all(|count| (48..=52).contains(count)),
        "{counts:?}"
    );

    let left = both.pop().unwrap();
    drop(both);
    let clients = (0..FLOWS).zip(&was);
    let broken = clients.filter(|(client, was)| left.packet(*client, TcpFlags::ACK) != **was);
    assert_eq!(broken.count(), 0);
}

#[test]
fn a_new_balancer_learns_the_flows_of_its_peer() {
    require_root();
    let addresses = addresses();
    let mut both = vec![
        Balancer::new(&addresses, 0, 1),
        Balancer::new(&addresses, 1, 1),
    ];
    settle(&mut both);
    let was: Vec<_> = (0..2_000)
        .map(|client| both[0].packet(client, TcpFlags::SYN))
        .collect();
    settle(&mut both);
    drop(both.remove(0));
    both.insert(0, Balancer::new(&addresses, 0, 2));
    settle(&mut both);
    let clients = (0..2_000).zip(&was);
    let broken = clients.filter(|(client, was)| both[0].packet(*client, TcpFlags::ACK) != **was);
    assert_eq!(broken.count(), 0);
}
