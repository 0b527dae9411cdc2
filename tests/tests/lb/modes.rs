//! A request arrives at a server as its mode says, and the answer comes back.

use std::net::{IpAddr, SocketAddr};

use carrick_lb::dataplane::ServerCounters;
use carrick_lb::packet::tunnel::Tunnel;
use carrick_lb::packet::{Ip, Packet, TcpFlags};
use carrick_lb::service::{Dscp, Mode, Snat, Vni};
use carrick_tests::balancer::{Balancer, Family, Plane, Raw, Site, Tap, ask, ask_udp, vip_port};

use crate::rig::{PORT, SOON, nat, number, place, start, start_at, wait_for, web};

fn each_server_gets_its_share(plane: Plane, family: Family, mode: Mode) {
    let site = Site::new(3);
    let _servers = start(&site, family);
    let direct = !matches!(mode, Mode::Nat { .. });
    let balancer = Balancer::with(plane, &site.balancer, [web(&site, family, mode)]);
    let to = place(family);
    let mut seen = [0; 3];
    for _ in 0..6 {
        let answer = ask(&site.client, to);
        let answer = answer.unwrap_or_else(|e| panic!("{e}: {:?}", balancer.statistics()));
        assert_eq!(
            answer.peer.ip(),
            family.client(0),
            "the server sees the client"
        );
        let server = number(&answer.server);
        let asked = if direct {
            family.vip()
        } else {
            family.server(u8::try_from(server).unwrap())
        };
        assert_eq!(answer.local, SocketAddr::new(asked, PORT));
        seen[server - 1] += 1;
    }
    assert_eq!(seen, [2; 3]);
    let answer = ask_udp(&site.client, to, 10).unwrap();
    assert_eq!(answer.peer.ip(), family.client(0));
    counters_tell(&balancer);
    balancer.remove();
}

/// Six connections and a datagram were counted, for the VIP and the servers;
/// the last packets of connections may be under way still.
fn counters_tell(balancer: &Balancer<'_>) {
    wait_for("everything is counted", || {
        let statistics = balancer.statistics();
        let [vip] = statistics.vips.values().collect::<Vec<_>>()[..] else {
            panic!("one VIP is counted: {statistics:?}");
        };
        let sum = |each: fn(&ServerCounters) -> u64| -> u64 {
            statistics.servers.values().map(each).sum()
        };
        assert_eq!(sum(|server| server.total.flows), 7, "{statistics:?}");
        vip.packets > 6 * 3
            && sum(|server| server.total.packets) == vip.packets
            && sum(|server| server.total.bytes) == vip.bytes
    });
}

on! { Nftables, Tc, Xdp:
    fn nat_brings_packets_to_servers_and_answers_back(plane) {
        for family in Family::BOTH {
            each_server_gets_its_share(plane, family, nat());
        }
    }
}

on! { Nftables, Tc, Xdp:
    fn l2_brings_packets_to_servers_that_answer_by_themselves(plane) {
        for family in Family::BOTH {
            each_server_gets_its_share(plane, family, Mode::L2);
        }
    }
}

on! { Nftables, Tc, Xdp:
    fn nat_translates_ports_and_the_client_sees_the_vip(plane) {
        for family in Family::BOTH {
            let site = Site::new(2);
            let _servers = start_at(&site, family, &[8080]);
            let mut service = web(&site, family, nat());
            service.vips = vec![vip_port(&family.vip().to_string(), 80)];
            for server in &mut service.servers {
                server.port = Some(8080);
            }
            let balancer = Balancer::with(plane, &site.balancer, [service]);
            let to = SocketAddr::new(family.vip(), 80);
            for answer in [ask(&site.client, to), ask_udp(&site.client, to, 10)] {
                let answer = answer.unwrap();
                let server = u8::try_from(number(&answer.server)).unwrap();
                assert_eq!(answer.local, SocketAddr::new(family.server(server), 8080));
            }
            balancer.remove();
        }
    }
}

