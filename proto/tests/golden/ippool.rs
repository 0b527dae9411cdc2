use carrick_proto::ippool::{
    Empty, Identifier, IpFamily, IpPrefix, IpRange, IpRangesState, PrefixIdentifier,
    RangeIdentifier, Subnet, SubnetRequest, SubnetsState, ip_family,
};

use crate::check;
use crate::wire::Wire;

fn identifier_bytes() -> Wire {
    Wire::new()
        .text(1, "nsm.example.org")
        .text(2, "cluster-1_vl3-0")
        .text(3, "blue")
}

fn identifier() -> Identifier {
    Identifier {
        fqdn: "nsm.example.org".into(),
        name: "cluster-1_vl3-0".into(),
        connectivity_domain: "blue".into(),
    }
}

fn range_identifier_bytes() -> Wire {
    Wire::new().text(1, "nsm.example.org").text(3, "blue")
}

fn range_identifier() -> RangeIdentifier {
    RangeIdentifier {
        fqdn: "nsm.example.org".into(),
        connectivity_domain: "blue".into(),
    }
}

fn prefix_bytes() -> Wire {
    Wire::new()
        .message(1, &Wire::new().number(1, 1))
        .text(2, "fd00:60::/64")
}

fn prefix() -> IpPrefix {
    IpPrefix {
        addr_family: Some(ipv6()),
        subnet: "fd00:60::/64".into(),
    }
}

fn ipv6() -> IpFamily {
    IpFamily {
        family: ip_family::Family::Ipv6.into(),
    }
}

fn subnet_bytes() -> Wire {
    Wire::new()
        .message(1, &identifier_bytes())
        .message(2, &prefix_bytes())
        .number(3, 24)
}

fn subnet() -> Subnet {
    Subnet {
        identifier: Some(identifier()),
        prefix: Some(prefix()),
        lease_timeout: 24,
    }
}

fn range_bytes() -> Wire {
    Wire::new()
        .message(1, &range_identifier_bytes())
        .message(2, &prefix_bytes())
}

fn range() -> IpRange {
    IpRange {
        identifier: Some(range_identifier()),
        prefix: Some(prefix()),
    }
}

#[test]
fn a_subnet_request_keeps_every_field() {
    // IPv4 is 0, which is not sent: the family is an empty message.
    let bytes = Wire::new()
        .message(1, &identifier_bytes())
        .message(2, &Wire::new())
        .number(3, 24);
    let request = SubnetRequest {
        identifier: Some(identifier()),
        addr_family: Some(IpFamily {
            family: ip_family::Family::Ipv4.into(),
        }),
        prefix_len: 24,
    };
    check(&bytes, &request);
}

#[test]
fn a_subnet_keeps_its_holder_and_lease() {
    check(&subnet_bytes(), &subnet());
}

#[test]
fn a_range_is_held_by_a_domain() {
    check(&range_bytes(), &range());
}

#[test]
fn the_state_lists_subnets_and_ranges() {
    let query = Wire::new()
        .message(1, &range_identifier_bytes())
        .message(2, &Wire::new().number(1, 1));
    check(
        &query,
        &PrefixIdentifier {
            identifier: Some(range_identifier()),
            addr_family: Some(ipv6()),
        },
    );
    let twice = Wire::new()
        .message(1, &subnet_bytes())
        .message(1, &subnet_bytes());
    check(
        &twice,
        &SubnetsState {
            subnet: vec![subnet(), subnet()],
        },
    );
    let twice = Wire::new()
        .message(1, &range_bytes())
        .message(1, &range_bytes());
    check(
        &twice,
        &IpRangesState {
            range: vec![range(), range()],
        },
    );
}

#[test]
fn empty_has_no_bytes() {
    check(&Wire::new(), &Empty {});
}
