//! The one place where the serving chain is listed.

use carrick_chain::Chain;
use carrick_chain::elements::{self as chain, OnIdle, kernel_of_own_namespace};
use carrick_link::{Links, Mechanisms};
use carrick_types::DnsConfig;
use carrick_types::MechanismType::Kernel;
use carrick_vl3::elements::{Announce, DnsContext, DnsContextOptions, Recognise};

use crate::config::Dns;
use crate::parts::Parts;

/// The elements in their order of action; each speaks to those behind it
/// through the connection.
pub(crate) fn chain(parts: &Parts, on_idle: Option<OnIdle>) -> Chain {
    let vl3 = &parts.vl3;
    let plane = parts.plane.as_ref();
    // A forwarder moves the interfaces into our own namespace.
    let given = || chain::Mechanisms::default().with(Kernel, kernel_of_own_namespace);
    let forwarded = plane.is_none().then(|| given().optional());
    let mechanisms = plane.map(|plane| Mechanisms::new(plane.site.clone(), plane.vnis.clone()));
    let links = plane.map(|plane| {
        let vl3 = vl3.clone();
        let is_peer = move |connection: &_| is_peer(&vl3, connection);
        Links::new(plane.site.clone(), plane.book.clone(), is_peer)
    });
    let on_idle = on_idle.map(|on_idle| {
        let vl3 = vl3.clone();
        on_idle.counting(move |connection| !is_peer(&vl3, connection))
    });
    Chain::default()
        // Before all that treats peers and clients differently.
        .then(Recognise::new(vl3.clone()))
        // Behind the verdict: endpoints without clients must not keep each
        // other alive.
        .then_some(on_idle)
        // Before the addresses: what cannot be linked needs none.
        .then_some(mechanisms)
        .then_some(forwarded)
        .then(parts.addresses.clone())
        // Behind the addresses: a name is published with them.
        .then(DnsContext::new(
            vl3.clone(),
            parts.records.clone(),
            dns(&parts.config.dns),
        ))
        // Behind the mechanism, which knows what the link can carry, and before
        // the link, which is made with the network's minimum.
        .then(parts.mtu.clone())
        // Behind everything that writes into the context.
        .then_some(links)
        // Behind the link: packets go over it from here on.
        .then(Announce::new(vl3.clone()))
}

/// Whether a connection is another endpoint's.
pub(crate) fn is_peer(vl3: &carrick_vl3::Vl3, connection: &carrick_types::Connection) -> bool {
    vl3.dialled_by(&connection.id).is_some()
}

/// Whether an answer is no longer right since the prefixes changed. Peers route
/// each prefix, clients only the network.
pub(crate) fn is_stale(parts: &Parts, connection: &carrick_types::Connection) -> bool {
    let routes = &connection.context.ip.src_routes;
    let lacks = |prefix| routes.iter().all(|route| route.prefix != prefix);
    parts.addresses.is_stale(connection)
        || is_peer(&parts.vl3, connection) && parts.prefixes.current().iter().copied().any(lacks)
}

fn dns(dns: &Dns) -> DnsContextOptions {
    let further = DnsConfig {
        server_ips: dns.name_servers.clone(),
        search_domains: dns.zones.clone(),
    };
    DnsContextOptions {
        templates: dns.templates.clone(),
        configs: Some(further)
            .filter(|config| !config.server_ips.is_empty())
            .into_iter()
            .collect(),
    }
}
