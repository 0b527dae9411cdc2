use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::{Arrival, Model, Outcome, Verdict};
use crate::packet::{Ethernet, Packet, TcpFlags, Transport, ethertype, fragments};
use crate::tables::{
    Rule, SERVER_IN_USE, SETTING_NAT, Server, Service, Settings, Sizes, View, Vip4, VipPrefix,
    mode, policy,
};

const VIP: [u8; 4] = [10, 0, 0, 1];
const CLIENT: [u8; 4] = [10, 9, 0, 1];
const INTERFACE: u32 = 7;
const SERVERS: u16 = 4;

/// A VIP for everything, with servers 1 to 4 of equal weight.
fn model(change: impl FnOnce(&mut Service)) -> Model {
    let mut model = Model::new(Sizes {
        // Two hundred flows shall all find a place, with hardly a doubt.
        buckets4: 2_048,
        nat_buckets4: 256,
        ..Sizes::small()
    });
    let memory = &mut model.memory;
    let lengths4 = [32, 0, 0, 0, 0, 0, 0, 0];
    let view = View {
        seed: 5,
        count4: 1,
        lengths4,
        ..View::default()
    };
    memory.set_settings(&Settings {
        flags: SETTING_NAT,
        table_seed: 1,
        slot_seed: 2,
        idle: [100; 32],
        views: [view; 2],
        ..Settings::default()
    });
    let prefix = VipPrefix {
        address: VIP.into(),
        length: 32,
    };
    let bucket = prefix.bucket(view.seed, memory.sizes().vip_buckets) as usize;
    let vip = Vip4 {
        address: VIP,
        length: 32,
        used: 1,
        count: 1,
        ..Vip4::default()
    };
    memory.set_vip4(bucket * 4, &vip);
    let rule = Rule {
        kinds: 31,
        high: 65_535,
        service: 1,
        vip: 1,
        ..Rule::default()
    };
    memory.set_rule(0, &rule);
    for number in 1..=SERVERS {
        memory.set_server(number.into(), &server(number));
        memory.set_slot(32 + u32::from(number) - 1, number);
    }
    for (slot, number) in (0..31).zip((1..=SERVERS).cycle()) {
        memory.set_slot(slot, number);
    }
    let mut service = Service {
        used: 1,
        slots_count: 31,
        ring_base: 32,
        ring_count: SERVERS.into(),
        total_weight: SERVERS.into(),
        spill_factor: 256,
        idle: [100; 32],
        ..Service::default()
    };
    change(&mut service);
    memory.set_service_version(4, &service);
    model
}

fn server(number: u16) -> Server {
    let last = u8::try_from(number).unwrap();
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[10, 1, 0, last]);
    Server {
        flags: SERVER_IN_USE,
        service: 1,
        port: 8080,
        weight: 1,
        address,
        hop_mac: [2, 0, 0, 0, 0, last],
        ifindex: INTERFACE,
        ..Server::default()
    }
}

fn treat(model: &mut Model, bytes: &[u8]) -> Outcome {
    let frame = Ethernet::new([2; 6], [4; 6], ethertype::IPV4).encode(bytes);
    let arrival = Arrival {
        cpu: 0,
        jiffies: 0,
        interface: 1,
    };
    model.treat(arrival, &frame)
}

fn server_of(outcome: &Outcome) -> u16 {
    assert_eq!(outcome.verdict, Verdict::Out(INTERFACE));
    outcome.frame[5].into()
}

fn from(port: u16) -> SocketAddr {
    (CLIENT, port).into()
}

fn to(port: u16) -> SocketAddr {
    (VIP, port).into()
}

#[test]
fn a_packet_to_nobody_passes_as_it_is() {
    let mut model = model(|_| {});
    let packet = Packet::udp(from(1), SocketAddr::from(([10, 0, 0, 2], 53))).encode();
    let outcome = treat(&mut model, &packet);
    assert_eq!(outcome.verdict, Verdict::Pass);
    assert_eq!(outcome.frame[14..], packet);
}

#[test]
fn l2_changes_the_ethernet_addresses_alone() {
    let packet = Packet::udp(from(1), to(53)).encode();
    let outcome = treat(&mut model(|_| {}), &packet);
    assert_eq!(outcome.frame[14..], packet);
    assert_eq!(outcome.frame[..6], [2, 0, 0, 0, 0, 1]);
}

#[test]
fn every_tunnel_carries_the_packet_unchanged() {
    use crate::packet::tunnel::Tunnel;
    for mode in [mode::IPIP, mode::GRE, mode::GUE, mode::VXLAN] {
        let packet = Packet::tcp(from(1), to(80), TcpFlags::SYN).encode();
        let mut model = model(|service| (service.mode, service.port) = (mode, 4789));
        let outcome = treat(&mut model, &packet);
        let (outer, inner) = crate::packet::Ip::decode(&outcome.frame[14..]).unwrap();
        assert_eq!(outer.destination(), IpAddr::from([10, 1, 0, 1]));
        let vxlan = if mode == mode::VXLAN { 4789 } else { 0 };
        let (tunnel, inner) = Tunnel::decode(outer.protocol(), inner, vxlan).unwrap();
        let inner = match tunnel {
            Tunnel::Vxlan { .. } => Ethernet::decode(inner).unwrap().1,
            _ => inner,
        };
        assert_eq!(inner, packet, "{tunnel:?}");
    }
}

