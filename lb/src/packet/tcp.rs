use std::net::IpAddr;
use std::ops::BitOr;

use super::{Error, checksum, long, protocol, word};

/// The control bits of TCP (RFC 9293 §3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// A connection begins.
    pub const SYN: Self = Self(0x02);
    /// The connection is aborted.
    pub const RST: Self = Self(0x04);
    /// Pass the data on.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);

    /// Whether all of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A TCP header (RFC 9293 §3.1); length and checksum follow from the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Control bits.
    pub flags: TcpFlags,
    /// How much the sender would take.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options, padded to a multiple of 4 bytes; at most 40.
    pub options: Vec<u8>,
}

impl Tcp {
    /// Bytes of a header without options.
    pub const LENGTH: usize = 20;

    /// A header with `flags` between two ports.
    #[must_use]
    pub fn new(source: u16, destination: u16, flags: TcpFlags) -> Self {
        Self {
            source,
            destination,
            flags,
            window: 65_535,
            ..Self::default()
        }
    }

    /// The segment with `payload`, as it goes between two addresses.
    ///
    /// # Panics
    ///
    /// The options are no multiple of 4 bytes or more than 40.
    #[must_use]
    pub fn encode(&self, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        let header = Self::LENGTH + self.options.len();
        assert!(
            header.is_multiple_of(4) && header <= 60,
            "TCP options come in at most ten words"
        );
        let words = u8::try_from(header / 4).expect("a header has at most 15 words");
        let mut bytes = Vec::with_capacity(header + payload.len());
        bytes.extend(self.source.to_be_bytes());
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledgement.to_be_bytes());
        bytes.extend([words << 4, self.flags.0]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.urgent.to_be_bytes());
        bytes.extend(&self.options);
        bytes.extend(payload);
        let sum = checksum::pseudo(source, destination, protocol::TCP, bytes.len());
        let sum = checksum::finish(checksum::add(sum, &bytes));
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// The header at the beginning of a segment between two addresses, and
    /// its payload.
    ///
    /// # Errors
    ///
    /// The bytes end too early or the checksum is wrong.
    pub fn decode(
        source: IpAddr,
        destination: IpAddr,
        bytes: &[u8],
    ) -> Result<(Self, &[u8]), Error> {
        Error::check("TCP", bytes, Self::LENGTH)?;
        let header = usize::from(bytes[12] >> 4) * 4;
        Error::check("TCP", bytes, header.max(Self::LENGTH))?;
        if header < Self::LENGTH {
            return Err(Error::Field {
                layer: "TCP",
                field: "data offset",
                value: (bytes[12] >> 4).into(),
                expected: "5 to 15 words",
            });
        }
        let sum = checksum::pseudo(source, destination, protocol::TCP, bytes.len());
        if checksum::finish(checksum::add(sum, bytes)) != 0 {
            return Err(Error::Checksum { layer: "TCP" });
        }
        let fields = Self {
            source: word(bytes, 0),
            destination: word(bytes, 2),
            sequence: long(bytes, 4),
            acknowledgement: long(bytes, 8),
            flags: TcpFlags(bytes[13]),
            window: word(bytes, 14),
            urgent: word(bytes, 18),
            options: bytes[Self::LENGTH..header].to_vec(),
        };
        Ok((fields, &bytes[header..]))
    }
}
