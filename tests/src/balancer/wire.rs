use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use carrick_lb::packet::{Ip, Packet};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Namespace;

/// IP packets built by hand.
#[derive(Debug)]
pub struct Raw {
    v4: Socket,
    v6: Socket,
}

/// The protocol number of sockets whose packets come with their header.
const RAW: i32 = 255;
/// Every `EtherType`.
const ALL: u16 = 3;

impl Raw {
    /// Opens sockets in `namespace`.
    ///
    /// # Panics
    ///
    /// The process is not root.
    #[must_use]
    pub fn open(namespace: &Namespace) -> Self {
        namespace.within(|| {
            let open = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)));
            Self {
                v4: open(Domain::IPV4).expect("root opens raw sockets"),
                v6: open(Domain::IPV6).expect("root opens raw sockets"),
            }
        })
    }

    /// Sends an encoded IP packet.
    ///
    /// # Panics
    ///
    /// It is none, or there is no route.
    pub fn send(&self, packet: &[u8]) {
        let (ip, _) = Ip::decode(packet).expect("it is an IP packet");
        let socket = match ip {
            Ip::V4(_) => &self.v4,
            Ip::V6(_) => &self.v6,
        };
        let to = SocketAddr::new(ip.destination(), 0);
        let sent = socket.send_to(packet, &to.into());
        sent.expect("there is a route");
    }
}

/// Sees every packet of a namespace that comes or goes.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
}

impl Tap {
    /// Looks from now on.
    ///
    /// # Panics
    ///
    /// The process is not root.
    #[must_use]
    pub fn open(namespace: &Namespace) -> Self {
        let every = Protocol::from(i32::from(ALL.to_be()));
        let socket = namespace.within(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(every)));
        Self {
            socket: socket.expect("root opens packet sockets"),
        }
    }

    /// The next packet to `to` that `wanted` takes, or `None` if none comes within `patience`.
    pub fn next<T>(
        &mut self,
        patience: Duration,
        mut wanted: impl FnMut(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + patience;
        let mut packet = vec![0; 65_536];
        loop {
            let left = end.checked_duration_since(Instant::now())?;
            let left = left.max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).ok()?;
            match self.socket.read(&mut packet) {
                Ok(length) => {
                    if let Some(found) = wanted(&packet[..length]) {
                        return Some(found);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => {}
            }
        }
    }

    /// The next whole packet between these two addresses.
    pub fn packet(&mut self, from: IpAddr, to: IpAddr, patience: Duration) -> Option<Packet> {
        self.next(patience, |bytes| {
            let packet = Packet::decode(bytes).ok()?;
            let ours = packet.ip.source() == from && packet.ip.destination() == to;
            ours.then_some(packet)
        })
    }

    /// Encoded packets between these two addresses that are already there.
    pub fn waiting(&mut self, from: IpAddr, to: IpAddr) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(packet) = self.next(Duration::from_millis(1), |bytes| {
            let (ip, _) = Ip::decode(bytes).ok()?;
            (ip.source() == from && ip.destination() == to).then(|| bytes.to_vec())
        }) {
            all.push(packet);
        }
        all
    }
}
