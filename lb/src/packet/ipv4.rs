use std::net::Ipv4Addr;

use super::{Error, array, checksum, length, word};

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

/// An IPv4 header (RFC 791 §3.1); length and checksum follow from the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Differentiated services (6 bits) and congestion (2 bits).
    pub tos: u8,
    /// Tells the fragments of one packet from those of others.
    pub id: u16,
    /// No router may split it.
    pub dont_fragment: bool,
    /// Further fragments follow.
    pub more_fragments: bool,
    /// Where this fragment begins, in units of 8 bytes; below 8192.
    pub offset: u16,
    /// How many routers it may pass.
    pub ttl: u8,
    /// What it carries, see [`protocol`](super::protocol).
    pub protocol: u8,
    /// The sender.
    pub source: Ipv4Addr,
    /// The receiver.
    pub destination: Ipv4Addr,
    /// Options, padded to a multiple of 4 bytes; at most 40.
    pub options: Vec<u8>,
}

impl Ipv4 {
    /// Bytes of a header without options.
    pub const LENGTH: usize = 20;

    /// The header of a whole packet with a TTL of 64 and without options.
    #[must_use]
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Self {
        Self {
            tos: 0,
            id: 0,
            dont_fragment: false,
            more_fragments: false,
            offset: 0,
            ttl: 64,
            protocol,
            source,
            destination,
            options: Vec::new(),
        }
    }

    /// Whether it heads a part of a packet.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.offset != 0
    }

    /// The packet with `payload`.
    ///
    /// # Panics
    ///
    /// It would be longer than 65535 bytes, or its options are no multiple of 4
    /// bytes or more than 40.
    #[must_use]
    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        assert!(
            self.options.len().is_multiple_of(4) && self.options.len() <= 40,
            "IPv4 options come in at most ten words"
        );
        let header = Self::LENGTH + self.options.len();
        let words = u8::try_from(header / 4).expect("a header has at most 15 words");
        let mut bytes = vec![0x40 | words, self.tos];
        bytes.extend(length(header + payload.len()).to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.flags().to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(&self.options);
        let sum = checksum::of(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn flags(&self) -> u16 {
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        (self.offset & 0x1fff)
            | flag(self.dont_fragment, DONT_FRAGMENT)
            | flag(self.more_fragments, MORE_FRAGMENTS)
    }

    /// The header at the beginning of `bytes`, and the payload, which ends
    /// where the header says.
    ///
    /// # Errors
    ///
    /// The bytes end too early, are no IPv4, or the checksum is wrong.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        Error::check("IPv4", bytes, Self::LENGTH)?;
        let header = usize::from(bytes[0] & 0xf) * 4;
        let total = usize::from(word(bytes, 2));
        check_field("version", bytes[0] >> 4, bytes[0] >> 4 == 4, "4")?;
        check_field(
            "header length",
            bytes[0] & 0xf,
            header >= Self::LENGTH,
            "5 to 15 words",
        )?;
        Error::check("IPv4", bytes, header.max(total))?;
        if total < header {
            return Err(Error::Truncated {
                layer: "IPv4",
                need: header,
                have: total,
            });
        }
        if checksum::of(&bytes[..header]) != 0 {
            return Err(Error::Checksum { layer: "IPv4" });
        }
        Ok((Self::fields(&bytes[..header]), &bytes[header..total]))
    }

    /// The fields of a header that was checked.
    fn fields(bytes: &[u8]) -> Self {
        let flags = word(bytes, 6);
        Self {
            tos: bytes[1],
            id: word(bytes, 4),
            dont_fragment: flags & DONT_FRAGMENT != 0,
            more_fragments: flags & MORE_FRAGMENTS != 0,
            offset: flags & 0x1fff,
            ttl: bytes[8],
            protocol: bytes[9],
            source: array::<4>(bytes, 12).unwrap_or_default().into(),
            destination: array::<4>(bytes, 16).unwrap_or_default().into(),
            options: bytes[Self::LENGTH..].to_vec(),
        }
    }
}

fn check_field(
    field: &'static str,
    value: u8,
    right: bool,
    expected: &'static str,
) -> Result<(), Error> {
    if right {
        return Ok(());
    }
    Err(Error::Field {
        layer: "IPv4",
        field,
        value: value.into(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::protocol;

    fn header() -> Ipv4 {
        Ipv4::new(
            Ipv4Addr::new(172, 16, 10, 99),
            Ipv4Addr::new(172, 16, 10, 12),
            protocol::UDP,
        )
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Ipv4 {
            tos: 0xb8,
            id: 0x1c46,
            dont_fragment: true,
            offset: 185,
            options: vec![7, 7, 4, 0, 0, 0, 0, 0],
            ..header()
        };
        assert_eq!(
            Ipv4::decode(&header.encode(b"data")),
            Ok((header, &b"data"[..]))
        );
    }

    #[test]
    fn padding_behind_the_packet_is_not_payload() {
        let mut bytes = header().encode(b"data");
        bytes.extend([0; 22]);
        assert_eq!(Ipv4::decode(&bytes).unwrap().1, b"data");
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut bytes = header().encode(b"data");
        bytes[15] ^= 1;
        assert_eq!(Ipv4::decode(&bytes), Err(Error::Checksum { layer: "IPv4" }));
    }

    #[test]
    fn a_packet_cut_short_is_refused() {
        let bytes = header().encode(b"data");
        for end in 0..bytes.len() {
            assert!(matches!(
                Ipv4::decode(&bytes[..end]),
                Err(Error::Truncated { .. })
            ));
        }
    }
}
