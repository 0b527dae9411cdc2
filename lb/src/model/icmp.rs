//! ICMP errors to a VIP: they go to the server of the flow they speak of.

use std::net::IpAddr;

use super::Outcome;
use super::choose::Numbered;
use super::flow::is_idle;
use super::forward::Way;
use super::parse::{Body, Datagram, array};
use super::run::Run;
use super::vip::Vip;
use crate::packet::{Icmp, protocol};
use crate::tables::{Key, Kind, Reason, mode};

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted {
    /// It is no echo request, which only clients send.
    pub(super) from_server: bool,
    /// Its key, as its sender sent it.
    pub(super) key: Key,
    /// Where its header begins in the datagram of the error.
    pub(super) ip: usize,
    /// Where its transport header begins.
    pub(super) at: usize,
}

/// How much of a transport header an error must show.
const SHOWN: usize = 8;

impl Run<'_> {
    /// An ICMP error to a VIP.
    pub(super) fn error(mut self, datagram: &Datagram, body: &Body, vips: &[Vip]) -> Outcome {
        let Some(quoted) = datagram.quoted(body) else {
            return self.drop(Reason::IcmpUnknown);
        };
        let key = turned(&quoted.key);
        let from_server = quoted.from_server && quoted.key.source == datagram.destination;
        let port = Key::split(key.ports).1;
        let rule = self.memory.matching(vips, key.kind, Some(port));
        let Some(rule) = rule.filter(|_| from_server) else {
            return self.drop(Reason::IcmpUnknown);
        };
        let Some(service) = self.memory.service(rule.service) else {
            return self.drop(Reason::Internal);
        };
        let of = Numbered {
            number: rule.service,
            service,
        };
        self.count_vip(rule.vip, datagram.length());
        if service.mode == mode::NAT {
            return self.nat_error(datagram, body, &quoted, &of);
        }
        let Some(server) = self.server_of(&key, &of) else {
            return self.drop(Reason::IcmpUnknown);
        };
        self.count(Reason::IcmpError);
        let hash = key.hash(self.settings.table_seed);
        self.forward(Way {
            datagram,
            body,
            hash,
            dscp: rule.dscp,
            service: &service,
            server,
            error: true,
        })
    }

    /// The server of a flow: the one that is known, else that of its hash.
    fn server_of(&self, key: &Key, of: &Numbered) -> Option<u16> {
        let known = self
            .memory
            .find(key, false, self.slice())
            .filter(|entry| !is_idle(entry.meta, &of.service.idle, self.now))
            .map(|entry| entry.meta.server)
            .filter(|server| self.belongs(*server, of.number));
        let hashed = || (of.service.slots_count != 0).then(|| self.by_hash(&of.service, key));
        known.or_else(hashed).filter(|server| *server != 0)
    }
}

/// The key of packets the other way.
pub(super) fn turned(key: &Key) -> Key {
    Key {
        source: key.destination,
        destination: key.source,
        ports: key.ports.rotate_left(16),
        kind: key.kind,
    }
}

impl Datagram {
    /// The packet that an ICMP error speaks of, as far as it is shown.
    pub(super) fn quoted(&self, body: &Body) -> Option<Quoted> {
        let ip = body.at + Icmp::LENGTH;
        let inner = self.bytes.get(ip..)?;
        let (number, source, destination, header) = if self.is_v6() {
            quoted_6(inner)?
        } else {
            quoted_4(inner)?
        };
        let shown: [u8; SHOWN] = array(inner, header)?;
        let (kind, ports) = self.quoted_ports(number, shown)?;
        let from_server = kind != Kind::Echo || self.is_reply(shown[0]);
        let key = Key {
            source,
            destination,
            ports,
            kind,
        };
        Some(Quoted {
            from_server,
            key,
            ip,
            at: ip + header,
        })
    }

    fn quoted_ports(&self, number: u8, shown: [u8; SHOWN]) -> Option<(Kind, u32)> {
        let [a, b, c, d, id @ ..] = shown;
        let ports = u32::from_le_bytes([a, b, c, d]);
        let id = u32::from(u16::from_le_bytes([id[0], id[1]]));
        match (number, self.is_v6()) {
            (protocol::TCP, _) => Some((Kind::Tcp, ports)),
            (protocol::UDP, _) => Some((Kind::Udp, ports)),
            (protocol::SCTP, _) => Some((Kind::Sctp, ports)),
            (protocol::ICMP, false) | (protocol::ICMPV6, true) if self.is_reply(a) => {
                Some((Kind::Echo, id << 16))
            }
            (protocol::ICMP, false) if a == 8 => Some((Kind::Echo, id)),
            (protocol::ICMPV6, true) if a == 128 => Some((Kind::Echo, id)),
            _ => None,
        }
    }

    /// Whether an ICMP type of this version is that of an echo reply.
    fn is_reply(&self, kind: u8) -> bool {
        kind == if self.is_v6() { 129 } else { 0 }
    }
}

/// Protocol, addresses and header length of a quoted IPv4 packet.
fn quoted_4(inner: &[u8]) -> Option<(u8, IpAddr, IpAddr, usize)> {
    let head: [u8; 20] = array(inner, 0)?;
    let header = usize::from(head[0] & 0xf) * 4;
    let offset = u16::from_be_bytes([head[6], head[7]]) & 0x1fff;
    let source = array::<4>(&head, 12)?.into();
    let destination = array::<4>(&head, 16)?.into();
    let sound = head[0] >> 4 == 4 && header >= 20 && offset == 0;
    sound.then_some((head[9], source, destination, header))
}

/// The same of a quoted IPv6 packet.
fn quoted_6(inner: &[u8]) -> Option<(u8, IpAddr, IpAddr, usize)> {
    let head: [u8; 40] = array(inner, 0)?;
    let source = array::<16>(&head, 8)?.into();
    let destination = array::<16>(&head, 24)?.into();
    (head[0] >> 4 == 6).then_some((head[6], source, destination, 40))
}
