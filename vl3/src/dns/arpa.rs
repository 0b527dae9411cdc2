use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

/// The address that a reverse name stands for (RFC 1035 §3.5, RFC 3596 §2.5);
/// `None` if the name is none, or of a network only.
pub(crate) fn address_of(name: &Name) -> Option<IpAddr> {
    let labels: Vec<&str> = name
        .iter()
        .map(std::str::from_utf8)
        .collect::<Result<_, _>>()
        .ok()?;
    let (digits, zone) = labels.split_at(labels.len().checked_sub(2)?);
    let is =
        |word: &str| zone[0].eq_ignore_ascii_case(word) && zone[1].eq_ignore_ascii_case("arpa");
    if is("in-addr") {
        v4(digits)
    } else if is("ip6") {
        v6(digits)
    } else {
        None
    }
}

fn v4(octets: &[&str]) -> Option<IpAddr> {
    let octets: Vec<u8> = octets
        .iter()
        .rev()
        .map(|octet| octet.parse())
        .collect::<Result<_, _>>()
        .ok()?;
    <[u8; 4]>::try_from(octets)
        .ok()
        .map(|octets| Ipv4Addr::from(octets).into())
}

fn v6(nibbles: &[&str]) -> Option<IpAddr> {
    let all = nibbles.len() == 32 && nibbles.iter().all(|nibble| nibble.len() == 1);
    let digits: String = nibbles.iter().rev().copied().collect();
    let bits = u128::from_str_radix(&digits, 16).ok().filter(|_| all)?;
    Some(Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reverse_name_is_read_back_as_the_address_it_was_made_of() {
        for text in ["10.0.1.7", "2001:db8::1:7", "::"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(address_of(&Name::from(address)), Some(address), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_whole_reverse_name_is_no_address() {
        for text in [
            ".",
            "arpa.",
            "in-addr.arpa.",
            "1.0.10.in-addr.arpa.",
            "256.0.0.1.in-addr.arpa.",
            "a.vl3.",
        ] {
            assert_eq!(address_of(&Name::from_ascii(text).unwrap()), None, "{text}");
        }
    }
}
