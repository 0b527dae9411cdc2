//! What the tests have in common.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use carrick_lb::service::{Mode, Service, Snat};
use carrick_tests::balancer::{Family, Held, Server, Site, service, vip};

/// Where servers serve.
pub(crate) const PORT: u16 = 5001;

/// Longest wait for a packet that comes, on a machine with much else to do.
pub(crate) const SOON: Duration = Duration::from_secs(10);

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

/// That many connections to the VIP.
pub(crate) fn hold(site: &Site, count: usize) -> Vec<Held> {
    let open = |_| Held::open(&site.client, None, place(Family::V4)).unwrap();
    (0..count).map(open).collect()
}

/// Asks again on every connection; gives the number of those that are broken
/// or at another server.
pub(crate) fn broken(held: &mut [Held]) -> usize {
    let broken = |connection: &mut Held| {
        let first = connection.first.clone();
        connection.again().ok() != Some(first)
    };
    held.iter_mut()
        .filter_map(|c| broken(c).then_some(()))
        .count()
}

/// A socket that asks the VIP.
pub(crate) fn asker(site: &Site) -> UdpSocket {
    let from = SocketAddr::new(Family::V4.client(0), 0);
    let socket = site.client.within(|| UdpSocket::bind(from).unwrap());
    socket.connect(place(Family::V4)).unwrap();
    let patience = Duration::from_secs(1);
    socket.set_read_timeout(Some(patience)).unwrap();
    socket
}

/// Sends datagrams one after the other, each after the answer to the last, until
/// told to stop; gives how many were not answered.
pub(crate) fn ask_on(socket: &UdpSocket, asked: &AtomicU32, stop: &AtomicBool) -> u32 {
    let mut lost = 0;
    let mut answer = [0; 200];
    while !stop.load(Ordering::Relaxed) {
        socket.send(b"are you there?").unwrap();
        lost += u32::from(socket.recv(&mut answer).is_err());
        asked.fetch_add(1, Ordering::Relaxed);
    }
    lost
}

/// Lets time pass that is itself what the test is about.
pub(crate) fn wait_until(end: Instant) {
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left.max(Duration::from_millis(1)));
    }
}

/// Stops those who ask, also when the test fails: they would ask for ever.
pub(crate) struct StopAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
