//! To the server: rewriting and encapsulation by mode.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::parse::{Body, Datagram};
use super::run::Run;
use super::{Hop, Outcome, Verdict};
use crate::packet::tunnel::Tunnel;
use crate::packet::{Ethernet, Ipv4, Ipv6, ethertype};
use crate::tables::{Reason, SERVER_HAS_KEY, SERVER_V6, Server, Service, mode};

/// A packet whose server is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    pub(super) datagram: &'a Datagram,
    pub(super) body: &'a Body,
    /// Its key's hash with the table's seed.
    pub(super) hash: u64,
    pub(super) dscp: u8,
    pub(super) service: &'a Service,
    pub(super) server: u16,
    /// It is an ICMP error.
    pub(super) error: bool,
}

impl Server {
    /// Its address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        if self.flags & SERVER_V6 != 0 {
            return Ipv6Addr::from(self.address).into();
        }
        let [a, b, c, d, ..] = self.address;
        Ipv4Addr::new(a, b, c, d).into()
    }

    /// The next hop that control knows, if it knows one.
    fn hop(&self) -> Option<Hop> {
        (self.ifindex != 0).then_some(Hop {
            interface: self.ifindex,
            destination: self.hop_mac,
            source: self.hop_source,
        })
    }
}

impl Run<'_> {
    /// Sends the packet to a server in any mode but NAT.
    pub(super) fn forward(mut self, way: Way<'_>) -> Outcome {
        let Some(server) = self.memory.server_in_use(way.server) else {
            return self.drop(Reason::Internal);
        };
        self.count_server(way.server, way.datagram.length());
        match way.service.mode {
            mode::L2 => self.out(&server, server.ip()),
            mode::L3DSR => self.dsr(way, &server),
            _ => self.encapsulate(way, &server),
        }
    }

    /// Sends the frame as it is to the server's next hop.
    pub(super) fn out(self, server: &Server, towards: IpAddr) -> Outcome {
        let hop = server.hop().or_else(|| self.fib(towards));
        self.send(hop)
    }

    /// Replaces the destination, and the DSCP by that of the VIP.
    fn dsr(mut self, way: Way<'_>, server: &Server) -> Outcome {
        if server.ip().is_ipv4() == way.datagram.is_v6() {
            return self.drop(Reason::Internal);
        }
        let mut bytes = way.datagram.with_destination(way.body, server.ip());
        let tos = way.dscp << 2 | way.datagram.tos() & 3;
        set_tos(&mut bytes, way.datagram.is_v6(), tos);
        self.replace(way.datagram, &bytes, ether_type(way.datagram));
        self.out(server, server.ip())
    }

    fn encapsulate(mut self, way: Way<'_>, server: &Server) -> Outcome {
        let tunnel = tunnel(&way, server);
        let overhead = overhead(&tunnel, server);
        let length = way.datagram.length() + overhead;
        let too_big = server.mtu != 0 && length > server.mtu.into();
        if too_big && !may_be_split(&way) {
            return self.packet_too_big(
                way.datagram,
                usize::from(server.mtu).saturating_sub(overhead),
            );
        }
        let outer = self.outer(&way, &tunnel, server);
        let kind = if server.ip().is_ipv4() {
            ethertype::IPV4
        } else {
            ethertype::IPV6
        };
        self.replace(way.datagram, &outer, kind);
        if too_big {
            return self.pass(Reason::TooBigPassed);
        }
        self.out(server, server.ip())
    }

    /// The outer datagram.
    fn outer(&self, way: &Way<'_>, tunnel: &Tunnel, server: &Server) -> Vec<u8> {
        let datagram = way.datagram;
        let inner = self.inner(datagram, tunnel, server);
        let protocol = tunnel.protocol(datagram.bytes[0]);
        let behind = tunnel.encode(&inner);
        match server.ip() {
            IpAddr::V4(address) => {
                let (id, dont_fragment) = fragmentation(datagram);
                let tos = datagram.tos();
                let header = Ipv4::new(self.settings.source4.into(), address, protocol);
                Ipv4 {
                    tos,
                    id,
                    dont_fragment,
                    ..header
                }
                .encode(&behind)
            }
            IpAddr::V6(address) => {
                let header = Ipv6::new(self.settings.source6.into(), address, protocol);
                let traffic_class = datagram.tos();
                let flow_label = u32::try_from(way.hash & 0xf_ffff).expect("20 bits");
                Ipv6 {
                    traffic_class,
                    flow_label,
                    ..header
                }
                .encode(&behind)
            }
        }
    }

    /// What a tunnel carries: the datagram, for VXLAN in a frame.
    fn inner(&self, datagram: &Datagram, tunnel: &Tunnel, server: &Server) -> Vec<u8> {
        match tunnel {
            Tunnel::Vxlan { .. } => {
                Ethernet::new(server.mac, self.settings.mac, ether_type(datagram))
                    .encode(&datagram.bytes)
            }
            _ => datagram.bytes.clone(),
        }
    }

    /// Sends the frame back out of the interface it came in by.
    pub(super) fn back(mut self, reason: Reason) -> Outcome {
        self.count(reason);
        let (destination, source) = self.frame[..12].split_at_mut(6);
        destination.swap_with_slice(source);
        let interface = self.arrival.interface;
        self.end(Verdict::Out(interface))
    }
}

