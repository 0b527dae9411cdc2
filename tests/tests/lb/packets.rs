//! Packets that others drop: fragments, ICMP errors, packets that are too big.

use std::net::{SocketAddr, UdpSocket};

use carrick_lb::packet::{Icmp, Ip, Packet, Problem, TcpFlags, Transport, fragments};
use carrick_lb::service::Mode;
use carrick_tests::balancer::{Balancer, Family, Held, Plane, Raw, Site, Tap};

use crate::rig::{NEVER, SOON, nat, place, start, web};

/// Every order of three.
const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

const SIZE: usize = 3_000;

fn fragments_in_any_order(plane: Plane, family: Family, mode: Mode) {
    let site = Site::new(3);
    let _servers = start(&site, family);
    let balancer = Balancer::with(plane, &site.balancer, [web(&site, family, mode)]);
    let raw = Raw::open(&site.client);
    for (flow, order) in (0_u16..).zip(ORDERS) {
        let from = SocketAddr::new(family.client(0), 30_000 + flow);
        let socket = site.client.within(|| UdpSocket::bind(from).unwrap());
        socket.set_read_timeout(Some(SOON / 4)).unwrap();
        let ask = |id: u16| {
            let packet = Packet::udp(from, place(family)).with_payload(&[b'x'; SIZE]);
            let whole = packet.with_id(id).encode();
            let parts = fragments(&whole, 1_280, id.into()).unwrap();
            assert_eq!(parts.len(), 3);
            for part in order {
                raw.send(&parts[part]);
            }
            let mut answer = [0; 200];
            let length = socket.recv(&mut answer).ok()?;
            Some(String::from_utf8_lossy(&answer[..length]).into_owned())
        };
        // A new flow whose first datagram is in pieces, and then a known one. One
        // may be lost, as any datagram where two processors take its pieces at
        // once; two in a row of the same order are not.
        let answers: Vec<_> = (0..2)
            .map(|again| {
                let id = 100 + 4 * flow + 2 * again;
                let answer = ask(id).or_else(|| ask(id + 1));
                answer.expect("the datagram arrives whole")
            })
            .collect();
        assert!(
            answers[0].trim().ends_with(&SIZE.to_string()),
            "{answers:?}"
        );
        assert_eq!(answers[0], answers[1], "one flow, one server");
    }
    balancer.remove();
}

on! { Nftables, Tc, Xdp:
    fn fragments_reach_one_server_in_any_order(plane) {
        for family in Family::BOTH {
            for mode in [nat(), Mode::L2] {
                fragments_in_any_order(plane, family, mode);
            }
        }
    }
}

fn icmp_error_finds_the_server(plane: Plane, family: Family, mode: Mode) {
    let site = Site::new(3);
    let _servers = start(&site, family);
    let direct = mode == Mode::L2;
    let balancer = Balancer::with(plane, &site.balancer, [web(&site, family, mode)]);
    for _ in 0..3 {
        let held = Held::open(&site.client, None, place(family)).unwrap();
        let mut taps: Vec<_> = site.servers.iter().map(Tap::open).collect();
        // A router on the way back to the client: what the server sent is too big.
        let sent = Packet::tcp(place(family), held.from(), TcpFlags::ACK);
        let sent = sent.with_payload(&[0; 100]).encode();
        let router = family.client(30);
        let error = Packet::problem(router, Problem::TooBig(1_280), &sent).unwrap();
        Raw::open(&site.client).send(&error.encode());
        for (number, tap) in (1_u8..).zip(&mut taps) {
            let own = if direct {
                family.vip()
            } else {
                family.server(number)
            };
            let right = held.first.server == format!("s{number}");
            let seen = tap.packet(router, own, if right { SOON } else { NEVER });
            assert_eq!(seen.is_some(), right, "server {number} of {:?}", held.first);
            if let Some(seen) = seen {
                assert_eq!(seen.transport, error.transport);
                let (inner, _) = Ip::decode(&seen.payload).expect("it quotes a packet");
                assert_eq!(inner.source(), own, "it quotes what that server sent");
            }
        }
    }
    balancer.remove();
}

on! { Nftables, Tc, Xdp:
    fn icmp_errors_reach_the_server_they_speak_to(plane) {
        for family in Family::BOTH {
            for mode in [nat(), Mode::L2] {
                icmp_error_finds_the_server(plane, family, mode);
            }
        }
    }
}

fn too_big_is_told(plane: Plane, family: Family, mode: Mode) {
    let site = Site::new(1);
    site.ip(&site.balancer, "link set s1 mtu 1280\n");
    site.ip(&site.servers[0], "link set eth0 mtu 1280\n");
    let _servers = start(&site, family);
    let balancer = Balancer::with(plane, &site.balancer, [web(&site, family, mode)]);
    let from = SocketAddr::new(family.client(0), 42_000);
    let mut tap = Tap::open(&site.client);
    let mut packet = Packet::udp(from, place(family)).with_payload(&[0; 1_400]);
    if let Ip::V4(header) = &mut packet.ip {
        header.dont_fragment = true;
    }
    Raw::open(&site.client).send(&packet.encode());
    let told = tap.next(SOON, |bytes| match Packet::decode(bytes).ok()?.transport {
        Transport::Icmp(Icmp::Problem(Problem::TooBig(mtu))) => Some(mtu),
        _ => None,
    });
    assert_eq!(told, Some(1_280));
    // And a transfer adapts to it.
    let mut held = Held::open(&site.client, None, place(family)).unwrap();
    let first = held.first.clone();
    assert_eq!(held.again_with(100_000).unwrap(), first);
    balancer.remove();
}

on! { Nftables:
    fn packets_too_big_for_the_way_to_the_server_are_told_so(plane) {
        for family in Family::BOTH {
            for mode in [nat(), Mode::L2] {
                too_big_is_told(plane, family, mode);
            }
        }
    }
}

on! { Nftables, Tc, Xdp:
    fn packets_with_ip_options_arrive(plane) {
        let family = Family::V4;
        for mode in [nat(), Mode::L2] {
            let site = Site::new(1);
            let direct = mode == Mode::L2;
            let balancer = Balancer::with(plane, &site.balancer, [web(&site, family, mode)]);
            let mut tap = Tap::open(&site.servers[0]);
            let from = SocketAddr::new(family.client(0), 42_000);
            // A timestamp option (RFC 791 §3.1) without room, and padding.
            let options = [68, 4, 5, 0];
            let packet = Packet::tcp(from, place(family), TcpFlags::SYN).with_options(&options);
            Raw::open(&site.client).send(&packet.encode());
            let to = if direct { family.vip() } else { family.server(1) };
            let seen = tap.packet(from.ip(), to, SOON).expect("it arrives");
            assert_eq!(seen.transport, packet.transport);
            balancer.remove();
        }
    }
}
