use std::net::Ipv6Addr;

use super::{Error, array, length, long, protocol, word};

/// An IPv6 header with its extension headers (RFC 8200).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// Differentiated services (6 bits) and congestion (2 bits).
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// How many routers it may pass.
    pub hop_limit: u8,
    /// The sender.
    pub source: Ipv6Addr,
    /// The receiver.
    pub destination: Ipv6Addr,
    /// What stands between this header and the payload.
    pub extensions: Vec<Extension>,
    /// What the payload is, see [`protocol`].
    pub protocol: u8,
}

/// An IPv6 extension header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Destination options (RFC 8200 §4.6): all but the first two bytes, a
    /// multiple of 8 less 2.
    DestinationOptions(Vec<u8>),
    /// A part of a packet (RFC 8200 §4.5).
    Fragment {
        /// Where it begins, in units of 8 bytes; below 8192.
        offset: u16,
        /// Further fragments follow.
        more: bool,
        /// Tells the fragments of one packet from those of others.
        id: u32,
    },
    /// Options for every router (RFC 8200 §4.3), like the destination's.
    HopByHop(Vec<u8>),
    /// A route to take (RFC 8200 §4.4), like options.
    Routing(Vec<u8>),
}

/// An extension header, the number of what is next, and the bytes of that.
type Next<'a> = (Extension, u8, &'a [u8]);

impl Extension {
    /// Options of 6 bytes that mean nothing (one `PadN`).
    #[must_use]
    pub fn padding() -> Vec<u8> {
        vec![1, 4, 0, 0, 0, 0]
    }

    fn number(&self) -> u8 {
        match self {
            Self::DestinationOptions(_) => protocol::DESTINATION_OPTIONS,
            Self::Fragment { .. } => protocol::FRAGMENT,
            Self::HopByHop(_) => protocol::HOP_BY_HOP,
            Self::Routing(_) => protocol::ROUTING,
        }
    }

    fn encode(&self, next: u8, bytes: &mut Vec<u8>) {
        match self {
            Self::DestinationOptions(body) | Self::HopByHop(body) | Self::Routing(body) => {
                assert!(
                    body.len() % 8 == 6,
                    "extension headers come in units of 8 bytes"
                );
                let units = u8::try_from(body.len() / 8).expect("options have at most 256 units");
                bytes.extend([next, units]);
                bytes.extend(body);
            }
            Self::Fragment { offset, more, id } => {
                bytes.extend([next, 0]);
                bytes.extend((offset << 3 | u16::from(*more)).to_be_bytes());
                bytes.extend(id.to_be_bytes());
            }
        }
    }

    /// The header of kind `number` at the beginning of `bytes`, what is next,
    /// and the rest; `None` if `number` is no extension header.
    fn decode(number: u8, bytes: &[u8]) -> Result<Option<Next<'_>>, Error> {
        let kind = match number {
            protocol::DESTINATION_OPTIONS => Self::DestinationOptions,
            protocol::FRAGMENT => return Self::decode_fragment(bytes).map(Some),
            protocol::HOP_BY_HOP => Self::HopByHop,
            protocol::ROUTING => Self::Routing,
            _ => return Ok(None),
        };
        Error::check("IPv6 extension", bytes, 8)?;
        let end = 8 * (usize::from(bytes[1]) + 1);
        Error::check("IPv6 extension", bytes, end)?;
        Ok(Some((
            kind(bytes[2..end].to_vec()),
            bytes[0],
            &bytes[end..],
        )))
    }

    fn decode_fragment(bytes: &[u8]) -> Result<Next<'_>, Error> {
        Error::check("IPv6 fragment", bytes, 8)?;
        let fragment = Self::Fragment {
            offset: word(bytes, 2) >> 3,
            more: bytes[3] & 1 != 0,
            id: long(bytes, 4),
        };
        Ok((fragment, bytes[0], &bytes[8..]))
    }
}

impl Ipv6 {
    /// Bytes of a header without extensions.
    pub const LENGTH: usize = 40;

