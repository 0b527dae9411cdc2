//! What can be said about a change before anything is done.

use std::net::IpAddr;

use carrick_types::Invalid;

use crate::{Change, End, Link, LinkKind, Netns, Router};

/// Refuses what no backend could do.
///
/// # Errors
///
/// Names the first field that is not right.
pub(crate) fn check(change: &Change) -> Result<(), Invalid> {
    match change {
        Change::DeleteLink { netns, .. } => check_netns("delete_link.netns", netns),
        Change::DeleteRouter { netns } => check_netns("delete_router.netns", netns),
        Change::PutLink(link) => check_link(link).map_err(|e| e.within("link")),
        Change::PutRouter(router) => check_router(router).map_err(|e| e.within("router")),
    }
}

fn check_router(router: &Router) -> Result<(), Invalid> {
    check_netns("netns", &router.netns)?;
    router
        .addresses
        .iter()
        .try_for_each(|address| check_address("addresses", *address))
}

fn check_link(link: &Link) -> Result<(), Invalid> {
    check_end(&link.near).map_err(|e| e.within("near"))?;
    for neighbor in &link.neighbors {
        check_address("neighbors", *neighbor)?;
    }
    match &link.kind {
        LinkKind::Given => Ok(()),
        LinkKind::Veth { far } => {
            check_end(far).map_err(|e| e.within("kind.veth.far"))?;
            check_names(link, &far.netns, far.name.as_str())
        }
        LinkKind::VethOpen { netns, name } => {
            check_netns("kind.veth_open.netns", netns)?;
            check_names(link, netns, name.as_str())
        }
        LinkKind::Vxlan {
            local,
            remote,
            port,
            ..
        } => check_vxlan(*local, *remote, *port),
    }
}

fn check_names(link: &Link, far: &Netns, name: &str) -> Result<(), Invalid> {
    if link.near.netns == *far && link.near.name.as_str() == name {
        return Err(Invalid::new(
            "near.name",
            name,
            "a name other than the far end's in the same namespace",
        ));
    }
    Ok(())
}

fn check_vxlan(local: IpAddr, remote: IpAddr, port: u16) -> Result<(), Invalid> {
    let field = "kind.vxlan.remote";
    if local.is_ipv4() != remote.is_ipv4() {
        return Err(Invalid::new(field, remote, "an address of local's family"));
    }
    if local == remote {
        return Err(Invalid::new(field, remote, "another node's address"));
    }
    if port == 0 {
        return Err(Invalid::new("kind.vxlan.port", port, "a UDP port from 1"));
    }
    check_address("kind.vxlan.local", local)?;
    check_address(field, remote)
}

fn check_end(end: &End) -> Result<(), Invalid> {
    check_netns("netns", &end.netns)?;
    for address in &end.addresses {
        check_address("addresses", address.addr())?;
    }
    for route in &end.routes {
        let is_v4 = route.prefix.network().is_ipv4();
        let others = [route.next_hop, route.source];
        for address in others.into_iter().flatten() {
            if address.is_ipv4() != is_v4 {
                let expected = "an address of the prefix's family";
                return Err(Invalid::new("routes", address, expected));
            }
            check_address("routes", address)?;
        }
    }
    Ok(())
}

fn check_address(field: &str, address: IpAddr) -> Result<(), Invalid> {
    if address.is_unspecified() || address.is_multicast() {
        return Err(Invalid::new(field, address, "a unicast address"));
    }
    Ok(())
}

fn check_netns(field: &str, netns: &Netns) -> Result<(), Invalid> {
    match netns {
        Netns::Named(name) if !is_file_name(name) => Err(Invalid::new(
            field,
            name,
            "a name of 1 to 255 bytes without '/', neither '.' nor '..'",
        )),
        Netns::Path(path) if !path.is_absolute() => {
            Err(Invalid::new(field, path.display(), "an absolute path"))
        }
        _ => Ok(()),
    }
}

fn is_file_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && !name.contains(['/', '\0']) && !matches!(name, "." | "..")
}
