//! What a packet is: its IP header, whether it is a part of a datagram, and
//! what it means to its flow.

use std::net::IpAddr;

use crate::packet::{Ethernet, Sctp, TcpFlags, protocol};
use crate::tables::{Key, Kind};

/// An IP datagram whose fixed header is sound.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    /// Its bytes, without padding behind it.
    pub(super) bytes: Vec<u8>,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// IPv4: protocol; IPv6: next header.
    next: u8,
    /// IPv4: header length; IPv6: 40.
    header: usize,
}

/// Which part of a datagram a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The identification as a packet word.
    pub(super) id: u32,
    /// Whether it is the first, which has the ports.
    pub(super) first: bool,
}

/// A datagram behind its headers.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) protocol: u8,
    /// Where the transport's header begins.
    pub(super) at: usize,
    pub(super) part: Option<Part>,
    /// Neither IPv4 options nor IPv6 extension headers.
    pub(super) plain: bool,
}

/// What a datagram means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An echo reply, whose ports word it is.
    EchoReply(u32),
    /// An ICMP error.
    Error,
    /// A part of a flow.
    Flow(Segment),
    /// Cut short.
    Malformed,
    /// ICMP of another type.
    OtherIcmp,
    /// A non-first fragment of such a flow.
    Rest(Kind),
}

/// What a packet says to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) kind: Kind,
    pub(super) ports: u32,
    /// It opens a connection.
    pub(super) first: bool,
    /// It ends one.
    pub(super) last: bool,
}

impl Segment {
    fn plain(kind: Kind, ports: u32) -> Self {
        Self {
            kind,
            ports,
            first: false,
            last: false,
        }
    }
}

const MAX_EXTENSIONS: usize = 4;
/// How far into a datagram a transport's header is looked for.
const MAX_HEADERS: usize = 0x7ff - Ethernet::LENGTH;

impl Datagram {
    /// The datagram in the payload of an Ethernet frame; `None` if its header
    /// is wrong or cut short.
    pub(super) fn read(v6: bool, bytes: &[u8]) -> Option<Self> {
        if v6 {
            Self::read_6(bytes)
        } else {
            Self::read_4(bytes)
        }
    }

    fn read_4(bytes: &[u8]) -> Option<Self> {
        let fixed: &[u8; 20] = bytes.first_chunk()?;
        let header = usize::from(fixed[0] & 0xf) * 4;
        let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let sound = fixed[0] >> 4 == 4 && header >= 20 && length >= header;
        Some(Self {
            bytes: bytes.get(..length).filter(|_| sound)?.to_vec(),
            source: array::<4>(bytes, 12)?.into(),
            destination: array::<4>(bytes, 16)?.into(),
            next: fixed[9],
            header,
        })
    }

    fn read_6(bytes: &[u8]) -> Option<Self> {
        let fixed: &[u8; 40] = bytes.first_chunk()?;
        let length = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        Some(Self {
            bytes: bytes.get(..length).filter(|_| fixed[0] >> 4 == 6)?.to_vec(),
            source: array::<16>(bytes, 8)?.into(),
            destination: array::<16>(bytes, 24)?.into(),
            next: fixed[6],
            header: 40,
        })
    }

    pub(super) fn is_v6(&self) -> bool {
        self.source.is_ipv6()
    }

