//! Random packets, most of them sound and to a VIP, and such that follow from
//! packets that were there before: answers, repetitions, errors.

use std::net::IpAddr;

use carrick_lb::packet::{
    Ethernet, Extension, Icmp, Ip, Packet, Problem, Sctp, Tcp, TcpFlags, Transport, Udp, protocol,
};
use carrick_lb::tables::Kind;
use proptest::prelude::*;
use proptest::sample::select;

use super::state::{CLIENT_HOSTS, PORTS, SERVER_HOSTS, VIP_HOSTS, address, kind, last};

/// A packet made of nothing but choices.
#[derive(Clone, Debug)]
pub(crate) struct Fresh {
    v6: bool,
    client: u8,
    vip: u8,
    kind: Kind,
    ports: (u16, u16),
    /// TCP flags; the first chunk of SCTP; the type of ICMP.
    word: u8,
    payload: usize,
    header: Header,
    fragment: Option<(u16, bool, u16)>,
    damage: Damage,
}

#[derive(Clone, Debug)]
struct Header {
    tos: u8,
    ttl: u8,
    id: u16,
    dont_fragment: bool,
    /// Words of IPv4 options, headers of IPv6 extensions.
    options: u8,
}

/// What is wrong with a packet.
#[derive(Clone, Debug)]
struct Damage {
    ether_type: Option<u16>,
    bytes: Vec<(prop::sample::Index, u8)>,
    cut: Option<prop::sample::Index>,
    padding: u8,
}

fn header() -> impl Strategy<Value = Header> {
    let options = prop_oneof![8 => Just(0_u8), 1 => 1..7_u8];
    (
        any::<u8>(),
        any::<u8>(),
        any::<u16>(),
        any::<bool>(),
        options,
    )
        .prop_map(|(tos, ttl, id, dont_fragment, options)| Header {
            tos,
            ttl,
            id,
            dont_fragment,
            options,
        })
}

fn damage() -> impl Strategy<Value = Damage> {
    let byte = (any::<prop::sample::Index>(), any::<u8>());
    let bytes = prop_oneof![15 => Just(vec![]), 1 => proptest::collection::vec(byte, 1..3)];
    let cut = prop_oneof![15 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
    let padding = prop_oneof![3 => Just(0_u8), 1 => 1..30_u8];
    let types = select(vec![0x0806_u16, 0x8100, 0x0800, 0x86dd]);
    let ether_type = prop_oneof![40 => Just(None), 1 => types.prop_map(Some)];
    (bytes, cut, padding, ether_type).prop_map(|(bytes, cut, padding, ether_type)| Damage {
        ether_type,
        bytes,
        cut,
        padding,
    })
}

/// Flags of the packets of a connection, and anything else.
pub(crate) fn flags() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(0x02_u8), 3 => Just(0x10), 1 => Just(0x12), 1 => Just(0x11), 1 => Just(0x04), 2 => any::<u8>()]
}

pub(crate) fn fresh() -> impl Strategy<Value = Fresh> {
    let clients =
        prop_oneof![8 => select(CLIENT_HOSTS.to_vec()), 1 => select(SERVER_HOSTS.to_vec())];
    let vips = prop_oneof![12 => select(VIP_HOSTS.to_vec()), 1 => select(CLIENT_HOSTS.to_vec()), 1 => any::<u8>()];
    let port = || prop_oneof![8 => select(PORTS.to_vec()), 1 => any::<u16>()];
    let word = prop_oneof![2 => flags(), 1 => select(vec![0_u8, 1, 6, 7, 14]), 3 => select(vec![8_u8, 128])];
    let payload = prop_oneof![6 => 0..40_usize, 1 => 500..700_usize, 1 => 1100..1500_usize];
    let fragment = prop_oneof![
        5 => Just(None),
        2 => (select(vec![0_u16, 0, 1, 9, 8191]), any::<bool>(), 0..3_u16).prop_map(Some),
    ];
    (
        any::<bool>(),
        clients,
        vips,
        kind(),
        (port(), port()),
        word,
        payload,
        header(),
        fragment,
        damage(),
    )
        .prop_map(
            |(v6, client, vip, kind, ports, word, payload, header, fragment, damage)| Fresh {
                v6,
                client,
                vip,
                kind,
                ports,
                word,
                payload,
                header,
                fragment,
                damage,
            },
        )
}

