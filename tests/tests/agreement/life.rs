//! Whole lives of flows, told step by step; every packet goes through the
//! program and the model, which must agree on all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use carrick_lb::kernel::Hook;
use carrick_lb::model::{Outcome, Verdict};
use carrick_lb::packet::{Ethernet, Packet, Problem, Sctp, TcpFlags, Transport, fragments};
use carrick_lb::tables::{
    Rule, SERVER_IN_USE, SERVER_V6, SETTING_JOURNAL, SETTING_NAT, Server, Service, Settings, mode,
    refusal, snat,
};

use super::rig::{Links, Pair};
use super::state::{
    SERVERS, SERVICES, ServiceState, State, VipState, address, padded, sizes, write_service,
};

const VIP: u8 = 1;
/// Where the servers of the service under test are, by position.
const NUMBERS: [u16; 4] = [1, 5, 9, 13];
/// Idle limits, in ticks: opening, established, closing, unused.
const LIMITS: [u16; 4] = [30, 300, 5, 0];

/// A VIP of both families with four servers.
fn world(v6: bool, change: impl FnOnce(&mut Service)) -> State {
    let idle = std::array::from_fn(|at| LIMITS[at % 4]);
    let mut service = Service {
        used: 1,
        idle,
        total_weight: 4,
        port: 6080,
        ..Service::default()
    };
    change(&mut service);
    let slots: Vec<u8> = (0..31).map(|at| at * 7 % 4).collect();
    let service = ServiceState {
        service,
        v6,
        slots,
        ring: vec![0, 1, 2, 3],
    };
    let rule = Rule {
        kinds: 31,
        high: 65_535,
        service: 1,
        vip: 1,
        dscp: 10,
        ..Rule::default()
    };
    let vip = VipState {
        address: address(v6, VIP),
        length: if v6 { 128 } else { 32 },
        other: refusal::REJECT,
        flags: 0,
        rules: vec![rule],
    };
    let servers = (1..=SERVERS).map(|number| server(v6, number));
    State {
        settings: Settings {
            flags: SETTING_NAT | SETTING_JOURNAL,
            table_seed: 11,
            slot_seed: 22,
            port_low: 20_000,
            port_high: 29_999,
            idle,
            ..Settings::default()
        },
        services: vec![service; SERVICES.into()],
        servers: servers.collect(),
        vips: vec![vip],
        sources: vec![padded(address(v6, 224)); 4],
    }
}

fn server(v6: bool, number: u16) -> Server {
    let last = u8::try_from(number).unwrap();
    Server {
        flags: SERVER_IN_USE | if v6 { SERVER_V6 } else { 0 },
        port: 8080,
        weight: 1,
        address: padded(address(v6, 200 + last)),
        hop_mac: [2, 0, 0, 0, 9, last],
        ifindex: 7,
        ..Server::default()
    }
}

/// Tells a life at both hooks and for both families.
fn told(buckets: u32, change: impl Fn(&mut Service) + Sync, life: impl Fn(&mut Life) + Sync) {
    let links = Links::new();
    for hook in [Hook::Xdp, Hook::Tc] {
        links.within(|| {
            let Some(mut pair) = Pair::load(&links, hook, sizes(1, buckets)) else {
                return;
            };
            for v6 in [false, true] {
                let state = world(v6, &change);
                pair.reset();
                pair.change(|memory| state.write(memory));
                life(&mut Life {
                    pair: &mut pair,
                    state,
                    v6,
                });
            }
        });
    }
}

/// A life as it goes on.
struct Life<'a> {
    pair: &'a mut Pair,
    state: State,
    v6: bool,
}

