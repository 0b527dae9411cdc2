//! Answers made here: resets, ICMP errors, echo replies.

use std::net::IpAddr;

use super::forward::ether_type;
use super::parse::{Body, Datagram, array};
use super::rewrite::adjust;
use super::run::Run;
use super::{Outcome, Verdict};
use crate::packet::{Ethernet, Icmp, Ip, Problem, Tcp, TcpFlags, Transport};
use crate::tables::{Kind, Reason, Service, refusal};

/// How much of a packet that is too big is quoted.
const QUOTED: usize = 256;
/// How much of a payload a port unreachable quotes.
const QUOTED_PAYLOAD: usize = 8;

impl Run<'_> {
    /// A packet to a service that has no server.
    pub(super) fn no_server(
        mut self,
        datagram: &Datagram,
        body: &Body,
        kind: Kind,
        service: &Service,
    ) -> Outcome {
        self.count(Reason::NoServer);
        self.refuse(datagram, body, kind, service.on_empty)
    }

    /// Refuses a packet in the way that was asked for.
    pub(super) fn refuse(
        self,
        datagram: &Datagram,
        body: &Body,
        kind: Kind,
        action: u8,
    ) -> Outcome {
        match action {
            refusal::PASS => self.end(Verdict::Pass),
            refusal::DROP => self.drop(Reason::Dropped),
            _ => self.reject(datagram, body, kind),
        }
    }

    fn reject(self, datagram: &Datagram, body: &Body, kind: Kind) -> Outcome {
        let whole = body.part.is_none_or(|part| part.first);
        if !body.plain || !whole {
            return self.drop(Reason::Dropped);
        }
        match kind {
            Kind::Tcp => self.reset(datagram, body),
            Kind::Echo => self.drop(Reason::Dropped),
            _ => self.unreachable(datagram, body),
        }
    }

    /// A RST as RFC 9293 §3.10.7.1 has it for a closed port.
    fn reset(self, datagram: &Datagram, body: &Body) -> Outcome {
        let bytes = &datagram.bytes[body.at..];
        let Some(head) = array::<20>(bytes, 0) else {
            return self.drop(Reason::Internal);
        };
        let flags = TcpFlags(head[13]);
        if flags.contains(TcpFlags::RST) {
            return self.drop(Reason::Dropped);
        }
        let [from, to] = [0, 2].map(|at| u16::from_be_bytes([head[at], head[at + 1]]));
        let [sequence, acknowledgement] = [4, 8].map(|at| long(&head, at));
        let reset = if flags.contains(TcpFlags::ACK) {
            Tcp {
                sequence: acknowledgement,
                ..Tcp::new(to, from, TcpFlags::RST)
            }
        } else {
            // A header that says it is longer than the segment wraps around.
            let header = u32::from(head[12] >> 4) * 4;
            let length = u32::try_from(bytes.len()).expect("a datagram has 16 bits of length");
            let syn = u32::from(flags.contains(TcpFlags::SYN));
            let fin = u32::from(flags.contains(TcpFlags::FIN));
            let next = sequence
                .wrapping_add(length.wrapping_sub(header))
                .wrapping_add(syn + fin);
            Tcp {
                acknowledgement: next,
                ..Tcp::new(to, from, TcpFlags::RST | TcpFlags::ACK)
            }
        };
        let reset = Tcp { window: 0, ..reset };
        self.answer_with(datagram, &Transport::Tcp(reset), &[], Reason::Rejected)
    }

    /// Port unreachable, with the header and 8 bytes.
    fn unreachable(self, datagram: &Datagram, body: &Body) -> Outcome {
        let Some(quoted) = datagram.bytes.get(..body.at + QUOTED_PAYLOAD) else {
            return self.drop(Reason::Dropped);
        };
        let code = if datagram.is_v6() { 4 } else { 3 };
        let error = Transport::Icmp(Icmp::Problem(Problem::Unreachable(code)));
        self.answer_with(datagram, &error, quoted, Reason::Rejected)
    }

    pub(super) fn packet_too_big(self, datagram: &Datagram, mtu: usize) -> Outcome {
        let Some(quoted) = datagram.bytes.get(..QUOTED) else {
            return self.drop(Reason::Malformed);
        };
        let mtu = u32::try_from(mtu).expect("an MTU has 16 bits");
        let error = Transport::Icmp(Icmp::Problem(Problem::TooBig(mtu)));
        self.answer_with(datagram, &error, quoted, Reason::TooBig)
    }

    /// Sends a packet of our own to the sender, from the address it wrote to.
    fn answer_with(
        mut self,
        datagram: &Datagram,
        transport: &Transport,
        payload: &[u8],
        reason: Reason,
    ) -> Outcome {
        let (source, destination) = (datagram.destination, datagram.source);
        let mut ip = Ip::new(source, destination, transport.protocol(source));
        if let Ip::V4(header) = &mut ip {
            header.dont_fragment = true;
        }
        let bytes = ip.encode(&transport.encode(source, destination, payload));
        self.replace(datagram, &bytes, ether_type(datagram));
        self.frame.truncate(Ethernet::LENGTH + bytes.len());
        self.back(reason)
    }

    /// Answers an echo request.
    pub(super) fn echo(mut self, datagram: &Datagram, body: &Body) -> Outcome {
        let mut bytes = datagram.bytes.clone();
        let reply = if datagram.is_v6() { 129 } else { 0 };
        let old = [bytes[body.at], bytes[body.at + 1]];
        bytes[body.at] = reply;
        adjust(&mut bytes, body.at + 2, &old, &[reply, old[1]]);
        turn(&mut bytes, datagram);
        self.replace(datagram, &bytes, ether_type(datagram));
        self.back(Reason::EchoAnswered)
    }
}

/// Exchanges the addresses of a header, and sets TTL and TOS as in a new one.
fn turn(bytes: &mut [u8], datagram: &Datagram) {
    match (datagram.source, datagram.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes[12..16].copy_from_slice(&destination.octets());
            bytes[16..20].copy_from_slice(&source.octets());
            let old = [bytes[0], bytes[1], bytes[8], bytes[9]];
            let new = [bytes[0], 0, 64, bytes[9]];
            (bytes[1], bytes[8]) = (new[1], new[2]);
            adjust(bytes, 10, &old, &new);
        }
        (source, destination) => {
            bytes[8..24].copy_from_slice(&super::rewrite::octets(destination));
            bytes[24..40].copy_from_slice(&super::rewrite::octets(source));
            bytes[..4].copy_from_slice(&[0x60, 0, 0, 0]);
            bytes[7] = 64;
        }
    }
}

fn long(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_be_bytes)
}