pub(super) fn ether_type(datagram: &Datagram) -> u16 {
    if datagram.is_v6() {
        ethertype::IPV6
    } else {
        ethertype::IPV4
    }
}

fn tunnel(way: &Way<'_>, server: &Server) -> Tunnel {
    let source = 0xc000 | u16::try_from(way.hash & 0x3fff).expect("14 bits");
    let port = way.service.port;
    match way.service.mode {
        mode::GRE => Tunnel::Gre {
            key: (server.flags & SERVER_HAS_KEY != 0).then_some(server.key),
        },
        mode::GUE => Tunnel::Gue { source, port },
        mode::VXLAN => Tunnel::Vxlan {
            source,
            port,
            vni: server.key & 0xff_ffff,
        },
        _ => Tunnel::Ipip,
    }
}

/// Bytes that a tunnel adds to a datagram.
fn overhead(tunnel: &Tunnel, server: &Server) -> usize {
    let outer = if server.ip().is_ipv4() {
        Ipv4::LENGTH
    } else {
        Ipv6::LENGTH
    };
    outer
        + match tunnel {
            Tunnel::Gre { key: None } => 4,
            Tunnel::Gre { key: Some(_) } | Tunnel::Gue { .. } => 8,
            Tunnel::Ipip => 0,
            Tunnel::Vxlan { .. } => 8 + 8 + Ethernet::LENGTH,
        }
}

/// Whether the kernel may split the outer packet, or nobody would hear a
/// packet-too-big.
fn may_be_split(way: &Way<'_>) -> bool {
    let (_, dont_fragment) = fragmentation(way.datagram);
    way.error || way.body.part.is_some() || !dont_fragment
}

/// Identification and DF of an IPv4 datagram; IPv6 is never split on its way.
fn fragmentation(datagram: &Datagram) -> (u16, bool) {
    if datagram.is_v6() {
        return (0, true);
    }
    let [high, low] = [datagram.bytes[4], datagram.bytes[5]];
    (
        u16::from_be_bytes([high, low]),
        datagram.bytes[6] & 0x40 != 0,
    )
}

/// Writes the TOS or traffic class, and adjusts the IPv4 header's checksum.
fn set_tos(bytes: &mut [u8], v6: bool, tos: u8) {
    if v6 {
        bytes[0] = bytes[0] & 0xf0 | tos >> 4;
        bytes[1] = bytes[1] & 0x0f | tos << 4;
    } else {
        let new = [bytes[0], tos];
        super::rewrite::put(bytes, Some(10), 0, &new);
    }
}
