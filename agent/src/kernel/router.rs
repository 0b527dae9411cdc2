//! Routers: the namespace, its settings, its own addresses.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use super::batch::{Done, make};
use super::netns::Namespaces;
use super::settle::settle;
use super::state::{LOOPBACK, RouterState};
use super::step::Step;
use crate::{Error, Netns, Router};

/// Makes a router as it shall be and writes down what was done.
pub(super) fn put_router(
    namespaces: &mut Namespaces,
    router: &Router,
    journal: &mut Vec<Done>,
) -> Result<(), Error> {
    let netns = &router.netns;
    if let Netns::Named(name) = netns
        && namespaces.make(name)?
    {
        journal.push(Done::MadeNetns { name: name.clone() });
    }
    configure(namespaces, router)?;
    let up = Step::Up {
        index: LOOPBACK,
        up: true,
    };
    make(namespaces, netns, &[up])?;
    let was = observe(namespaces, netns)?;
    let wanted = RouterState::new(router);
    if was != wanted {
        journal.push(Done::ChangedRouter {
            netns: netns.clone(),
            was,
        });
        converge(namespaces, netns, &wanted)?;
    }
    Ok(())
}

/// Takes a router away; of the agent's own namespace only what it had added.
pub(super) fn delete_router(namespaces: &mut Namespaces, netns: &Netns) -> Result<(), Error> {
    if let Netns::Named(name) = netns {
        return namespaces.remove(name);
    }
    if namespaces.find(netns)?.is_none() {
        return Ok(());
    }
    converge(namespaces, netns, &RouterState::default())
}

/// Gives a router's own state the wanted form. The second round puts back what
/// the kernel took along with an address.
pub(super) fn converge(
    namespaces: &mut Namespaces,
    netns: &Netns,
    wanted: &RouterState,
) -> Result<(), Error> {
    for _ in 0..2 {
        let steps = observe(namespaces, netns)?.steps(wanted);
        if steps.is_empty() {
            break;
        }
        make(namespaces, netns, &steps)?;
    }
    settle(namespaces, netns, LOOPBACK)
}

fn observe(namespaces: &mut Namespaces, netns: &Netns) -> Result<RouterState, Error> {
    let is_ours_alone = matches!(netns, Netns::Named(_));
    let handle = namespaces.enter(netns)?;
    handle
        .socket
        .router(is_ours_alone)
        .map_err(Error::kernel(format!("read the addresses in {netns}")))
}

fn configure(namespaces: &mut Namespaces, router: &Router) -> Result<(), Error> {
    let netns = &router.netns;
    let needs_v6 = router.addresses.iter().any(IpAddr::is_ipv6)
        || router
            .unreachable
            .iter()
            .any(|prefix| prefix.network().is_ipv6());
    let settings = match netns {
        Netns::Named(_) => NAMED,
        _ if needs_v6 => FORWARDING,
        _ => &FORWARDING[..1],
    };
    let handle = namespaces.enter(netns)?;
    handle
        .within(|| settings.iter().try_for_each(Setting::put))
        .map_err(Error::kernel(format!("enter {netns}")))?
        .map_err(|(setting, source)| Error::Kernel {
            step: format!("set {} to {:?} in {netns}", setting.name, setting.value),
            source,
        })
}

/// A kernel setting of a namespace.
struct Setting {
    /// Below `/proc/sys/net`.
    name: &'static str,
    value: &'static str,
    /// Whether a kernel without it will do.
    optional: bool,
}

const fn must(name: &'static str, value: &'static str) -> Setting {
    Setting {
        name,
        value,
        optional: false,
    }
}

const fn may(name: &'static str, value: &'static str) -> Setting {
    Setting {
        name,
        value,
        optional: true,
    }
}

/// What every router needs. For IPv6 in the agent's own namespace it is set
/// only where asked for, since a forwarding host no longer listens to router
/// advertisements.
const FORWARDING: &[Setting] = &[
    must("ipv4/ip_forward", "1"),
    may("ipv6/conf/all/forwarding", "1"),
];

/// A namespace of the agent's: set before there are devices, which take the
/// `default` values when they are made.
const NAMED: &[Setting] = &[
    must("ipv4/ip_forward", "1"),
    may("ipv6/conf/all/forwarding", "1"),
    may("ipv6/conf/default/forwarding", "1"),
    // Packets of a client may come in by another link than the one that its
    // address is routed to, while it moves from one to the other.
    must("ipv4/conf/all/rp_filter", "0"),
    must("ipv4/conf/default/rp_filter", "0"),
    // A router with one device to many destinations is what it shall be.
    may("ipv4/conf/all/send_redirects", "0"),
    may("ipv4/conf/default/send_redirects", "0"),
    may("ipv4/conf/all/accept_redirects", "0"),
    may("ipv4/conf/default/accept_redirects", "0"),
    // All addresses are given by the agent.
    may("ipv6/conf/all/accept_ra", "0"),
    may("ipv6/conf/default/accept_ra", "0"),
    may("ipv6/conf/default/accept_dad", "0"),
    may("ipv6/conf/default/addr_gen_mode", "1"),
    may("ipv6/conf/default/router_solicitations", "0"),
    // Pings and low ports without capabilities: the namespace has no other users.
    may("ipv4/ping_group_range", "0 2147483647"),
    may("ipv4/ip_unprivileged_port_start", "0"),
];

impl Setting {
    /// Writes the value in the calling thread's namespace, unless it is there.
    fn put(&self) -> Result<(), (&Self, io::Error)> {
        let path = PathBuf::from("/proc/sys/net").join(self.name);
        let result = match fs::read_to_string(&path) {
            Ok(now) if now.split_whitespace().eq(self.value.split_whitespace()) => Ok(()),
            Ok(_) => fs::write(&path, self.value),
            Err(e) => Err(e),
        };
        match result {
            Err(source) if !self.optional => Err((self, source)),
            _ => Ok(()),
        }
    }
}
