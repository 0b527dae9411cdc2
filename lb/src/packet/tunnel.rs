//! Encapsulations: IP in IP, GRE, GUE and VXLAN.
//!
//! The outer UDP headers carry no checksum: the inner packet has its own, and
//! RFC 6935 §5 and RFC 7348 §5 allow it over IPv6, too.

use super::{Error, array, ethertype, long, protocol, word};

/// A header between an outer IP packet and the inner one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// GRE with an optional key (RFC 2784, RFC 2890).
    Gre {
        /// The key.
        key: Option<u32>,
    },
    /// The plain form of Generic UDP Encapsulation: IP directly in UDP, told by
    /// its version (variant 1 of the Internet draft `intarea-gue`).
    Gue {
        /// The sender's port.
        source: u16,
        /// The receiver's port; 6080 is GUE's own.
        port: u16,
    },
    /// IP in IP (RFC 2003, RFC 2473).
    Ipip,
    /// VXLAN (RFC 7348): carries Ethernet frames.
    Vxlan {
        /// The sender's port.
        source: u16,
        /// The receiver's port; 4789 is VXLAN's own.
        port: u16,
        /// The virtual network, 24 bits.
        vni: u32,
    },
}

const GRE_KEY: u16 = 0x2000;
const UDP: usize = 8;
const VXLAN: usize = 8;

impl Tunnel {
    /// The outer IP header's protocol, around an inner packet that begins with
    /// `first`.
    #[must_use]
    pub fn protocol(&self, first: u8) -> u8 {
        match self {
            Self::Gre { .. } => protocol::GRE,
            Self::Gue { .. } | Self::Vxlan { .. } => protocol::UDP,
            Self::Ipip if first >> 4 == 6 => protocol::IPV6,
            Self::Ipip => protocol::IPV4,
        }
    }

    /// What stands behind the outer IP header, when `inner` (an IP packet, for
    /// VXLAN a frame) is wrapped.
    #[must_use]
    pub fn encode(&self, inner: &[u8]) -> Vec<u8> {
        let mut bytes = match *self {
            Self::Gre { key } => gre(key, inner),
            Self::Gue { source, port } => udp(source, port, inner.len()),
            Self::Ipip => Vec::new(),
            Self::Vxlan { source, port, vni } => {
                let mut bytes = udp(source, port, VXLAN + inner.len());
                bytes.extend([8, 0, 0, 0]);
                bytes.extend((vni << 8).to_be_bytes());
                bytes
            }
        };
        bytes.extend(inner);
        bytes
    }

    /// The header behind an outer IP header of protocol `number`, and the inner
    /// packet or frame. `vxlan` is the UDP port at which VXLAN comes; any other
    /// UDP is taken for GUE.
    ///
    /// # Errors
    ///
    /// The bytes end too early or are none of these.
    pub fn decode(number: u8, bytes: &[u8], vxlan: u16) -> Result<(Self, &[u8]), Error> {
        match number {
            protocol::IPV4 | protocol::IPV6 => Ok((Self::Ipip, bytes)),
            protocol::GRE => decode_gre(bytes),
            protocol::UDP => decode_udp(bytes, vxlan),
            number => Err(Error::Field {
                layer: "tunnel",
                field: "protocol",
                value: number.into(),
                expected: "4, 17, 41 or 47",
            }),
        }
    }
}

fn gre(key: Option<u32>, inner: &[u8]) -> Vec<u8> {
    let flags = if key.is_some() { GRE_KEY } else { 0 };
    let kind = match inner.first() {
        Some(first) if first >> 4 == 6 => ethertype::IPV6,
        _ => ethertype::IPV4,
    };
    let mut bytes = [flags.to_be_bytes(), kind.to_be_bytes()].concat();
    bytes.extend(key.iter().flat_map(|key| key.to_be_bytes()));
    bytes
}

fn udp(source: u16, port: u16, inner: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(UDP + inner);
    bytes.extend(source.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend(super::length(UDP + inner).to_be_bytes());
    bytes.extend([0, 0]);
    bytes
}

fn decode_gre(bytes: &[u8]) -> Result<(Tunnel, &[u8]), Error> {
    Error::check("GRE", bytes, 4)?;
    let flags = word(bytes, 0);
    if flags & !GRE_KEY != 0 {
        let (layer, field, value) = ("GRE", "flags", flags.into());
        return Err(Error::Field {
            layer,
            field,
            value,
            expected: "0 or 0x2000 (a key)",
        });
    }
    if flags == 0 {
        return Ok((Tunnel::Gre { key: None }, &bytes[4..]));
    }
    Error::check("GRE", bytes, 8)?;
    let key = array(bytes, 4).map(u32::from_be_bytes);
    Ok((Tunnel::Gre { key }, &bytes[8..]))
}

fn decode_udp(bytes: &[u8], vxlan: u16) -> Result<(Tunnel, &[u8]), Error> {
    Error::check("UDP", bytes, UDP)?;
    let (source, port, end) = (word(bytes, 0), word(bytes, 2), usize::from(word(bytes, 4)));
    Error::check("UDP", bytes, end.max(UDP))?;
    let inner = &bytes[UDP..end.max(UDP)];
    if port != vxlan {
        return Ok((Tunnel::Gue { source, port }, inner));
    }
    Error::check("VXLAN", inner, VXLAN)?;
    let vni = long(inner, 4) >> 8;
    Ok((Tunnel::Vxlan { source, port, vni }, &inner[VXLAN..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tunnel_is_read_as_it_was_written() {
        let inner = [0x60, 1, 2, 3, 4];
        let tunnels = [
            (Tunnel::Gre { key: None }, 47),
            (Tunnel::Gre { key: Some(7) }, 47),
            (
                Tunnel::Gue {
                    source: 50_000,
                    port: 6080,
                },
                17,
            ),
            (Tunnel::Ipip, 41),
            (
                Tunnel::Vxlan {
                    source: 50_000,
                    port: 4789,
                    vni: 0x00ab_cdef,
                },
                17,
            ),
        ];
        for (tunnel, number) in tunnels {
            assert_eq!(tunnel.protocol(inner[0]), number);
            let bytes = tunnel.encode(&inner);
            assert_eq!(
                Tunnel::decode(number, &bytes, 4789),
                Ok((tunnel, &inner[..]))
            );
        }
    }

    #[test]
    fn a_gre_packet_with_a_checksum_is_refused() {
        let error = Tunnel::decode(protocol::GRE, &[0x80, 0, 8, 0], 4789).unwrap_err();
        assert_eq!(
            error.to_string(),
            "GRE: flags is 32768, but must be 0 or 0x2000 (a key)"
        );
    }
}