impl Life<'_> {
    fn client(&self, host: u8, port: u16) -> SocketAddr {
        (address(self.v6, host), port).into()
    }

    fn vip(&self, port: u16) -> SocketAddr {
        (address(self.v6, VIP), port).into()
    }

    fn treat(&mut self, bytes: &[u8]) -> Outcome {
        self.treat_on(false, bytes)
    }

    fn treat_on(&mut self, cpu: bool, bytes: &[u8]) -> Outcome {
        let kind = if self.v6 { 0x86dd } else { 0x0800 };
        let frame = Ethernet::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], kind).encode(bytes);
        self.pair.treat(cpu, &frame).unwrap()
    }

    /// A TCP packet of a client's port to port 80; gives its server.
    fn tcp(&mut self, port: u16, flags: TcpFlags) -> u16 {
        let packet = Packet::tcp(self.client(66, port), self.vip(80), flags);
        server_of(&self.treat(&packet.encode()))
    }

    /// A UDP packet of a client; gives its server.
    fn udp(&mut self, host: u8, port: u16) -> u16 {
        let packet = Packet::udp(self.client(host, port), self.vip(53));
        server_of(&self.treat(&packet.encode()))
    }

    fn pass_time(&mut self, ticks: u32) {
        self.pair.change(|memory| {
            let mut settings = memory.settings();
            settings.clock += ticks;
            memory.set_settings(&settings);
        });
    }

    /// Live flows of the service.
    fn live(&self) -> u64 {
        self.pair.model.memory.turn(1).unwrap().flows
    }

    fn counted(&self, reason: &str) -> u64 {
        self.pair.counted(reason)
    }

    /// Takes servers out of the tables; in use they stay.
    fn without(&mut self, positions: &[u8]) {
        let mut service = self.state.services[0].clone();
        let stays = |position: &u8| !positions.contains(position);
        let left: Vec<u8> = (0..4).filter(stays).collect();
        for slot in service
            .slots
            .iter_mut()
            .filter(|slot| positions.contains(slot))
        {
            *slot = left[usize::from(*slot) % left.len()];
        }
        service.ring = left;
        self.pair
            .change(|memory| write_service(memory, 1, &service));
    }
}

/// The server that a frame is sent to, by its Ethernet address.
fn server_of(outcome: &Outcome) -> u16 {
    assert_eq!(outcome.verdict, Verdict::Out(7), "{outcome:?}");
    outcome.frame[5].into()
}

fn packet_of(outcome: &Outcome) -> Packet {
    Packet::decode(&outcome.frame[14..]).unwrap()
}

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;

#[test]
fn a_connection_lives_from_syn_to_fin() {
    told(
        16,
        |_| {},
        |life| {
            let server = life.tcp(1000, SYN);
            assert_eq!(life.live(), 1);
            life.pass_time(29);
            assert_eq!(life.tcp(1000, ACK), server);
            life.pass_time(299);
            assert_eq!(life.tcp(1000, ACK | TcpFlags::PSH), server);
            assert_eq!(life.tcp(1000, ACK | TcpFlags::FIN), server);
            assert_eq!(life.live(), 0, "a flow that ends is no load");
            assert_eq!(life.tcp(1000, ACK), server, "the last packets still arrive");
            assert_eq!(life.live(), 0);
            assert_eq!(life.counted("new_flow"), 1);
            assert_ne!(
                life.tcp(1000, SYN),
                server,
                "the port is used again: the next in turn"
            );
            assert_eq!((life.counted("new_flow"), life.live()), (2, 1));
        },
    );
}

#[test]
fn a_reset_ends_a_connection() {
    told(
        16,
        |_| {},
        |life| {
            let server = life.tcp(1000, SYN);
            assert_eq!(life.tcp(1000, TcpFlags::RST), server);
            assert_eq!(life.live(), 0);
            life.pass_time(6);
            assert_ne!(life.tcp(1000, SYN), server);
            assert_eq!(life.live(), 1);
        },
    );
}

#[test]
fn an_idle_connection_is_forgotten() {
    told(
        16,
        |_| {},
        |life| {
            let server = life.tcp(1000, SYN);
            life.pass_time(30);
            assert_eq!(
                life.tcp(1000, SYN),
                server,
                "a repeated SYN is no new connection"
            );
            life.pass_time(31);
            assert_ne!(life.tcp(1000, SYN), server);
            assert_eq!((life.counted("new_flow"), life.live()), (2, 1));
        },
    );
}

#[test]
fn an_association_ends_with_its_shutdown() {
    told(
        16,
        |_| {},
        |life| {
            let chunk = |life: &mut Life, kind| {
                let packet = Packet::sctp(life.client(66, 7), life.vip(38_412), 9);
                let packet = packet.with_payload(&Sctp::chunk(kind, 0, &[0; 16]));
                server_of(&life.treat(&packet.encode()))
            };
            let server = chunk(life, Sctp::INIT);
            for kind in [10, Sctp::DATA, Sctp::SHUTDOWN] {
                assert_eq!(chunk(life, kind), server);
            }
            assert_eq!(life.live(), 0);
            assert_ne!(chunk(life, Sctp::INIT), server);
        },
    );
}

