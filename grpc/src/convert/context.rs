use carrick_proto::connectioncontext as wire;
use carrick_types::{
    Context, DnsConfig, Ethernet, ExtraPrefixRequest, Invalid, IpContext, IpFamily, IpNeighbor,
    Mtu, PolicyRoute, Route,
};
use wire::ip_family::Family;

use super::field::{address, interface, list, map, name, prefix, rename, texts, within};

pub(super) fn context_from_wire(wire: wire::ConnectionContext) -> Result<Context, Invalid> {
    let ip = wire.ip_context.map(ip_from_wire).transpose();
    let dns = wire.dns_context.unwrap_or_default();
    let ethernet = wire.ethernet_context.map(ethernet_from_wire).transpose();
    Ok(Context {
        ip: ip.map_err(|e| within("ip_context", e))?.unwrap_or_default(),
        dns: list("configs", dns.configs, dns_from_wire).map_err(|e| within("dns_context", e))?,
        ethernet: ethernet.map_err(|e| within("ethernet_context", e))?,
        extra: map("extra_context", wire.extra_context)?,
        mtu: mtu(wire.mtu)?,
    })
}

fn ip_from_wire(wire: wire::IpContext) -> Result<IpContext, Invalid> {
    Ok(IpContext {
        src_addrs: list("src_ip_addrs", wire.src_ip_addrs, interface)?,
        dst_addrs: list("dst_ip_addrs", wire.dst_ip_addrs, interface)?,
        src_routes: list("src_routes", wire.src_routes, route_from_wire)?,
        dst_routes: list("dst_routes", wire.dst_routes, route_from_wire)?,
        excluded_prefixes: list("excluded_prefixes", wire.excluded_prefixes, prefix)?,
        neighbors: list("ip_neighbors", wire.ip_neighbors, neighbor_from_wire)?,
        extra_prefix_request: list(
            "extra_prefix_request",
            wire.extra_prefix_request,
            extra_from_wire,
        )?,
        extra_prefixes: list("extra_prefixes", wire.extra_prefixes, prefix)?,
        policies: list("policies", wire.policies, policy_from_wire)?,
    })
}

fn route_from_wire(wire: wire::Route) -> Result<Route, Invalid> {
    let next_hop = (!wire.next_hop.is_empty()).then(|| address(wire.next_hop));
    Ok(Route {
        prefix: prefix(wire.prefix).map_err(rename("prefix"))?,
        next_hop: next_hop.transpose().map_err(rename("nextHop"))?,
    })
}

fn neighbor_from_wire(wire: wire::IpNeighbor) -> Result<IpNeighbor, Invalid> {
    Ok(IpNeighbor {
        ip: address(wire.ip).map_err(rename("ip"))?,
        hardware_address: name("hardware_address", wire.hardware_address)?,
    })
}

fn extra_from_wire(wire: wire::ExtraPrefixRequest) -> Result<ExtraPrefixRequest, Invalid> {
    let family = wire.addr_family.unwrap_or_default().family;
    let family = match Family::try_from(family) {
        Ok(Family::Ipv4) => IpFamily::V4,
        Ok(Family::Ipv6) => IpFamily::V6,
        Err(_) => return Err(Invalid::new("addr_family", family, "0 (IPv4) or 1 (IPv6)")),
    };
    let length = u8::try_from(wire.prefix_len)
        .ok()
        .filter(|length| *length <= family.width());
    let expected = "at most 32 (IPv4) or 128 (IPv6)";
    Ok(ExtraPrefixRequest {
        family,
        prefix_length: length
            .ok_or_else(|| Invalid::new("prefix_len", wire.prefix_len, expected))?,
        required: wire.required_number,
        requested: wire.requested_number,
    })
}

fn policy_from_wire(wire: wire::PolicyRoute) -> Result<PolicyRoute, Invalid> {
    Ok(PolicyRoute {
        from: name("from", wire.from)?,
        proto: name("proto", wire.proto)?,
        dst_port: name("dst_port", wire.dst_port)?,
        src_port: name("src_port", wire.src_port)?,
        routes: list("routes", wire.routes, route_from_wire)?,
    })
}

