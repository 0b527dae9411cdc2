//! Which packets belong to a VIP.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use carrick_lb::packet::{Ip, Packet, Sctp, TcpFlags};
use carrick_lb::service::{Mode, OnEmpty, PortRange, Ports, Service};
use carrick_tests::balancer::{
    Balancer, Family, Plane, Raw, Server, Site, Tap, ask, ask_udp, service, vip, vip_port,
};

use crate::rig::{NEVER, PORT, SOON, nat, place, start_at, web};

fn two_ports_go_to_two_pools(plane: Plane, family: Family, mode: &Mode) {
    let site = Site::new(2);
    let _servers = start_at(&site, family, &[80, 443, 22]);
    let address = family.vip().to_string();
    let pool = |name: &str, port: u16, server: usize| Service {
        mode: mode.clone(),
        ..service(
            name,
            &[vip_port(&address, port)],
            vec![site.service_servers(family)[server].clone()],
        )
    };
    let services = [pool("web", 80, 0), pool("tls", 443, 1)];
    let balancer = Balancer::with(plane, &site.balancer, services);
    let at = |port| SocketAddr::new(family.vip(), port);
    for _ in 0..3 {
        assert_eq!(ask(&site.client, at(80)).unwrap().server, "s1");
        assert_eq!(ask(&site.client, at(443)).unwrap().server, "s2");
        assert_eq!(ask_udp(&site.client, at(443), 10).unwrap().server, "s2");
    }
    let refused = ask(&site.client, at(22)).expect_err("nobody serves that port of the VIP");
    assert_ne!(refused.kind(), ErrorKind::TimedOut, "it is told: {refused}");
    balancer.remove();
}

on! { Nftables, Tc:
    fn two_ports_of_a_vip_go_to_two_pools_and_a_third_is_refused(plane) {
        for family in Family::BOTH {
            for mode in [nat(), Mode::L2] {
                two_ports_go_to_two_pools(plane, family, &mode);
            }
        }
    }
}

fn any_address_is_answered(plane: Plane, family: Family) {
    let site = Site::new(2);
    let places = [7, 200].map(|number| family.in_range(number));
    let _servers: Vec<_> = site
        .servers
        .iter()
        .map(|server| {
            let at = places.map(|address| SocketAddr::new(address, 33_333));
            Server::start(server, "any", &at)
        })
        .collect();
    let service = service("all", &[vip(family.range())], site.service_servers(family));
    let balancer = Balancer::with(plane, &site.balancer, [service]);
    for address in places {
        let to = SocketAddr::new(address, 33_333);
        assert_eq!(ask(&site.client, to).unwrap().local, to);
        assert_eq!(ask_udp(&site.client, to, 10).unwrap().local, to);
        echo_is_answered(&site, family, address);
        sctp_arrives(&site, family, address);
    }
    balancer.remove();
}

fn echo_is_answered(site: &Site, family: Family, vip: IpAddr) {
    let mut tap = Tap::open(&site.client);
    let client = family.client(0);
    Raw::open(&site.client).send(&Packet::echo(client, vip, 77, 1).encode());
    tap.packet(vip, client, SOON)
        .expect("a server answers the echo request");
}

/// An INIT chunk (RFC 9260 §3.3.2): tag, window, streams both ways, first number.
fn init() -> Vec<u8> {
    let words = [1_u32, 65_536, 0x0001_0001, 1];
    Sctp::chunk(1, 0, &words.map(u32::to_be_bytes).concat())
}

fn sctp_arrives(site: &Site, family: Family, vip: IpAddr) {
    let mut taps: Vec<_> = site.servers.iter().map(Tap::open).collect();
    let (from, to) = (
        SocketAddr::new(family.client(0), 9_999),
        SocketAddr::new(vip, 3_868),
    );
    let packet = Packet::sctp(from, to, 0).with_payload(&init());
    let raw = Raw::open(&site.client);
    raw.send(&packet.encode());
    let first = taps.iter_mut().position(|tap| {
        let seen = tap.packet(from.ip(), vip, NEVER);
        seen.is_some_and(|seen| seen.payload == packet.payload)
    });
    let first = first.expect("an INIT comes to a server with its checksum right");
    // What follows of the association goes to the same.
    let cookie = Packet::sctp(from, to, 5).with_payload(&Sctp::chunk(10, 0, &[0; 4]));
    raw.send(&cookie.encode());
    let seen = taps[first].packet(from.ip(), vip, SOON);
    assert_eq!(seen.map(|seen| seen.payload), Some(cookie.payload));
}

on! { Nftables, Tc:
    fn any_address_port_and_protocol_of_a_prefix_is_answered(plane) {
        for family in Family::BOTH {
            any_address_is_answered(plane, family);
        }
    }
}

