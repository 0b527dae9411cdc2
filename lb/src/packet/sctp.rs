use super::{Error, checksum, long, word};

/// The common header of SCTP (RFC 9260 §3.1); the chunks are its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sctp {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub destination: u16,
    /// Verification tag; zero in a packet with INIT.
    pub tag: u32,
}

impl Sctp {
    /// Bytes of the common header.
    pub const LENGTH: usize = 12;
    /// Type of a DATA chunk.
    pub const DATA: u8 = 0;
    /// Type of the chunk that opens an association.
    pub const INIT: u8 = 1;
    /// Type of the chunk that aborts an association.
    pub const ABORT: u8 = 6;
    /// Type of the chunk that begins the orderly end of an association.
    pub const SHUTDOWN: u8 = 7;
    /// Type of the last chunk of an association.
    pub const SHUTDOWN_COMPLETE: u8 = 14;

    /// A header between two ports.
    #[must_use]
    pub fn new(source: u16, destination: u16, tag: u32) -> Self {
        Self {
            source,
            destination,
            tag,
        }
    }

    /// A chunk with `value`, padded (RFC 9260 §3.2).
    ///
    /// # Panics
    ///
    /// It is longer than 65535 bytes.
    #[must_use]
    pub fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, flags];
        bytes.extend(super::length(4 + value.len()).to_be_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// The packet with `chunks`.
    #[must_use]
    pub fn encode(&self, chunks: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LENGTH + chunks.len());
        bytes.extend(self.source.to_be_bytes());
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(chunks);
        let sum = checksum::crc32c(&bytes);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The header at the beginning of a packet, and its chunks.
    ///
    /// # Errors
    ///
    /// The bytes end within it or the checksum is wrong.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        Error::check("SCTP", bytes, Self::LENGTH)?;
        let mut blank = bytes.to_vec();
        blank[8..12].fill(0);
        if checksum::crc32c(&blank).to_le_bytes() != bytes[8..12] {
            return Err(Error::Checksum { layer: "SCTP" });
        }
        let header = Self::new(word(bytes, 0), word(bytes, 2), long(bytes, 4));
        Ok((header, &bytes[Self::LENGTH..]))
    }
}