fn dns_from_wire(wire: wire::DnsConfig) -> Result<DnsConfig, Invalid> {
    Ok(DnsConfig {
        server_ips: list("dns_server_ips", wire.dns_server_ips, address)?,
        search_domains: list("search_domains", wire.search_domains, |text| name("", text))?,
    })
}

fn ethernet_from_wire(wire: wire::EthernetContext) -> Result<Ethernet, Invalid> {
    Ok(Ethernet {
        src_mac: name("src_mac", wire.src_mac)?,
        dst_mac: name("dst_mac", wire.dst_mac)?,
        vlan_tag: wire.vlan_tag,
    })
}

fn mtu(bytes: u32) -> Result<Option<Mtu>, Invalid> {
    (bytes != 0)
        .then(|| Mtu::new(bytes))
        .transpose()
        .map_err(rename("MTU"))
}

/// The IP context is always there: components exist that do not look whether
/// it is.
pub(super) fn context_to_wire(context: &Context) -> wire::ConnectionContext {
    let configs: Vec<_> = context.dns.iter().map(dns_to_wire).collect();
    wire::ConnectionContext {
        ip_context: Some(ip_to_wire(&context.ip)),
        dns_context: (!configs.is_empty()).then_some(wire::DnsContext { configs }),
        ethernet_context: context.ethernet.as_ref().map(ethernet_to_wire),
        extra_context: context.extra.clone(),
        mtu: context.mtu.map_or(0, Mtu::bytes),
    }
}

fn ip_to_wire(ip: &IpContext) -> wire::IpContext {
    wire::IpContext {
        src_ip_addrs: texts(&ip.src_addrs),
        dst_ip_addrs: texts(&ip.dst_addrs),
        src_ip_required: false,
        dst_ip_required: false,
        src_routes: ip.src_routes.iter().map(route_to_wire).collect(),
        dst_routes: ip.dst_routes.iter().map(route_to_wire).collect(),
        excluded_prefixes: texts(&ip.excluded_prefixes),
        ip_neighbors: ip.neighbors.iter().map(neighbor_to_wire).collect(),
        extra_prefix_request: ip.extra_prefix_request.iter().map(extra_to_wire).collect(),
        extra_prefixes: texts(&ip.extra_prefixes),
        policies: ip.policies.iter().map(policy_to_wire).collect(),
    }
}

fn route_to_wire(route: &Route) -> wire::Route {
    wire::Route {
        prefix: route.prefix.to_string(),
        next_hop: route
            .next_hop
            .map(|hop| hop.to_string())
            .unwrap_or_default(),
    }
}

fn neighbor_to_wire(neighbor: &IpNeighbor) -> wire::IpNeighbor {
    wire::IpNeighbor {
        ip: neighbor.ip.to_string(),
        hardware_address: neighbor.hardware_address.clone(),
    }
}

fn extra_to_wire(request: &ExtraPrefixRequest) -> wire::ExtraPrefixRequest {
    let family = match request.family {
        IpFamily::V4 => Family::Ipv4,
        IpFamily::V6 => Family::Ipv6,
    };
    wire::ExtraPrefixRequest {
        addr_family: Some(wire::IpFamily {
            family: family.into(),
        }),
        prefix_len: request.prefix_length.into(),
        required_number: request.required,
        requested_number: request.requested,
    }
}

fn policy_to_wire(policy: &PolicyRoute) -> wire::PolicyRoute {
    wire::PolicyRoute {
        from: policy.from.clone(),
        proto: policy.proto.clone(),
        dst_port: policy.dst_port.clone(),
        src_port: policy.src_port.clone(),
        routes: policy.routes.iter().map(route_to_wire).collect(),
    }
}

fn dns_to_wire(dns: &DnsConfig) -> wire::DnsConfig {
    wire::DnsConfig {
        dns_server_ips: texts(&dns.server_ips),
        search_domains: dns.search_domains.clone(),
    }
}

fn ethernet_to_wire(ethernet: &Ethernet) -> wire::EthernetContext {
    wire::EthernetContext {
        src_mac: ethernet.src_mac.clone(),
        dst_mac: ethernet.dst_mac.clone(),
        vlan_tag: ethernet.vlan_tag,
    }
}
