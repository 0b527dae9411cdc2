//! What the tests have in common.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use carrick_lb::service::{Mode, Service, Snat};
use carrick_tests::balancer::{Family, Server, Site, service, vip};

/// Where servers serve.
pub(crate) const PORT: u16 = 5001;

/// Longest wait for a packet that comes.
pub(crate) const SOON: Duration = Duration::from_secs(3);

/// Wait for a packet that must not come: longer than any that does takes.
pub(crate) const NEVER: Duration = Duration::from_millis(200);

/// NAT that leaves clients' addresses alone.
pub(crate) fn nat() -> Mode {
    Mode::Nat { snat: Snat::Never }
}

/// The VIP's place.
pub(crate) fn place(family: Family) -> SocketAddr {
    SocketAddr::new(family.vip(), PORT)
}

/// A service of all servers of the site for everything to the VIP.
pub(crate) fn web(site: &Site, family: Family, mode: Mode) -> Service {
    let vips = [vip(&family.vip().to_string())];
    Service {
        mode,
        ..service("web", &vips, site.service_servers(family))
    }
}

/// Starts servers `s1`, `s2`, … at the VIP and at their own addresses.
pub(crate) fn start(site: &Site, family: Family) -> Vec<Server> {
    start_at(site, family, &[PORT])
}

/// As [`start`], at these ports.
pub(crate) fn start_at(site: &Site, family: Family, ports: &[u16]) -> Vec<Server> {
    let namespaces = (1..).zip(&site.servers);
    let start = |(number, namespace)| {
        let own = [family.vip(), family.server(number)];
        let places: Vec<_> = own
            .into_iter()
            .flat_map(|address| {
                ports
                    .iter()
                    .map(move |port| SocketAddr::new(address, *port))
            })
            .collect();
        Server::start(namespace, &format!("s{number}"), &places)
    };
    namespaces.map(start).collect()
}

/// The number in a server's name.
pub(crate) fn number(name: &str) -> usize {
    name.trim_start_matches('s').parse().unwrap()
}

/// Waits until it is so.
pub(crate) fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