on! { Nftables, Tc:
    fn sctp_is_translated_and_keeps_its_checksum_right(plane) {
        for family in Family::BOTH {
            let site = Site::new(1);
            let balancer = Balancer::with(plane, &site.balancer, [web(&site, family, nat())]);
            let (client, server) = (family.client(0), family.server(1));
            let from = SocketAddr::new(client, 9_999);
            let packet = Packet::sctp(from, place(family), 0).with_payload(&init());
            let (mut at_server, mut at_client) = (Tap::open(&site.servers[0]), Tap::open(&site.client));
            Raw::open(&site.client).send(&packet.encode());
            let seen = at_server.packet(client, server, SOON).expect("it comes to the server");
            assert_eq!((&seen.transport, &seen.payload), (&packet.transport, &packet.payload));
            let own = SocketAddr::new(server, PORT);
            // An INIT ACK with a cookie.
            let words = [7_u32, 65_536, 0x0001_0001, 1, 0x0007_0004];
            let chunk = Sctp::chunk(2, 0, &words.map(u32::to_be_bytes).concat());
            let answer = Packet::sctp(own, from, 1).with_payload(&chunk);
            Raw::open(&site.servers[0]).send(&answer.encode());
            // The server's kernel, which has no SCTP, speaks, too.
            let seen = at_client.next(SOON, |bytes| {
                let seen = Packet::decode(bytes).ok()?;
                (seen.payload == answer.payload).then_some(seen.ip.source())
            });
            assert_eq!(seen, Some(family.vip()));
            balancer.remove();
        }
    }
}

on! { Nftables, Tc:
    fn a_more_specific_prefix_and_a_range_of_ports_come_first(plane) {
        let family = Family::V4;
        let site = Site::new(3);
        let special = family.in_range(9);
        let _servers: Vec<_> = (1..)
            .zip(&site.servers)
            .map(|(number, server)| {
                let at = [(special, 80), (special, 8_050), (special, 9_000), (family.in_range(1), 80)];
                Server::start(server, &format!("s{number}"), &at.map(SocketAddr::from))
            })
            .collect();
        let servers = site.service_servers(family);
        let pool = |name, vip, server: usize| service(name, &[vip], vec![servers[server].clone()]);
        let mut range = vip(&special.to_string());
        range.ports = Ports::of([PortRange::new(8_000, 8_099).unwrap()]);
        let services = [
            pool("all", vip(family.range()), 0),
            pool("one", vip_port(&special.to_string(), 80), 1),
            // Ports do not tell packets without ports apart, so ranges are for TCP and UDP.
            pool("range", carrick_lb::service::Vip {
                protocols: vip_port("10.0.0.1", 80).protocols,
                ..range
            }, 2),
        ];
        let balancer = Balancer::with(plane, &site.balancer, services);
        let asked = |address, port| ask(&site.client, SocketAddr::new(address, port)).unwrap().server;
        assert_eq!(asked(family.in_range(1), 80), "s1");
        assert_eq!(asked(special, 80), "s2");
        assert_eq!(asked(special, 8_050), "s3");
        assert_eq!(asked(special, 9_000), "s1");
        balancer.remove();
    }
}

fn is_neighbour_discovery(ip: &Ip, payload: &[u8]) -> bool {
    ip.protocol() == 58 && payload[0] >= 128
}

fn nobody_serves(plane: Plane, family: Family, mode: Mode, on_empty: OnEmpty) {
    let site = Site::new(1);
    let mut service = web(&site, family, mode);
    service.servers.clear();
    service.on_empty = on_empty;
    let balancer = Balancer::with(plane, &site.balancer, [service]);
    let mut tap = Tap::open(&site.client);
    let from = SocketAddr::new(family.client(0), 41_000);
    let raw = Raw::open(&site.client);
    let packets = [
        Packet::tcp(from, place(family), TcpFlags::SYN),
        Packet::udp(from, place(family)).with_payload(b"hello there"),
    ];
    for packet in packets {
        raw.send(&packet.encode());
        let answer = tap.next(
            if on_empty == OnEmpty::Drop {
                NEVER
            } else {
                SOON
            },
            |bytes| {
                // Not whole: the kernel leaves checksums to the interface.
                let (ip, payload) = Ip::decode(bytes).ok()?;
                let ours = ip.destination() == from.ip() && !is_neighbour_discovery(&ip, payload);
                ours.then(|| (ip.protocol(), payload.to_vec()))
            },
        );
        assert_eq!(
            answer.is_some(),
            on_empty == OnEmpty::Reject,
            "{packet:?}: {answer:?} {:?}",
            balancer.statistics().reasons
        );
        if let Some((6, header)) = answer {
            assert_eq!(header[13] & 4, 4, "it is a reset");
        }
    }
    let reasons = balancer.statistics().reasons;
    assert_eq!(reasons["no_server"], 2, "{reasons:?}");
    balancer.remove();
}

on! { Nftables, Tc:
    fn without_a_server_packets_are_rejected_or_dropped_as_is_chosen(plane) {
        for family in Family::BOTH {
            for mode in [nat(), Mode::L2] {
                for on_empty in [OnEmpty::Reject, OnEmpty::Drop] {
                    nobody_serves(plane, family, mode.clone(), on_empty);
                }
            }
        }
    }
}