#[test]
fn a_full_table_breaks_no_connection() {
    told(
        1,
        |_| {},
        |life| {
            let known: Vec<_> = (0..4).map(|port| life.tcp(1000 + port, SYN)).collect();
            let more: Vec<_> = (4..40).map(|port| life.tcp(1000 + port, SYN)).collect();
            assert_eq!(life.counted("full"), 36);
            let again: Vec<_> = (4..40).map(|port| life.tcp(1000 + port, ACK)).collect();
            assert_eq!(more, again, "what is not remembered goes by hash");
            for (port, server) in (0..4).zip(known) {
                assert_eq!(life.tcp(1000 + port, ACK), server);
            }
        },
    );
}

#[test]
fn a_flood_leaves_known_connections_alone() {
    told(
        64,
        |_| {},
        |life| {
            let known: Vec<_> = (0..8).map(|port| life.tcp(1000 + port, SYN)).collect();
            life.pair.change(|memory| {
                let mut settings = memory.settings();
                settings.budget = 10;
                memory.set_settings(&settings);
            });
            life.pass_time(1);
            for port in 2000..2100 {
                life.tcp(port, SYN);
            }
            assert_eq!(life.counted("flood"), 90);
            assert_eq!(life.counted("new_flow"), 18);
            for (port, server) in (0..8).zip(known) {
                assert_eq!(life.tcp(1000 + port, ACK), server);
            }
        },
    );
}

#[test]
fn a_lost_server_breaks_its_own_flows_only() {
    told(
        64,
        |_| {},
        |life| {
            let before: Vec<_> = (0..40).map(|port| life.tcp(1000 + port, SYN)).collect();
            life.without(&[2]);
            life.pair.change(|memory| {
                let mut server = memory.server(NUMBERS[2].into()).unwrap();
                server.flags = 0;
                memory.set_server(NUMBERS[2].into(), &server);
            });
            for (port, before) in (0..40).zip(before) {
                let after = life.tcp(1000 + port, ACK);
                assert_ne!(after, NUMBERS[2]);
                assert!(after == before || before == NUMBERS[2], "port {port}");
            }
            assert_eq!(life.counted("moved"), 10);
        },
    );
}

#[test]
fn a_drained_server_keeps_what_it_has() {
    told(
        64,
        |_| {},
        |life| {
            let before: Vec<_> = (0..40).map(|port| life.tcp(1000 + port, SYN)).collect();
            life.without(&[1, 2]);
            for number in [NUMBERS[1], NUMBERS[2]] {
                life.pair.change(|memory| {
                    let mut server = memory.server(number.into()).unwrap();
                    server.weight = 0;
                    memory.set_server(number.into(), &server);
                });
            }
            let after: Vec<_> = (0..40).map(|port| life.tcp(1000 + port, ACK)).collect();
            assert_eq!(before, after);
            let new: BTreeSet<_> = (0..40).map(|port| life.tcp(2000 + port, SYN)).collect();
            assert_eq!(new, BTreeSet::from([NUMBERS[0], NUMBERS[3]]));
            for port in 0..40 {
                life.tcp(1000 + port, ACK | TcpFlags::FIN);
            }
            assert_eq!(
                life.pair.model.memory.load(NUMBERS[1]),
                Some(0),
                "the drained one is empty"
            );
        },
    );
}

#[test]
fn round_robin_is_even_over_all_cpus() {
    told(
        64,
        |_| {},
        |life| {
            let mut flows = BTreeMap::new();
            for port in 0..100 {
                let packet = Packet::tcp(life.client(66, 1000 + port), life.vip(80), SYN);
                let outcome = life.treat_on(port % 3 == 0, &packet.encode());
                *flows.entry(server_of(&outcome)).or_insert(0) += 1;
            }
            assert_eq!(flows, NUMBERS.map(|number| (number, 25)).into());
        },
    );
}

#[test]
fn a_client_keeps_its_server_as_long_as_its_affinity() {
    told(
        64,
        |service| service.affinity = 20,
        |life| {
            let server = life.udp(65, 1);
            for port in 2..9 {
                life.pass_time(20);
                assert_eq!(life.udp(65, port), server);
            }
            assert_ne!(life.udp(66, 1), server, "another client has another server");
            life.pass_time(21);
            assert_ne!(life.udp(65, 10), server);
        },
    );
}

#[test]
fn fragments_reach_one_server_in_any_order() {
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    told(
        64,
        |_| {},
        |life| {
            for (number, order) in (1..).zip(orders) {
                for known in [false, true] {
                    let port = 5000 + number * 2 + u16::from(known);
                    if known {
                        life.udp(66, port);
                    }
                    let packet = Packet::udp(life.client(66, port), life.vip(53));
                    let packet = packet.with_payload(&[1; 3000]).with_id(port);
                    let parts = fragments(&packet.encode(), 1280, port.into()).unwrap();
                    let servers: BTreeSet<_> = order
                        .iter()
                        .map(|at| server_of(&life.treat(&parts[*at])))
                        .collect();
                    assert_eq!(servers.len(), 1, "{order:?}");
                }
            }
        },
    );
}