proptest! {
    #[test]
    fn round_robin_is_always_even(ports in proptest::collection::hash_set(1_u16.., 1..200)) {
        let mut model = model(|_| {});
        let mut flows = BTreeMap::new();
        for port in &ports {
            let outcome = treat(&mut model, &Packet::udp(from(*port), to(53)).encode());
            *flows.entry(server_of(&outcome)).or_insert(0_usize) += 1;
        }
        for number in 1..=SERVERS {
            let share = ports.len() / usize::from(SERVERS);
            let flows = flows.get(&number).copied().unwrap_or(0);
            prop_assert!((share..=share + 1).contains(&flows));
        }
    }

    #[test]
    fn a_flow_never_changes_its_server(
        policy in policy::ROUND_ROBIN..=policy::SPILL,
        ports in proptest::collection::vec(1..30_u16, 1..100),
    ) {
        let mut model = model(|service| service.policy = policy);
        let mut servers = BTreeMap::new();
        for port in ports {
            let packet = Packet::udp(from(port), to(53));
            let server = server_of(&treat(&mut model, &packet.encode()));
            prop_assert_eq!(*servers.entry(port).or_insert(server), server);
        }
    }

    #[test]
    fn fragments_always_reach_one_server(
        order in Just(vec![0, 1, 2, 3]).prop_shuffle(),
        port in 1_u16..,
        known in any::<bool>(),
    ) {
        let mut model = model(|_| {});
        let packet = Packet::udp(from(port), to(53)).with_payload(&[1; 4500]).with_id(port);
        if known {
            treat(&mut model, &Packet::udp(from(port), to(53)).encode());
        }
        let parts = fragments(&packet.encode(), 1280, 0).unwrap();
        let servers: BTreeSet<_> =
            order.iter().map(|at| server_of(&treat(&mut model, &parts[*at]))).collect();
        prop_assert_eq!(servers.len(), 1);
    }

    #[test]
    fn nat_always_comes_back_as_it_went(
        port in 1_u16..,
        payload in proptest::collection::vec(any::<u8>(), 0..60),
        tcp in any::<bool>(),
    ) {
        let mut model = model(|service| service.mode = mode::NAT);
        let packet = |from, to| {
            let packet = if tcp { Packet::tcp(from, to, TcpFlags::ACK) } else { Packet::udp(from, to) };
            packet.with_payload(&payload)
        };
        let there = treat(&mut model, &packet(from(port), to(80)).encode());
        let there = Packet::decode(&there.frame[14..]).unwrap();
        let server = SocketAddr::from((there.ip.destination(), 8080));
        prop_assert_eq!(&there, &packet(from(port), server));
        let back = treat(&mut model, &packet(server, from(port)).encode());
        prop_assert_eq!(Packet::decode(&back.frame[14..]), Ok(packet(to(80), from(port))));
    }

    #[test]
    fn no_frame_ever_panics(frame in proptest::collection::vec(any::<u8>(), 0..200), ip in any::<bool>()) {
        let mut frame = frame;
        if ip && frame.len() > 40 {
            frame[12..15].copy_from_slice(&[8, 0, 0x45]);
            frame[16] = 0;
            frame[30..34].copy_from_slice(&VIP);
        }
        let arrival = Arrival { cpu: 0, jiffies: 0, interface: 1 };
        model(|service| service.mode = mode::NAT).treat(arrival, &frame);
    }
}

#[test]
fn a_reset_answers_a_packet_that_no_rule_takes() {
    let mut model = model(|_| {});
    model.memory.set_rule(
        0,
        &Rule {
            kinds: 2,
            high: 65_535,
            service: 1,
            ..Rule::default()
        },
    );
    let settings = model.memory.settings();
    let prefix = VipPrefix {
        address: VIP.into(),
        length: 32,
    };
    let bucket = prefix.bucket(settings.views[0].seed, model.memory.sizes().vip_buckets) as usize;
    let vip = model.memory.vip4(bucket * 4).unwrap();
    model.memory.set_vip4(bucket * 4, &Vip4 { other: 1, ..vip });
    let outcome = treat(
        &mut model,
        &Packet::tcp(from(9), to(80), TcpFlags::SYN).encode(),
    );
    assert_eq!(outcome.verdict, Verdict::Out(1));
    let reset = Packet::decode(&outcome.frame[14..]).unwrap();
    let Transport::Tcp(tcp) = reset.transport else {
        panic!("{reset:?}")
    };
    assert_eq!(tcp.flags, TcpFlags::RST | TcpFlags::ACK);
    assert_eq!(
        (tcp.source, tcp.destination, tcp.acknowledgement),
        (80, 9, 1)
    );
}