    /// The header of a whole packet with a hop limit of 64.
    #[must_use]
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8) -> Self {
        Self {
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
            source,
            destination,
            extensions: Vec::new(),
            protocol,
        }
    }

    /// The fragment header: offset in units of 8 bytes, whether more follow.
    #[must_use]
    pub fn fragment(&self) -> Option<(u16, bool)> {
        self.extensions
            .iter()
            .find_map(|extension| match extension {
                Extension::Fragment { offset, more, .. } => Some((*offset, *more)),
                _ => None,
            })
    }

    /// The packet with `payload`.
    ///
    /// # Panics
    ///
    /// Header extensions and payload have more than 65535 bytes.
    #[must_use]
    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        let first = self
            .extensions
            .first()
            .map_or(self.protocol, Extension::number);
        for (at, extension) in self.extensions.iter().enumerate() {
            let next = self
                .extensions
                .get(at + 1)
                .map_or(self.protocol, Extension::number);
            extension.encode(next, &mut body);
        }
        body.extend(payload);
        let class = u32::from(self.traffic_class) << 20;
        let mut bytes = (6 << 28 | class | self.flow_label & 0xf_ffff)
            .to_be_bytes()
            .to_vec();
        bytes.extend(length(body.len()).to_be_bytes());
        bytes.extend([first, self.hop_limit]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(body);
        bytes
    }

    /// The headers at the beginning of `bytes`, and the payload, which ends
    /// where the header says. Behind a fragment header with an offset nothing
    /// is read: it is the middle of something.
    ///
    /// # Errors
    ///
    /// The bytes end too early or are no IPv6.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        Error::check("IPv6", bytes, Self::LENGTH)?;
        let version = bytes[0] >> 4;
        if version != 6 {
            let (layer, field, value) = ("IPv6", "version", version.into());
            return Err(Error::Field {
                layer,
                field,
                value,
                expected: "6",
            });
        }
        let end = Self::LENGTH + usize::from(word(bytes, 4));
        Error::check("IPv6", bytes, end)?;
        let mut header = Self {
            traffic_class: (word(bytes, 0) >> 4).to_be_bytes()[1],
            flow_label: long(bytes, 0) & 0xf_ffff,
            hop_limit: bytes[7],
            source: array::<16>(bytes, 8).unwrap_or_default().into(),
            destination: array::<16>(bytes, 24).unwrap_or_default().into(),
            extensions: Vec::new(),
            protocol: bytes[6],
        };
        let rest = header.decode_extensions(&bytes[Self::LENGTH..end])?;
        Ok((header, rest))
    }

    fn decode_extensions<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], Error> {
        while self.fragment().is_none_or(|(offset, _)| offset == 0) {
            let Some((extension, next, behind)) = Extension::decode(self.protocol, rest)? else {
                break;
            };
            self.extensions.push(extension);
            (self.protocol, rest) = (next, behind);
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Ipv6 {
        let [source, destination] =
            [1, 2].map(|last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
        Ipv6::new(source, destination, protocol::UDP)
    }

    #[test]
    fn a_header_with_extensions_is_read_as_it_was_written() {
        let header = Ipv6 {
            traffic_class: 0xb9,
            flow_label: 0xabcde,
            extensions: vec![
                Extension::HopByHop(Extension::padding()),
                Extension::Routing(vec![4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                Extension::Fragment {
                    offset: 0,
                    more: true,
                    id: 0xdead_beef,
                },
                Extension::DestinationOptions(Extension::padding()),
            ],
            ..header()
        };
        assert_eq!(
            Ipv6::decode(&header.encode(b"data")),
            Ok((header, &b"data"[..]))
        );
    }

    #[test]
    fn the_middle_of_a_packet_is_not_read_as_headers() {
        let header = Ipv6 {
            extensions: vec![Extension::Fragment {
                offset: 100,
                more: true,
                id: 1,
            }],
            protocol: protocol::DESTINATION_OPTIONS,
            ..header()
        };
        assert_eq!(
            Ipv6::decode(&header.encode(b"data")),
            Ok((header, &b"data"[..]))
        );
    }

    #[test]
    fn a_packet_cut_short_is_refused() {
        let header = Ipv6 {
            extensions: vec![Extension::HopByHop(Extension::padding())],
            ..header()
        };
        let bytes = header.encode(b"data");
        for end in 0..bytes.len() {
            assert!(matches!(
                Ipv6::decode(&bytes[..end]),
                Err(Error::Truncated { .. })
            ));
        }
    }
}
