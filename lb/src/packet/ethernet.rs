use super::{Error, array, word};

/// What an Ethernet frame carries (IANA "IEEE 802 Numbers").
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// Ethernet in GRE (RFC 1701).
    pub const BRIDGED: u16 = 0x6558;
    /// A VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// An outer VLAN tag (IEEE 802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// The header of an Ethernet II frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ethernet {
    /// Whom the frame is for: a station, a group, or all (0xff six times).
    pub destination: [u8; 6],
    /// Who sent it.
    pub source: [u8; 6],
    /// Its VLAN tags, outermost first: type and control information.
    pub tags: Vec<(u16, u16)>,
    /// What it carries, see [`ethertype`].
    pub ether_type: u16,
}

impl Ethernet {
    /// Bytes of a header without tags.
    pub const LENGTH: usize = 14;

    /// A header without tags.
    #[must_use]
    pub fn new(destination: [u8; 6], source: [u8; 6], ether_type: u16) -> Self {
        Self {
            destination,
            source,
            tags: Vec::new(),
            ether_type,
        }
    }

    /// The frame with `payload`.
    #[must_use]
    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LENGTH + 4 * self.tags.len() + payload.len());
        bytes.extend(self.destination);
        bytes.extend(self.source);
        for (kind, control) in &self.tags {
            bytes.extend(kind.to_be_bytes());
            bytes.extend(control.to_be_bytes());
        }
        bytes.extend(self.ether_type.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// The header at the beginning of `bytes`, and what follows it.
    ///
    /// # Errors
    ///
    /// The bytes end within it.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        Error::check("Ethernet", bytes, Self::LENGTH)?;
        let mut header = Self {
            destination: array(bytes, 0).unwrap_or_default(),
            source: array(bytes, 6).unwrap_or_default(),
            tags: Vec::new(),
            ether_type: word(bytes, 12),
        };
        let mut rest = &bytes[Self::LENGTH..];
        while matches!(header.ether_type, ethertype::VLAN | ethertype::SERVICE_VLAN) {
            Error::check("VLAN tag", rest, 4)?;
            header.tags.push((header.ether_type, word(rest, 0)));
            header.ether_type = word(rest, 2);
            rest = &rest[4..];
        }
        Ok((header, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_they_were_written() {
        let header = Ethernet {
            tags: vec![(ethertype::SERVICE_VLAN, 7), (ethertype::VLAN, 0x2009)],
            ..Ethernet::new([0xff; 6], [2, 0, 0, 0, 0, 1], ethertype::IPV4)
        };
        let bytes = header.encode(b"payload");
        assert_eq!(Ethernet::decode(&bytes), Ok((header, &b"payload"[..])));
    }

    #[test]
    fn a_frame_that_ends_within_a_tag_is_refused() {
        let header = Ethernet::new([0xff; 6], [0; 6], ethertype::VLAN);
        let error = Ethernet::decode(&header.encode(&[0, 1])).unwrap_err();
        assert_eq!(error.to_string(), "VLAN tag needs 4 bytes, but there are 2");
    }
}
