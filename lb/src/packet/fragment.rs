use super::{Error, Extension, Ip, Ipv4, Ipv6};

/// Splits an encoded IP packet into fragments that fit `mtu` bytes, in order;
/// a packet that fits stays whole. IPv4 keeps the packet's own id, IPv6 takes
/// `id` (RFC 791 §2.3, RFC 8200 §4.5).
///
/// # Errors
///
/// `bytes` is no IP packet.
///
/// # Panics
///
/// `mtu` has no room for 8 bytes behind the header.
pub fn fragments(bytes: &[u8], mtu: usize, id: u32) -> Result<Vec<Vec<u8>>, Error> {
    if bytes.len() <= mtu {
        return Ok(vec![bytes.to_vec()]);
    }
    let (ip, payload) = Ip::decode(bytes)?;
    let header = match &ip {
        Ip::V4(header) => Ipv4::LENGTH + header.options.len(),
        Ip::V6(_) => bytes.len() - payload.len() + 8,
    };
    assert!(
        mtu >= header + 8,
        "an MTU of {mtu} bytes has no room for a fragment"
    );
    let step = (mtu - header) / 8 * 8;
    let last = (payload.len() - 1) / step;
    let part = |(at, part): (usize, &[u8])| {
        let offset = u16::try_from(at * step / 8).expect("a packet has at most 65535 bytes");
        match &ip {
            Ip::V4(header) => part_of(header, offset, at < last, part),
            Ip::V6(header) => part_of_6(header, offset, at < last, id, part),
        }
    };
    Ok(payload.chunks(step).enumerate().map(part).collect())
}

fn part_of(header: &Ipv4, offset: u16, more: bool, part: &[u8]) -> Vec<u8> {
    let header = Ipv4 {
        offset: header.offset + offset,
        more_fragments: header.more_fragments || more,
        ..header.clone()
    };
    header.encode(part)
}

fn part_of_6(header: &Ipv6, offset: u16, more: bool, id: u32, part: &[u8]) -> Vec<u8> {
    let mut header = header.clone();
    header
        .extensions
        .push(Extension::Fragment { offset, more, id });
    header.encode(part)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::packet::Packet;

    fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut payload = Vec::new();
        for part in parts {
            let (ip, bytes) = Ip::decode(part).unwrap();
            let offset = match ip {
                Ip::V4(header) => header.offset,
                Ip::V6(header) => header.fragment().unwrap().0,
            };
            assert_eq!(usize::from(offset) * 8, payload.len());
            payload.extend(bytes);
        }
        payload
    }

    #[test]
    fn the_parts_make_the_whole() {
        for (from, to) in [
            ("10.0.0.1:1", "10.0.0.2:2"),
            ("[2001:db8::1]:1", "[2001:db8::2]:2"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let whole = Packet::udp(from, to)
                .with_payload(&[5; 3000])
                .with_id(9)
                .encode();
            let parts = fragments(&whole, 1280, 9).unwrap();
            assert_eq!(parts.len(), 3);
            assert!(parts.iter().all(|part| part.len() <= 1280));
            assert!(
                parts
                    .iter()
                    .all(|part| Ip::decode(part).unwrap().0.is_fragment())
            );
            let (_, payload) = Ip::decode(&whole).unwrap();
            assert_eq!(joined(&parts), payload);
        }
    }

    #[test]
    fn what_fits_stays_whole() {
        let [from, to] =
            ["10.0.0.1:1", "10.0.0.2:2"].map(|text| text.parse::<SocketAddr>().unwrap());
        let whole = Packet::udp(from, to).encode();
        assert_eq!(fragments(&whole, 28, 0), Ok(vec![whole]));
    }
}