impl Fresh {
    /// Its frame.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let (source, destination) = (address(self.v6, self.client), address(self.v6, self.vip));
        let transport = self.transport(source);
        let body = transport.encode(source, destination, &vec![0x5a; self.payload]);
        let mut ip = Ip::new(source, destination, transport.protocol(source));
        self.put_header(&mut ip);
        let mut bytes = ip.encode(&body);
        self.damage.put(&mut bytes);
        let ether_type = self.damage.ether_type.unwrap_or(ip.ether_type());
        Ethernet::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], ether_type).encode(&bytes)
    }

    fn transport(&self, source: IpAddr) -> Transport {
        let (from, to) = self.ports;
        match self.kind {
            Kind::Tcp => Transport::Tcp(Tcp {
                sequence: u32::from(from) << 16,
                acknowledgement: u32::from(to) << 16 | 7,
                ..Tcp::new(from, to, TcpFlags(self.word))
            }),
            Kind::Udp => Transport::Udp(Udp {
                checksum: self.word & 2 != 0,
                ..Udp::new(from, to)
            }),
            Kind::Sctp => Transport::Sctp(Sctp::new(from, to, u32::from(self.word) << 24)),
            Kind::Echo => {
                let request = if source.is_ipv6() { 128 } else { 8 };
                let kind = if self.word & 1 == 0 {
                    request
                } else {
                    self.word
                };
                Transport::Icmp(Icmp::Other(kind, 0, u32::from(from) << 16 | 1))
            }
            _ => Transport::Other(if self.word & 1 == 0 {
                protocol::GRE
            } else {
                self.word
            }),
        }
    }

    fn put_header(&self, ip: &mut Ip) {
        let Header {
            tos,
            ttl,
            id,
            dont_fragment,
            options,
        } = self.header;
        match ip {
            Ip::V4(header) => {
                (header.tos, header.ttl, header.id) = (tos, ttl, id);
                header.dont_fragment = dont_fragment;
                header.options = vec![1; 4 * usize::from(options)];
                if let Some((offset, more, id)) = self.fragment {
                    (header.offset, header.more_fragments, header.id) = (offset, more, id);
                }
            }
            Ip::V6(header) => {
                (header.traffic_class, header.hop_limit) = (tos, ttl);
                header.flow_label = u32::from(id);
                for number in 0..options {
                    header.extensions.push(match number % 3 {
                        0 => Extension::HopByHop(Extension::padding()),
                        1 => Extension::DestinationOptions(vec![0; 14]),
                        _ => Extension::Routing(vec![0; 6]),
                    });
                }
                if let Some((offset, more, id)) = self.fragment {
                    let id = u32::from(id);
                    header
                        .extensions
                        .push(Extension::Fragment { offset, more, id });
                }
            }
        }
    }
}

impl Damage {
    fn put(&self, bytes: &mut Vec<u8>) {
        for (at, value) in &self.bytes {
            let at = at.index(bytes.len().min(80));
            // The kernel's FIB knows no way for a link-local or multicast source.
            let prefix = bytes[0] >> 4 == 6 && (8..10).contains(&at);
            if !prefix {
                bytes[at] = *value;
            }
        }
        if let Some(at) = &self.cut {
            bytes.truncate(1 + at.index(bytes.len()));
        }
        bytes.extend(vec![0xee; self.padding.into()]);
    }
}

/// A packet that follows from an earlier frame.
#[derive(Clone, Debug)]
pub(crate) enum Following {
    /// The next of its flow: another one to a VIP, or the answer of its
    /// receiver.
    Next {
        flags: u8,
        fragment: Option<(u16, bool, u16)>,
    },
    /// Somebody complains of it, or of the answer to it.
    Error {
        turned: bool,
        router: bool,
        problem: u8,
        shown: u8,
    },
}

pub(crate) fn following() -> impl Strategy<Value = Following> {
    let part = (select(vec![0_u16, 0, 4]), any::<bool>(), 0..2_u16);
    let fragment = prop_oneof![1 => Just(None), 1 => part.prop_map(Some)];
    let next = (flags(), fragment);
    let shown = prop_oneof![4 => Just(255), 1 => 0..70_u8];
    let error = (any::<bool>(), any::<bool>(), 0..5_u8, shown);
    prop_oneof![
        4 => next.prop_map(|(flags, fragment)| Following::Next { flags, fragment }),
        1 => error.prop_map(|(turned, router, problem, shown)| Following::Error {
            turned,
            router,
            problem,
            shown,
        }),
    ]
}