#[test]
fn nat_goes_there_and_back() {
    let always = |service: &mut Service| {
        (service.mode, service.snat) = (mode::NAT, snat::ALWAYS);
        (service.sources4, service.sources6) = (2, 2);
    };
    told(64, always, |life| {
        let client = life.client(66, 1000);
        let there = life.treat(&Packet::tcp(client, life.vip(80), SYN).encode());
        let server = server_of(&there);
        let there = packet_of(&there);
        let Transport::Tcp(tcp) = &there.transport else {
            panic!("{there:?}")
        };
        assert_eq!(tcp.destination, 8080);
        let last = u8::try_from(server).unwrap();
        assert_eq!(there.ip.destination(), address(life.v6, 200 + last));
        assert_eq!(there.ip.source(), address(life.v6, 224));
        let ends = [
            (there.ip.destination(), 8080),
            (there.ip.source(), tcp.source),
        ];
        let [from, to] = ends.map(SocketAddr::from);
        let back = life.treat(&Packet::tcp(from, to, SYN | ACK).encode());
        assert_eq!(
            packet_of(&back),
            Packet::tcp(life.vip(80), client, SYN | ACK)
        );
        assert_eq!(life.counted("nat_reply"), 1);
        let fin = life.treat(&Packet::tcp(from, to, TcpFlags::FIN | ACK).encode());
        assert_eq!(
            packet_of(&fin),
            Packet::tcp(life.vip(80), client, TcpFlags::FIN | ACK)
        );
        assert_eq!(life.live(), 0, "the server ended it");
    });
}

#[test]
fn an_icmp_error_reaches_the_server_it_speaks_of() {
    told(
        64,
        |_| {},
        |life| {
            for port in 1000..1020 {
                let server = life.tcp(port, SYN);
                let answer =
                    Packet::tcp(life.vip(80), life.client(66, port), ACK).with_payload(&[9; 1400]);
                let router: IpAddr = address(life.v6, 250);
                let error =
                    Packet::problem(router, Problem::TooBig(1300), &answer.encode()).unwrap();
                let outcome = life.treat(&error.encode());
                assert_eq!(server_of(&outcome), server);
            }
            assert_eq!(life.counted("icmp_error"), 20);
        },
    );
}

#[test]
fn a_packet_that_does_not_fit_is_answered() {
    told(
        16,
        |service| service.mode = mode::IPIP,
        |life| {
            for number in NUMBERS {
                life.pair.change(|memory| {
                    let mut server = memory.server(number.into()).unwrap();
                    server.mtu = 1400;
                    memory.set_server(number.into(), &server);
                });
            }
            let mut packet = Packet::udp(life.client(66, 9), life.vip(53)).with_payload(&[3; 1380]);
            if let carrick_lb::packet::Ip::V4(header) = &mut packet.ip {
                header.dont_fragment = true;
            }
            let outcome = life.treat(&packet.encode());
            let overhead = if life.v6 { 40 } else { 20 };
            let error = packet_of(&outcome);
            assert_eq!(outcome.verdict, Verdict::Out(1), "back where it came from");
            let too_big = carrick_lb::packet::Icmp::Problem(Problem::TooBig(1400 - overhead));
            assert_eq!(error.transport, Transport::Icmp(too_big));
            assert_eq!(error.ip.destination(), packet.ip.source());
        },
    );
}

#[test]
fn a_service_without_servers_rejects() {
    told(
        16,
        |service| service.on_empty = refusal::REJECT,
        |life| {
            let mut empty = life.state.services[0].clone();
            (empty.slots, empty.ring) = (vec![], vec![]);
            life.pair.change(|memory| write_service(memory, 1, &empty));
            let outcome = life.treat(&Packet::tcp(life.client(66, 9), life.vip(80), SYN).encode());
            let reset = packet_of(&outcome);
            let Transport::Tcp(tcp) = &reset.transport else {
                panic!("{reset:?}")
            };
            assert_eq!(tcp.flags, TcpFlags::RST | ACK);
            assert_eq!(tcp.acknowledgement, 1);
            assert_eq!(life.counted("no_server"), 1);
        },
    );
}
