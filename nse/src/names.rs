//! Where workload names are served.

use std::sync::Arc;

use carrick_agent::{Agent, Kernel};
use carrick_lifecycle::Subsystem;
use carrick_vl3::dns::{self, Fanout, Resolver, ResolverOptions, ServeAt};
use tracing::warn;

use crate::config::NamesAt;
use crate::parts::{Parts, router};

/// Serves names until the subsystem's end.
pub(crate) fn serve(parts: &Parts, subsystem: &Subsystem) {
    let Some(sockets) = sockets(parts) else {
        return;
    };
    let config = &parts.config;
    let templates = config.dns.templates.iter();
    let zones = templates.filter_map(|template| template.zone(&config.services[0]));
    let options = ResolverOptions {
        zones: zones.collect(),
        ..ResolverOptions::default()
    };
    let port = config.dns.listen.port();
    let fanout = Fanout::new(Arc::clone(&sockets), router(&parts.config), port);
    let resolver = Resolver::new(parts.vl3.clone(), parts.records.clone(), fanout, options);
    let at = match config.dns.listen {
        NamesAt::Address(address) => ServeAt::Address(address),
        NamesAt::Own(port) => ServeAt::Own(router(config), port),
    };
    let stop = subsystem.token();
    let serve = dns::serve(Arc::new(resolver), sockets, at, stop);
    subsystem.spawn("names", serve);
}

/// Who binds the sockets: the agent that makes the links, or this process
/// itself in its own namespace, where a forwarder makes them.
fn sockets(parts: &Parts) -> Option<Arc<dyn Agent>> {
    Some(match &parts.plane {
        Some(plane) => Arc::clone(&plane.agent),
        None => match Kernel::new() {
            Ok(kernel) => Arc::new(kernel),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "workload names cannot be served");
                return None;
            }
        },
    })
}
