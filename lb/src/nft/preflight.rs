//! Whether this process can balance by nftables here.

use std::net::IpAddr;

use super::{Nft, limits};
use crate::dataplane::{
    Error, Plan, PutServer, PutService, PutVip, ServerNumber, ServiceNumber, Slots, VipNumber,
};
use crate::service::{Mode, Server, ServerId, Service, ServiceName, Vip};

/// Tries a mode in the calling thread's network namespace, without any packet
/// noticing: the kernel is given the tables of a service and told to remove
/// them in one transaction.
///
/// # Errors
///
/// [`Error::Unsupported`] where nftables or the namespace's settings forbid
/// the mode, [`Error::Access`] where the kernel does.
pub fn preflight(mode: &Mode) -> Result<(), Error> {
    if let Some(why) = limits::mode(mode) {
        return Err(Error::Unsupported {
            what: format!("mode {} by nftables", mode.name()),
            why: why.to_owned(),
        });
    }
    let nft = Nft::open()?;
    let service = example(mode);
    limits::forwarding(&service)?;
    // Tables that balance are proof enough.
    if nft.found {
        return Ok(());
    }
    nft.rehearse(&plan(&service))
}

/// A service of documentation's addresses (RFC 5737).
fn example(mode: &Mode) -> Service {
    let (vip, server) = (
        IpAddr::from([192, 0, 2, 1]),
        IpAddr::from([198, 51, 100, 1]),
    );
    let mut service = Service::new(ServiceName::new("preflight").expect("it is a name"));
    service.mode = mode.clone();
    service.vips = vec![Vip::all(vip.into())];
    let id = ServerId::new("example").expect("it is an id");
    service.servers = vec![Server::new(id, server)];
    service
}

fn plan(service: &Service) -> Plan {
    let number = ServiceNumber::new(1).expect("1 is a number");
    let server = ServerNumber::new(1).expect("1 is a number");
    let one = &service.servers[0];
    let slots = Slots::new([server]);
    Plan {
        put_servers: vec![PutServer {
            number: server,
            service: number,
            identity: service.server_identity(&one.id),
            server: one.clone(),
            mode: service.mode.clone(),
        }],
        put_services: vec![PutService {
            number,
            name: service.name.clone(),
            identity: service.identity(),
            policy: service.policy,
            mode: service.mode.clone(),
            on_empty: service.on_empty,
            affinity: service.affinity,
            idle: service.idle,
            ring: slots.clone(),
            hash: slots,
        }],
        put_vips: vec![PutVip {
            number: VipNumber::new(1).expect("1 is a number"),
            identity: service.identity(),
            vip: service.vips[0].clone(),
            service: number,
        }],
        ..Plan::default()
    }
}