on! { Nftables, Tc, Xdp:
    fn nat_hides_clients_behind_an_address_where_it_shall(plane) {
        for family in Family::BOTH {
            let site = Site::new(2);
            let _servers = start(&site, family);
            // Towards the client, so that it cannot be the one the kernel would take.
            let own = family.balancer();
            let snat = Snat::Always(vec![own]);
            let service = web(&site, family, Mode::Nat { snat });
            let balancer = Balancer::with(plane, &site.balancer, [service]);
            let answer = ask(&site.client, place(family)).unwrap();
            assert_eq!(answer.peer.ip(), own);
            let answer = ask_udp(&site.client, place(family), 10).unwrap();
            assert_eq!(answer.peer.ip(), own);
            balancer.remove();
        }
    }
}

fn dscp_of(ip: &Ip) -> u8 {
    match ip {
        Ip::V4(header) => header.encode(&[])[1] >> 2,
        Ip::V6(header) => {
            let bytes = header.encode(&[]);
            (bytes[0] << 2 | bytes[1] >> 6) & 0x3f
        }
    }
}

on! { Nftables, Tc, Xdp:
    fn l3dsr_tells_servers_the_vip_by_dscp(plane) {
        for family in Family::BOTH {
            let site = Site::new(1);
            let mut service = web(&site, family, Mode::L2);
            let dscp = Dscp::new(37).unwrap();
            service.mode = Mode::L3Dsr {
                dscp: vec![(service.vips[0].prefix, dscp)],
            };
            let balancer = Balancer::with(plane, &site.balancer, [service]);
            let (client, server): (IpAddr, IpAddr) = (family.client(0), family.server(1));
            let mut at_server = Tap::open(&site.servers[0]);
            let from = SocketAddr::new(client, 40_000);
            let syn = Packet::tcp(from, place(family), TcpFlags::SYN);
            Raw::open(&site.client).send(&syn.encode());
            let seen = at_server.packet(client, server, SOON);
            let seen = seen.expect("the packet comes to the server's address, checksums right");
            assert_eq!(dscp_of(&seen.ip), 37);
            assert_eq!(seen.transport, syn.transport, "nothing else is changed");

            // The server's own doing: it answers as the VIP, past the balancer.
            let mut at_client = Tap::open(&site.client);
            let answer = Packet::tcp(place(family), from, TcpFlags::SYN | TcpFlags::ACK);
            Raw::open(&site.servers[0]).send(&answer.encode());
            assert!(at_client.packet(family.vip(), client, SOON).is_some());
            balancer.remove();
        }
    }
}

/// Packets in packets arrive at the server's address from the balancer's, whole
/// inside; the server answers as the VIP.
fn comes_in_a_packet(plane: Plane, family: Family, mode: Mode) {
    let site = Site::new(1);
    let name = mode.name();
    let vxlan = match mode {
        Mode::Vxlan { port, .. } => port,
        _ => 0,
    };
    let balancer = Balancer::with(plane, &site.balancer, [web(&site, family, mode)]);
    let from = SocketAddr::new(family.client(0), 40_000);
    let packets = [
        Packet::tcp(from, place(family), TcpFlags::SYN),
        Packet::udp(from, place(family)).with_payload(b"in a packet"),
    ];
    for packet in packets {
        let packet = packet.with_id(7).encode();
        let mut at_server = Tap::open(&site.servers[0]);
        Raw::open(&site.client).send(&packet);
        let inner = at_server.next(SOON, |bytes| {
            let (outer, payload) = Ip::decode(bytes).ok()?;
            let ours =
                outer.source() == family.balancer() && outer.destination() == family.server(1);
            let (tunnel, inner) = Tunnel::decode(outer.protocol(), payload, vxlan).ok()?;
            let inner = match tunnel {
                Tunnel::Vxlan { .. } => &inner[14..],
                _ => inner,
            };
            ours.then(|| inner.to_vec())
        });
        let inner = inner.unwrap_or_else(|| panic!("{name}: {:?}", balancer.statistics()));
        assert_eq!(inner, packet, "{name}");
    }
    balancer.remove();
}

on! { Tc, Xdp:
    fn packets_come_to_servers_in_packets(plane) {
        let vni = Vni::new(7).unwrap();
        for family in Family::BOTH {
            for mode in [
                Mode::Gre,
                Mode::Gue { port: 6_080 },
                Mode::Ipip,
                Mode::Vxlan { vni, port: 4_789 },
            ] {
                comes_in_a_packet(plane, family, mode);
            }
        }
    }
}
