//! The Internet checksum (RFC 1071), its update (RFC 1624), and the `CRC32c` of
//! SCTP (RFC 9260 appendix A).

use std::net::IpAddr;

/// Adds `bytes` as big-endian 16-bit words to `sum`; an odd last byte counts as
/// the upper half of a word.
#[must_use]
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(2).fold(sum, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u64::from(u16::from_be_bytes([pair[0], low]))
    })
}

/// Folds the carries of `sum` into 16 bits.
#[must_use]
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The checksum that a header carries for the words of `sum`.
#[must_use]
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// The checksum of `bytes`, whose own field is zero.
#[must_use]
pub fn of(bytes: &[u8]) -> u16 {
    finish(add(0, bytes))
}

/// The sum of the pseudo header of TCP, UDP and `ICMPv6` (RFC 9293 §3.1, RFC 8200
/// §8.1) between addresses of one family.
#[must_use]
pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u64 {
    let sum = octets(source, 0);
    octets(destination, sum)
        + u64::from(protocol)
        + (length as u64 & 0xffff)
        + (length as u64 >> 16)
}

fn octets(address: IpAddr, sum: u64) -> u64 {
    match address {
        IpAddr::V4(address) => add(sum, &address.octets()),
        IpAddr::V6(address) => add(sum, &address.octets()),
    }
}

/// The checksum after `old` became `new` in what it covers (RFC 1624, its
/// equation 3); both have the same, even length and lie at an even offset.
#[must_use]
pub fn update(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let mut sum = u64::from(!checksum);
    for pair in old.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(!u16::from_be_bytes([pair[0], low]));
    }
    finish(add(sum, new))
}

const CRC32C: [u32; 256] = crc32c_table();

const fn crc32c_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "an index is below 256")]
        let mut remainder = index as u32;
        let mut bit = 0;
        while bit < 8 {
            let carry = remainder & 1;
            remainder = (remainder >> 1) ^ (carry * 0x82f6_3b78);
            bit += 1;
        }
        table[index] = remainder;
        index += 1;
    }
    table
}

/// The `CRC32c` of `bytes`; SCTP carries it in little-endian order.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ CRC32C[usize::from(low ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_up() {
        assert_eq!(
            fold(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])),
            0xddf2
        );
    }

    #[test]
    fn the_check_value_of_crc32c_is_met() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn an_odd_byte_counts_as_an_upper_half() {
        assert_eq!(of(&[0x12]), !0x1200);
    }

    proptest! {
        #[test]
        fn an_update_is_always_a_fresh_checksum(
            mut words in proptest::collection::vec(any::<[u8; 2]>(), 2..40),
            at in any::<proptest::sample::Index>(),
            new in any::<[u8; 2]>(),
        ) {
            // A sum of zero has two forms; a header with an address never has it.
            words[0] = [0x45, 0];
            let at = 1 + at.index(words.len() - 1);
            let before = of(words.as_flattened());
            let old = std::mem::replace(&mut words[at], new);
            prop_assert_eq!(update(before, &old, &new), of(words.as_flattened()));
        }
    }
}
