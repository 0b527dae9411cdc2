//! Where workload names are served.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use carrick_agent::{Agent, Change, Error, Found, Kernel, Netns, Protocol, Socket};
use carrick_lifecycle::Subsystem;
use carrick_vl3::dns::{self, Fanout, Resolver, ResolverOptions, Template};
use futures::future::BoxFuture;
use tracing::warn;

use crate::config::NamesAt;
use crate::parts::{Parts, router};

/// Serves names until the subsystem's end.
pub(crate) fn serve(parts: &Parts, subsystem: &Subsystem) {
    let Some(sockets) = sockets(parts) else {
        return;
    };
    let config = &parts.config;
    let templates = config
        .dns
        .templates
        .iter()
        .filter_map(|text| text.parse::<Template>().ok());
    let zones = templates.filter_map(|template| template.zone(&config.services[0]));
    let options = ResolverOptions {
        zones: zones.collect(),
        ..ResolverOptions::default()
    };
    let port = config.dns.listen.port();
    let fanout = Fanout::new(Arc::clone(&sockets), router(&parts.config), port);
    let resolver = Resolver::new(parts.vl3.clone(), parts.records.clone(), fanout, options);
    let stop = subsystem.token();
    let serve = dns::serve(
        Arc::new(resolver),
        sockets,
        router(&parts.config),
        port,
        stop,
    );
    subsystem.spawn("names", serve);
}

/// Who binds the sockets: the agent that makes the links, or this process
/// itself in its own namespace, where a forwarder makes them.
fn sockets(parts: &Parts) -> Option<Arc<dyn Agent>> {
    let agent: Arc<dyn Agent> = match &parts.plane {
        Some(plane) => Arc::clone(&plane.agent),
        None => match Kernel::new() {
            Ok(kernel) => Arc::new(kernel),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "workload names cannot be served");
                return None;
            }
        },
    };
    Some(match parts.config.dns.listen {
        NamesAt::Address(listen) => Arc::new(ListenAt { agent, listen }),
        NamesAt::Own(_) => agent,
    })
}

/// An agent that binds listening sockets where the configuration says instead
/// of at the endpoint's own addresses, in the process's own namespace.
struct ListenAt {
    agent: Arc<dyn Agent>,
    listen: SocketAddr,
}

impl Agent for ListenAt {
    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        self.agent.apply(changes)
    }

    fn list<'a>(
        &'a self,
        netns: &'a Netns,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Found>, Error>> {
        self.agent.list(netns, owner)
    }

    fn ping<'a>(
        &'a self,
        netns: &'a Netns,
        source: IpAddr,
        target: IpAddr,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Option<Duration>, Error>> {
        self.agent.ping(netns, source, target, timeout)
    }

    fn bind<'a>(
        &'a self,
        netns: &'a Netns,
        protocol: Protocol,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Socket, Error>> {
        if address.port() == NamesAt::PORT {
            self.agent.bind(&Netns::Own, protocol, self.listen)
        } else {
            self.agent.bind(netns, protocol, address)
        }
    }
}
