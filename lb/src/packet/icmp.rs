use std::net::IpAddr;

use super::{Error, checksum, long, protocol, word};

/// The header of an ICMP or `ICMPv6` message; which one follows from the
/// addresses (RFC 792, RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp {
    /// Any other message: type, code, and the second word.
    Other(u8, u8, u32),
    /// Something is wrong with a packet, whose beginning is the payload.
    Problem(Problem),
    /// The answer to a request.
    Reply {
        /// Tells one sender's requests from another's.
        id: u16,
        /// Counts them.
        sequence: u16,
    },
    /// An echo request.
    Request {
        /// Tells one sender's requests from another's.
        id: u16,
        /// Counts them.
        sequence: u16,
    },
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Parameter problem: code and pointer.
    Parameter(u8, u32),
    /// Time exceeded: code.
    TimeExceeded(u8),
    /// The packet is larger than this MTU and may not be split: "fragmentation
    /// needed" (RFC 1191 §4), "packet too big" (RFC 4443 §3.2).
    TooBig(u32),
    /// Destination unreachable: code; for IPv4 not 4, which is [`Problem::TooBig`].
    Unreachable(u8),
}

const REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER: u8 = 12;
const FRAGMENTATION_NEEDED: u8 = 4;

const UNREACHABLE_6: u8 = 1;
const TOO_BIG_6: u8 = 2;
const TIME_EXCEEDED_6: u8 = 3;
const PARAMETER_6: u8 = 4;
const REQUEST_6: u8 = 128;
const REPLY_6: u8 = 129;

impl Icmp {
    /// Bytes of the header.
    pub const LENGTH: usize = 8;

    /// Type, code and second word in version 4.
    fn parts(self) -> (u8, u8, u32) {
        match self {
            Self::Other(kind, code, rest) => (kind, code, rest),
            Self::Problem(Problem::Parameter(code, pointer)) => (PARAMETER, code, pointer << 24),
            Self::Problem(Problem::TimeExceeded(code)) => (TIME_EXCEEDED, code, 0),
            Self::Problem(Problem::TooBig(mtu)) => {
                (UNREACHABLE, FRAGMENTATION_NEEDED, mtu & 0xffff)
            }
            Self::Problem(Problem::Unreachable(code)) => (UNREACHABLE, code, 0),
            Self::Reply { id, sequence } => (REPLY, 0, pair(id, sequence)),
            Self::Request { id, sequence } => (REQUEST, 0, pair(id, sequence)),
        }
    }

    /// Type, code and second word in version 6.
    fn parts_6(self) -> (u8, u8, u32) {
        match self {
            Self::Other(kind, code, rest) => (kind, code, rest),
            Self::Problem(Problem::Parameter(code, pointer)) => (PARAMETER_6, code, pointer),
            Self::Problem(Problem::TimeExceeded(code)) => (TIME_EXCEEDED_6, code, 0),
            Self::Problem(Problem::TooBig(mtu)) => (TOO_BIG_6, 0, mtu),
            Self::Problem(Problem::Unreachable(code)) => (UNREACHABLE_6, code, 0),
            Self::Reply { id, sequence } => (REPLY_6, 0, pair(id, sequence)),
            Self::Request { id, sequence } => (REQUEST_6, 0, pair(id, sequence)),
        }
    }

    fn from_parts(kind: u8, code: u8, rest: u32) -> Self {
        let (id, sequence) = halves(rest);
        match (kind, code) {
            (REPLY, 0) => Self::Reply { id, sequence },
            (REQUEST, 0) => Self::Request { id, sequence },
            (UNREACHABLE, FRAGMENTATION_NEEDED) => Self::Problem(Problem::TooBig(sequence.into())),
            (UNREACHABLE, code) => Self::Problem(Problem::Unreachable(code)),
            (TIME_EXCEEDED, code) => Self::Problem(Problem::TimeExceeded(code)),
            (PARAMETER, code) => Self::Problem(Problem::Parameter(code, rest >> 24)),
            _ => Self::Other(kind, code, rest),
        }
    }

    fn from_parts_6(kind: u8, code: u8, rest: u32) -> Self {
        let (id, sequence) = halves(rest);
        match (kind, code) {
            (REPLY_6, 0) => Self::Reply { id, sequence },
            (REQUEST_6, 0) => Self::Request { id, sequence },
            (UNREACHABLE_6, code) => Self::Problem(Problem::Unreachable(code)),
            (TOO_BIG_6, 0) => Self::Problem(Problem::TooBig(rest)),
            (TIME_EXCEEDED_6, code) => Self::Problem(Problem::TimeExceeded(code)),
            (PARAMETER_6, code) => Self::Problem(Problem::Parameter(code, rest)),
            _ => Self::Other(kind, code, rest),
        }
    }

    /// The message with `payload`, as it goes between two addresses.
    #[must_use]
    pub fn encode(&self, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        let v6 = source.is_ipv6();
        let (kind, code, rest) = if v6 { self.parts_6() } else { self.parts() };
        let mut bytes = vec![kind, code, 0, 0];
        bytes.extend(rest.to_be_bytes());
        bytes.extend(payload);
        let sum = checksum::finish(checksum::add(
            start(source, destination, bytes.len()),
            &bytes,
        ));
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// The header at the beginning of a message between two addresses, and its
    /// payload.
    ///
    /// # Errors
    ///
    /// The bytes end within it or the checksum is wrong.
    pub fn decode(
        source: IpAddr,
        destination: IpAddr,
        bytes: &[u8],
    ) -> Result<(Self, &[u8]), Error> {
        Error::check("ICMP", bytes, Self::LENGTH)?;
        if checksum::finish(checksum::add(
            start(source, destination, bytes.len()),
            bytes,
        )) != 0
        {
            return Err(Error::Checksum { layer: "ICMP" });
        }
        let read = if source.is_ipv6() {
            Self::from_parts_6
        } else {
            Self::from_parts
        };
        Ok((
            read(bytes[0], bytes[1], long(bytes, 4)),
            &bytes[Self::LENGTH..],
        ))
    }
}

/// The sum before the message itself: `ICMPv6` covers a pseudo header.
fn start(source: IpAddr, destination: IpAddr, length: usize) -> u64 {
    if source.is_ipv4() {
        return 0;
    }
    checksum::pseudo(source, destination, protocol::ICMPV6, length)
}

fn pair(upper: u16, lower: u16) -> u32 {
    u32::from(upper) << 16 | u32::from(lower)
}

fn halves(rest: u32) -> (u16, u16) {
    let bytes = rest.to_be_bytes();
    (word(&bytes, 0), word(&bytes, 2))
}