    /// Bytes of the datagram.
    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }

    /// TOS or traffic class.
    pub(super) fn tos(&self) -> u8 {
        if self.is_v6() {
            self.bytes[0] << 4 | self.bytes[1] >> 4
        } else {
            self.bytes[1]
        }
    }

    /// What stands behind the headers; `None` if one of them is cut short.
    pub(super) fn body(&self) -> Option<Body> {
        if self.is_v6() {
            self.walk()
        } else {
            Some(self.body_4())
        }
    }

    fn body_4(&self) -> Body {
        let flags = u16::from_be_bytes([self.bytes[6], self.bytes[7]]);
        let id = u16::from_le_bytes([self.bytes[4], self.bytes[5]]);
        let (more, offset) = (flags & 0x2000 != 0, flags & 0x1fff);
        Body {
            protocol: self.next,
            at: self.header,
            part: part(id.into(), more, offset),
            plain: self.header == 20,
        }
    }

    /// Walks the extension headers of IPv6, up to four, and not beyond the
    /// header of a fragment that is not the first.
    fn walk(&self) -> Option<Body> {
        let mut body = Body {
            protocol: self.next,
            at: self.header,
            part: None,
            plain: true,
        };
        for _ in 0..MAX_EXTENSIONS {
            let head: [u8; 8] = match body.protocol {
                protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::DESTINATION_OPTIONS
                | protocol::FRAGMENT => array(&self.bytes, body.at)?,
                _ => break,
            };
            body.plain = false;
            if body.protocol == protocol::FRAGMENT {
                let [_, _, high, low, id @ ..] = head;
                let flags = u16::from_be_bytes([high, low]);
                body.part = part(u32::from_le_bytes(id), flags & 1 != 0, flags >> 3).or(body.part);
                body.at += 8;
            } else {
                body.at += 8 * (usize::from(head[1]) + 1);
            }
            body.protocol = head[0];
            if body.at > self.length() || body.at > MAX_HEADERS {
                return None;
            }
            if body.part.is_some_and(|part| !part.first) {
                break;
            }
        }
        Some(body)
    }

    /// What a datagram with such a body means.
    pub(super) fn meaning(&self, body: &Body) -> Meaning {
        let kind = self.kind(body.protocol);
        if body.part.is_some_and(|part| !part.first) {
            return Meaning::Rest(kind);
        }
        let payload = &self.bytes[body.at..];
        match kind {
            Kind::Tcp => tcp(payload),
            Kind::Udp => udp(payload),
            Kind::Sctp => sctp(payload),
            Kind::Echo => icmp(payload, self.is_v6()),
            _ => Meaning::Flow(Segment::plain(Kind::Other, body.protocol.into())),
        }
    }

    fn kind(&self, number: u8) -> Kind {
        match (number, self.is_v6()) {
            (protocol::TCP, _) => Kind::Tcp,
            (protocol::UDP, _) => Kind::Udp,
            (protocol::SCTP, _) => Kind::Sctp,
            (protocol::ICMP, false) | (protocol::ICMPV6, true) => Kind::Echo,
            _ => Kind::Other,
        }
    }

    /// The key of its flow, of which it carries that ports word.
    pub(super) fn key(&self, kind: Kind, ports: u32) -> Key {
        Key {
            source: self.source,
            destination: self.destination,
            ports,
            kind,
        }
    }

    /// The key under which the server of this datagram's fragments stands.
    pub(super) fn memo(&self, body: &Body, part: Part) -> Key {
        let protocol = if self.is_v6() {
            0
        } else {
            u32::from(body.protocol) << 16
        };
        self.key(Kind::Fragment, part.id | protocol)
    }

    /// The key under which the last server between its addresses stands.
    pub(super) fn hint(&self, body: &Body) -> Key {
        self.key(Kind::Hint, body.protocol.into())
    }
}

/// A fragment is what has others before or behind it.
fn part(id: u32, more: bool, offset: u16) -> Option<Part> {
    (more || offset != 0).then_some(Part {
        id,
        first: offset == 0,
    })
}

fn tcp(payload: &[u8]) -> Meaning {
    let (Some(ports), Some(flags), true) = (ports(payload), payload.get(13), payload.len() >= 20)
    else {
        return Meaning::Malformed;
    };
    let has = |flag| TcpFlags(*flags).contains(flag);
    Meaning::Flow(Segment {
        kind: Kind::Tcp,
        ports,
        first: has(TcpFlags::SYN) && !has(TcpFlags::ACK),
        last: has(TcpFlags::FIN) || has(TcpFlags::RST),
    })
}

fn udp(payload: &[u8]) -> Meaning {
    match ports(payload) {
        Some(ports) if payload.len() >= 8 => Meaning::Flow(Segment::plain(Kind::Udp, ports)),
        _ => Meaning::Malformed,
    }
}

fn sctp(payload: &[u8]) -> Meaning {
    let (Some(ports), Some(chunk), true) = (ports(payload), payload.get(12), payload.len() >= 16)
    else {
        return Meaning::Malformed;
    };
    Meaning::Flow(Segment {
        kind: Kind::Sctp,
        ports,
        first: *chunk == Sctp::INIT,
        last: matches!(
            *chunk,
            Sctp::ABORT | Sctp::SHUTDOWN | Sctp::SHUTDOWN_COMPLETE
        ),
    })
}

fn icmp(payload: &[u8], v6: bool) -> Meaning {
    let Some(head) = array::<8>(payload, 0) else {
        return Meaning::Malformed;
    };
    let id = u32::from(u16::from_le_bytes([head[4], head[5]]));
    match (head[0], v6) {
        (8, false) | (128, true) => Meaning::Flow(Segment::plain(Kind::Echo, id)),
        (0, false) | (129, true) => Meaning::EchoReply(id << 16),
        (3 | 11 | 12, false) | (1..=4, true) => Meaning::Error,
        _ => Meaning::OtherIcmp,
    }
}

/// The first four bytes of a transport header as a packet word.
fn ports(payload: &[u8]) -> Option<u32> {
    array(payload, 0).map(u32::from_le_bytes)
}

pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
