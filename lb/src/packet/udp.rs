use std::net::IpAddr;

use super::{Error, checksum, length, protocol, word};

/// A UDP header (RFC 768).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub destination: u16,
    /// Whether it has a checksum; zero over IPv4 says that it has none.
    pub checksum: bool,
}

impl Udp {
    /// Bytes of the header.
    pub const LENGTH: usize = 8;

    /// A header with a checksum between two ports.
    #[must_use]
    pub fn new(source: u16, destination: u16) -> Self {
        Self {
            source,
            destination,
            checksum: true,
        }
    }

    /// The datagram with `payload`, as it goes between two addresses.
    ///
    /// # Panics
    ///
    /// It is longer than 65535 bytes.
    #[must_use]
    pub fn encode(&self, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LENGTH + payload.len());
        bytes.extend(self.source.to_be_bytes());
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(length(Self::LENGTH + payload.len()).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        if self.checksum {
            let sum = checksum::pseudo(source, destination, protocol::UDP, bytes.len());
            let sum = match checksum::finish(checksum::add(sum, &bytes)) {
                0 => 0xffff,
                sum => sum,
            };
            bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// The header at the beginning of a datagram between two addresses, and
    /// its payload.
    ///
    /// # Errors
    ///
    /// The bytes end too early, the checksum is wrong, or misses over IPv6.
    pub fn decode(
        source: IpAddr,
        destination: IpAddr,
        bytes: &[u8],
    ) -> Result<(Self, &[u8]), Error> {
        Error::check("UDP", bytes, Self::LENGTH)?;
        let end = usize::from(word(bytes, 4));
        Error::check("UDP", bytes, end)?;
        if end < Self::LENGTH {
            return Err(Error::Truncated {
                layer: "UDP",
                need: Self::LENGTH,
                have: end,
            });
        }
        let bytes = &bytes[..end];
        let checksum = word(bytes, 6) != 0;
        let sum = checksum::pseudo(source, destination, protocol::UDP, bytes.len());
        let right = checksum::finish(checksum::add(sum, bytes)) == 0;
        if checksum && !right || !checksum && source.is_ipv6() {
            return Err(Error::Checksum { layer: "UDP" });
        }
        let header = Self {
            source: word(bytes, 0),
            destination: word(bytes, 2),
            checksum,
        };
        Ok((header, &bytes[Self::LENGTH..]))
    }
}
