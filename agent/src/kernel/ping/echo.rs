//! Echo messages of ICMP (RFC 792) and its successor for IPv6 (RFC 4443 §4).

use carrick_types::IpFamily;

/// Tells the pings of one socket apart; 16 bits of sequence number do not reach.
pub(super) type Cookie = u64;

/// Header and cookie.
pub(super) const LEN: usize = 16;

/// The request with `cookie` in its data. The kernel sets the identifier of a
/// datagram socket and all checksums but that of raw ICMP for IPv4.
pub(super) fn request(family: IpFamily, identifier: u16, cookie: Cookie) -> [u8; LEN] {
    let mut message = [0; LEN];
    message[0] = match family {
        IpFamily::V4 => 8,
        IpFamily::V6 => 128,
    };
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    let [.., high, low] = cookie.to_be_bytes();
    message[6..8].copy_from_slice(&[high, low]);
    message[8..].copy_from_slice(&cookie.to_be_bytes());
    if family == IpFamily::V4 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// The cookie of an answer; `None` if the packet is something else.
/// `has_header` says that an IPv4 header stands before it, as on a raw socket.
pub(super) fn answer(family: IpFamily, packet: &[u8], has_header: bool) -> Option<Cookie> {
    let header = match (has_header, family) {
        (true, IpFamily::V4) => usize::from(packet.first()? & 0x0f) * 4,
        _ => 0,
    };
    let message: &[u8; LEN] = packet.get(header..)?.first_chunk()?;
    let kind = match family {
        IpFamily::V4 => 0,
        IpFamily::V6 => 129,
    };
    let cookie: &[u8; 8] = message.last_chunk()?;
    (message[0] == kind).then(|| u64::from_be_bytes(*cookie))
}

/// The Internet checksum (RFC 1071).
fn checksum(message: &[u8; LEN]) -> u16 {
    let words = message.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) as u16).wrapping_add((folded >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_no_answer_and_its_answer_has_its_cookie() {
        for (family, kind) in [(IpFamily::V4, 0), (IpFamily::V6, 129)] {
            let mut message = request(family, 7, 0x0102_0304_0506_0708);
            assert_eq!(answer(family, &message, false), None);
            message[0] = kind;
            assert_eq!(answer(family, &message, false), Some(0x0102_0304_0506_0708));
            assert_eq!(answer(family, &message[..LEN - 1], false), None);
        }
    }

    #[test]
    fn the_header_of_a_raw_packet_is_skipped() {
        let mut message = request(IpFamily::V4, 7, 9);
        message[0] = 0;
        let mut packet = vec![0x46; 24];
        packet.extend(message);
        assert_eq!(answer(IpFamily::V4, &packet, true), Some(9));
        assert_eq!(answer(IpFamily::V4, &[], true), None);
        assert_eq!(answer(IpFamily::V4, &[0x4f; 20], true), None);
    }

    #[test]
    fn the_checksum_of_a_whole_message_is_zero() {
        let message = request(IpFamily::V4, 0xffff, u64::MAX - 5);
        assert_eq!(checksum(&message), 0);
    }
}
