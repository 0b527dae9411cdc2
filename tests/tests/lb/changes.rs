//! Changes under traffic.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use carrick_lb::control::Change;
use carrick_lb::dataplane::Dataplane as _;
use carrick_lb::packet::{Packet, TcpFlags};
use carrick_lb::service::{Mode, Policy};
use carrick_tests::balancer::{
    Balancer, Family, Plane, Raw, Site, ask, maglev, server_id, service_name,
};

use crate::rig::{
    StopAtEnd, ask_on, asker, broken, hold, nat, number, place, start, wait_for, web,
};

fn servers_come_and_go(plane: Plane, mode: Mode, policy: Policy) {
    let site = Site::new(4);
    let _servers = start(&site, Family::V4);
    let mut service = web(&site, Family::V4, mode);
    service.policy = policy;
    let later = service.servers.pop().unwrap();
    let mut balancer = Balancer::with(plane, &site.balancer, [service]);
    let web = service_name("web");
    let mut held = hold(&site, 60);
    balancer.change(&[Change::PutServer(web.clone(), later)]);
    assert_eq!(broken(&mut held), 0);
    held.extend(hold(&site, 60));
    assert!(
        held.iter()
            .any(|connection| connection.first.server == "s4")
    );
    balancer.change(&[Change::RemoveServer(web.clone(), server_id("s1"))]);
    // Connections of s1 are no longer its; those of others must be untouched.
    held.retain(|connection| connection.first.server != "s1");
    assert_eq!(broken(&mut held), 0);
    for _ in 0..12 {
        assert_ne!(ask(&site.client, place(Family::V4)).unwrap().server, "s1");
    }
    balancer.change(&[
        Change::SetWeight(web.clone(), server_id("s2"), 7),
        Change::SetWeight(web, server_id("s3"), 0),
    ]);
    assert_eq!(broken(&mut held), 0);
    balancer.remove();
}

on! { Nftables, Tc:
    fn no_connection_of_another_server_breaks_when_servers_come_and_go(plane) {
        for mode in [nat(), Mode::L2] {
            for policy in [Policy::WeightedRoundRobin, maglev()] {
                servers_come_and_go(plane, mode.clone(), policy);
            }
        }
    }
}

on! { Nftables, Tc:
    fn not_a_packet_is_lost_while_tables_change(plane) {
        for mode in [nat(), Mode::L2] {
            let site = Site::new(3);
            let _servers = start(&site, Family::V4);
            let service = web(&site, Family::V4, mode);
            let mut balancer = Balancer::with(plane, &site.balancer, [service]);
            let socket = asker(&site);
            let (asked, stop) = (AtomicU32::new(0), AtomicBool::new(false));
            std::thread::scope(|scope| {
                let at_end = StopAtEnd(&stop);
                let asking = scope.spawn(|| ask_on(&socket, &asked, &stop));
                for weight in 1..=30 {
                    let web = service_name("web");
                    balancer.change(&[Change::SetWeight(web, server_id("s2"), weight)]);
                    let so_far = asked.load(Ordering::Relaxed);
                    wait_for("packets go on", || asked.load(Ordering::Relaxed) > so_far);
                }
                drop(at_end);
                assert_eq!(asking.join().unwrap(), 0);
            });
            balancer.remove();
        }
    }
}

on! { Nftables:
    fn a_control_that_is_gone_is_not_missed_and_its_successor_takes_over(plane) {
        for mode in [nat(), Mode::L2] {
            let site = Site::new(3);
            let _servers = start(&site, Family::V4);
            let service = web(&site, Family::V4, mode);
            let balancer = Balancer::with(plane, &site.balancer, [service.clone()]);
            let mut held = hold(&site, 12);
            let before = balancer.statistics();
            drop(balancer);
            assert_eq!(broken(&mut held), 0);
            held.extend(hold(&site, 3));

            let mut balancer = Balancer::open(plane, &site.balancer);
            assert_eq!(broken(&mut held), 0);
            balancer.replace([service]);
            assert_eq!(broken(&mut held), 0);
            let after = balancer.statistics();
            for (server, counters) in &before.servers {
                let now = after.servers[server];
                assert!(now.total.flows > counters.total.flows, "counters go on");
                assert_eq!(now.live, 5);
            }
            balancer.change(&[Change::RemoveServer(service_name("web"), server_id("s3"))]);
            held.retain(|connection| connection.first.server != "s3");
            assert_eq!(broken(&mut held), 0);
            balancer.remove();
        }
    }
}

on! { Nftables, Tc:
    fn flows_told_by_another_balancer_keep_their_servers(plane) {
        let site = Site::new(4);
        let _servers = start(&site, Family::V4);
        let mut service = web(&site, Family::V4, Mode::L2);
        service.policy = Policy::WeightedRoundRobin;
        let balancer = Balancer::with(plane, &site.balancer, [service.clone()]);
        let mut held = hold(&site, 40);
        let mut flows = Vec::new();
        let show = balancer.control().dataplane();
        show.each_flow(&mut |flow| flows.push(flow)).unwrap();
        assert_eq!(flows.len(), 40);
        // It dies with all it knows. Another one has other servers by now.
        balancer.remove();
        service.servers.retain(|server| server.id != server_id("s4"));
        let mut balancer = Balancer::open(plane, &site.balancer);
        balancer.replace([service]);
        held.retain(|connection| connection.first.server != "s4");
        balancer.insert(&flows);
        assert_eq!(broken(&mut held), 0);
        balancer.remove();
    }
}

on! { Nftables, Tc:
    fn known_flows_live_on_in_a_flood_of_new_ones(plane) {
        for mode in [nat(), Mode::L2] {
            let site = Site::new(2);
            let _servers = start(&site, Family::V4);
            let balancer = Balancer::with(plane, &site.balancer, [web(&site, Family::V4, mode)]);
            let mut held = hold(&site, 10);
            let raw = Raw::open(&site.client);
            for flow in 0..20_000_u32 {
                let source = std::net::Ipv4Addr::from_bits(0xC612_0000 | (flow >> 2));
                let port = 1_024 + u16::try_from(flow % 60_000).unwrap();
                let from = SocketAddr::new(source.into(), port);
                raw.send(&Packet::tcp(from, place(Family::V4), TcpFlags::SYN).encode());
            }
            assert_eq!(broken(&mut held), 0);
            let answer = ask(&site.client, place(Family::V4)).unwrap();
            assert!(number(&answer.server) <= 2);
            balancer.remove();
        }
    }
}
