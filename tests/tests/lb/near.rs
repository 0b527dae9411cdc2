//! Clients that are servers, and clients on the balancer itself.

use carrick_lb::service::{Mode, Snat};
use carrick_tests::balancer::{Balancer, Family, Site, ask, ask_udp};

use crate::rig::{nat, place, start, web};

fn proxy(family: Family) -> Mode {
    Mode::Nat {
        snat: Snat::WhenNeeded(vec![family.balancer()]),
    }
}

on! { Nftables, Tc:
    fn a_server_may_be_a_client_of_its_own_service(plane) {
        for family in Family::BOTH {
            let site = Site::new(2);
            let _servers = start(&site, family);
            for server in &site.servers {
                let vip = family.vip();
                // As a client it does not hold the VIP.
                let length = if vip.is_ipv4() { 32 } else { 128 };
                site.ip(server, &format!("address del {vip}/{length} dev lo\n"));
            }
            let service = web(&site, family, proxy(family));
            let balancer = Balancer::with(plane, &site.balancer, [service]);
            for client in &site.servers {
                let mut met = std::collections::BTreeSet::new();
                for _ in 0..4 {
                    let answer = ask(client, place(family)).unwrap();
                    assert_eq!(answer.peer.ip(), family.balancer());
                    met.insert(answer.server);
                    ask_udp(client, place(family), 10).unwrap();
                }
                assert!(!met.is_empty());
            }
            let answer = ask(&site.client, place(family)).unwrap();
            assert_eq!(answer.peer.ip(), family.client(0), "others are seen as they are");
            balancer.remove();
        }
    }
}

on! { Nftables, Tc:
    fn the_balancer_itself_may_be_a_client(plane) {
        for family in Family::BOTH {
            for mode in [nat(), proxy(family)] {
                let site = Site::new(2);
                let _servers = start(&site, family);
                // Something that leads to the VIP, wherever.
                let gateway = family.client(0);
                site.ip(&site.balancer, &format!("route add default via {gateway}\n"));
                let balancer = Balancer::with(plane, &site.balancer, [web(&site, family, mode)]);
                for _ in 0..100 {
                    ask(&site.balancer, place(family)).unwrap();
                }
                ask_udp(&site.balancer, place(family), 10).unwrap();
                balancer.remove();
            }
        }
    }
}
