use std::net::IpAddr;

use carrick_types::{IpContext, IpFamily, IpNet, Prefix, Route, host};

use crate::Grant;
use crate::leases::Leased;

/// The endpoint's own address of each family, in the order of its prefixes.
pub(super) fn own_addresses(grants: &[Grant]) -> Vec<IpAddr> {
    let mut own: Vec<IpAddr> = Vec::new();
    for grant in grants {
        let family = grant.prefix.family();
        if own.iter().all(|address| IpFamily::of(*address) != family) {
            own.push(grant.prefix.network());
        }
    }
    own
}

/// What the endpoint says but for the routes to whole networks. `leased` is `None` for a peer, which keeps the
/// addresses it comes with.
pub(super) fn inward(
    ip: &mut IpContext,
    leased: Option<&Leased>,
    grants: &[Grant],
    networks: &[Prefix],
) {
    let own = own_addresses(grants);
    clean(ip, leased, grants, networks, &own);
    if let Some(leased) = leased {
        leased
            .addresses
            .iter()
            .for_each(|address| ip.add_src_addr(IpNet::from(*address)));
        ip.extra_prefixes.clone_from(&leased.extra);
    }
    for address in &own {
        ip.add_dst_addr(IpNet::from(*address));
        let family = IpFamily::of(*address);
        ip.add_src_route(Route::via(host(*address), *address));
        for grant in grants
            .iter()
            .filter(|grant| grant.prefix.family() == family)
        {
            ip.add_src_route(Route::via(grant.prefix, *address));
        }
    }
    let sources: Vec<Prefix> = ip.src_addrs.iter().map(|net| host(net.addr())).collect();
    for prefix in sources.into_iter().chain(ip.extra_prefixes.clone()) {
        if ip.dst_routes.iter().all(|route| route.prefix != prefix) {
            ip.add_dst_route(Route::direct(prefix));
        }
    }
}

/// Adds a route of the client to `prefix` by way of this endpoint.
pub(super) fn route(ip: &mut IpContext, prefix: Prefix, grants: &[Grant]) {
    let own = own_addresses(grants);
    if let Some(own) = own
        .into_iter()
        .find(|own| IpFamily::of(*own) == prefix.family())
    {
        ip.add_src_route(Route::via(prefix, own));
    }
}

/// Takes out what another endpoint, or this one with another prefix, has said:
/// addresses that are not leased, endpoint addresses that are not ours, and
/// the routes that go with them.
fn clean(
    ip: &mut IpContext,
    leased: Option<&Leased>,
    grants: &[Grant],
    networks: &[Prefix],
    own: &[IpAddr],
) {
    let keeps = |address: IpAddr| match leased {
        Some(leased) => leased.addresses.contains(&address),
        // A peer has addresses, but not out of our prefixes: those are leased to clients.
        None => !grants.iter().any(|grant| grant.prefix.contains(address)),
    };
    let (src_kept, src_gone): (Vec<IpNet>, Vec<IpNet>) =
        ip.src_addrs.drain(..).partition(|net| keeps(net.addr()));
    ip.src_addrs = src_kept;
    let (dst_kept, dst_gone): (Vec<IpNet>, Vec<IpNet>) = ip
        .dst_addrs
        .drain(..)
        .partition(|net| own.contains(&net.addr()));
    ip.dst_addrs = dst_kept;

    let holds = |gone: &[IpNet], address: IpAddr| gone.iter().any(|net| net.addr() == address);
    ip.src_routes.retain(|route| {
        let by_us = route.next_hop.is_some_and(|hop| own.contains(&hop));
        let by_other = route.next_hop.is_some_and(|hop| holds(&dst_gone, hop));
        let to_other = route.prefix.length() == route.prefix.width()
            && holds(&dst_gone, route.prefix.network());
        let inside = networks.iter().any(|network| network.covers(route.prefix));
        by_us_still(route, by_us, own, grants, networks)
            && !by_other
            && !to_other
            && (by_us || !inside)
    });
    ip.dst_routes.retain(|route| {
        let to_gone = route.prefix.length() == route.prefix.width()
            && holds(&src_gone, route.prefix.network());
        let by_gone = route.next_hop.is_some_and(|hop| holds(&src_gone, hop));
        let extra = leased.is_some_and(|leased| !leased.extra.contains(&route.prefix))
            && ip.extra_prefixes.contains(&route.prefix);
        !to_gone && !by_gone && !extra
    });
    if let Some(leased) = leased {
        ip.extra_prefixes
            .retain(|prefix| leased.extra.contains(prefix));
    }
}

/// Of the routes that lead by us, those inside our networks are ours to say: a
/// prefix that was given back is not among them any more.
fn by_us_still(
    route: &Route,
    by_us: bool,
    own: &[IpAddr],
    grants: &[Grant],
    networks: &[Prefix],
) -> bool {
    let inside = networks.iter().any(|network| network.covers(route.prefix));
    let said = grants.iter().any(|grant| grant.prefix == route.prefix)
        || networks.contains(&route.prefix)
        || own.iter().any(|own| host(*own) == route.prefix);
    !by_us || !inside || said
}
