//! Packets: parsing, building, checksums.