/// Whether an address is one that VIPs have.
fn is_vip(address: IpAddr) -> bool {
    VIP_HOSTS.contains(&last(address))
}

impl Following {
    /// Its frame; `None` if the earlier one is no whole packet.
    pub(crate) fn frame(&self, earlier: &[u8]) -> Option<Vec<u8>> {
        let (ethernet, bytes) = Ethernet::decode(earlier).ok()?;
        let packet = Packet::decode(bytes).ok()?;
        let packet = match self {
            Self::Next { flags, fragment } if is_vip(packet.ip.destination()) => {
                part(&with_flags(packet, *flags), *fragment)
            }
            Self::Next { flags, fragment } => part(&turned(&packet, *flags)?, *fragment),
            Self::Error {
                turned: turn,
                router,
                problem,
                shown,
            } => {
                let about = if *turn {
                    turned(&packet, 0x10)?
                } else {
                    packet
                };
                error(&about, *router, *problem, *shown)?
            }
        };
        Some(
            Ethernet::new(ethernet.source, ethernet.destination, ether_type(&packet))
                .encode(&packet),
        )
    }
}

fn ether_type(bytes: &[u8]) -> u16 {
    if bytes[0] >> 4 == 6 { 0x86dd } else { 0x0800 }
}

fn with_flags(mut packet: Packet, flags: u8) -> Packet {
    if let Transport::Tcp(header) = &mut packet.transport {
        header.flags = TcpFlags(flags);
    }
    packet
}

/// The answer to a packet.
fn turned(packet: &Packet, flags: u8) -> Option<Packet> {
    let transport = match packet.transport.clone() {
        Transport::Tcp(header) => {
            Transport::Tcp(Tcp::new(header.destination, header.source, TcpFlags(flags)))
        }
        Transport::Udp(header) => Transport::Udp(Udp {
            source: header.destination,
            destination: header.source,
            ..header
        }),
        Transport::Sctp(header) => {
            Transport::Sctp(Sctp::new(header.destination, header.source, header.tag))
        }
        Transport::Icmp(Icmp::Request { id, sequence }) => {
            Transport::Icmp(Icmp::Reply { id, sequence })
        }
        _ => return None,
    };
    let (source, destination) = (packet.ip.destination(), packet.ip.source());
    Some(Packet::new(source, destination, transport).with_payload(&packet.payload))
}

/// A packet as a fragment, perhaps.
fn part(packet: &Packet, fragment: Option<(u16, bool, u16)>) -> Vec<u8> {
    let Some((offset, more, id)) = fragment else {
        return packet.encode();
    };
    let (source, destination) = (packet.ip.source(), packet.ip.destination());
    let body = packet
        .transport
        .encode(source, destination, &packet.payload);
    let mut ip = Ip::new(source, destination, packet.transport.protocol(source));
    match &mut ip {
        Ip::V4(header) => (header.offset, header.more_fragments, header.id) = (offset, more, id),
        Ip::V6(header) => {
            let id = u32::from(id);
            header
                .extensions
                .push(Extension::Fragment { offset, more, id });
        }
    }
    ip.encode(&body)
}

fn error(about: &Packet, router: bool, problem: u8, shown: u8) -> Option<Vec<u8>> {
    let problem = match problem {
        0 => Problem::TooBig(1400),
        1 => Problem::Unreachable(1),
        2 => Problem::TimeExceeded(0),
        3 => Problem::Parameter(0, 4),
        _ => Problem::Unreachable(3),
    };
    let source = if router {
        address(about.ip.source().is_ipv6(), 250)
    } else {
        about.ip.destination()
    };
    let mut error = Packet::problem(source, problem, &about.encode()).ok()?;
    error.payload.truncate(shown.into());
    Some(error.encode())
}

/// A frame for people: its beginning as bytes, and its headers.
pub(crate) fn describe(frame: &[u8]) -> String {
    let shown = frame.iter().take(160).map(|byte| format!("{byte:02x}"));
    let hex = shown.collect::<Vec<_>>().concat();
    let packet = Ethernet::decode(frame)
        .ok()
        .and_then(|(_, bytes)| Packet::decode(bytes).ok());
    let packet = packet.map_or("no sound packet".into(), |packet| {
        format!("{:?} {:?}", packet.ip, packet.transport)
    });
    format!("{} bytes {hex}\n  {packet}", frame.len())
}
