//! Flows that are remembered: in the maps of flows, and in connection tracking.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use nlink::netlink::netfilter::{ConntrackEntry, ConntrackTuple, TcpConntrackState};
use nlink::netlink::nftables::{SetElement, SetElementData};

use super::Nft;
use super::contents::{definition, number, read_number};
use super::layout::{Ip, address, name};
use super::state::State;
use crate::dataplane::{Error, FlowKey, FlowRecord, FlowState, ServerNumber, VipNumber};
use crate::service::Mode;

impl Nft {
    /// Forgets the connections of a NAT server, or those of them to a VIP.
    pub(super) fn forget_connections(
        &self,
        server: ServerNumber,
        vip: Option<ipnet::IpNet>,
    ) -> Result<u64, Error> {
        let mut entries = self.session.connections(Some(server.get().into()))?;
        entries.retain(|entry| {
            let to = entry.orig.dst_ip;
            vip.is_none_or(|vip| to.is_some_and(|to| vip.contains(&to)))
        });
        self.session.forget(&entries)
    }

    /// Forgets the connections that came by a VIP.
    pub(super) fn forget_vip(&self, before: &State, vip: VipNumber) -> Result<u64, Error> {
        let Some(vip) = before.vips.get(&vip) else {
            return Ok(0);
        };
        let of_service = before
            .servers
            .values()
            .filter(|server| server.service == vip.service);
        let mut forgotten = 0;
        for server in of_service {
            if let Mode::Nat { .. } = server.mode {
                forgotten += self.forget_connections(server.number, Some(vip.vip.prefix))?;
            }
        }
        Ok(forgotten)
    }

    /// Forgets the flows of servers that are gone.
    pub(super) fn forget_flows(&self, servers: &[ServerNumber]) -> Result<u64, Error> {
        if servers.is_empty() {
            return Ok(0);
        }
        let gone: BTreeSet<u32> = servers.iter().map(|server| server.get().into()).collect();
        let mut forgotten = 0;
        for ip in Ip::BOTH {
            let affinities = self.state.tables[&ip].sets.keys();
            let affinities = affinities.filter(|set| set.starts_with("affinity_"));
            let maps = [name::FLOWS, name::CLOSING].into_iter();
            for map in maps.chain(affinities.map(String::as_str)) {
                let elements = self.elements(ip, map)?;
                let stale = elements.iter().filter(|element| {
                    server_of(element).is_some_and(|server| gone.contains(&server))
                });
                let stale: Vec<_> = stale
                    .map(|element| SetElement::new(element.key().to_vec()))
                    .collect();
                if map == name::FLOWS {
                    forgotten += stale.len() as u64;
                }
                self.delete(ip, map, &stale)?;
            }
        }
        Ok(forgotten)
    }

    fn delete(&self, ip: Ip, map: &str, elements: &[SetElement]) -> Result<(), Error> {
        let set = definition(ip, map);
        for some in elements.chunks(128) {
            let deleted = self.session.ask("forget flows", async |connection| {
                connection
                    .transaction()
                    .destroy_set_elements(&set, some)
                    .commit(connection)
                    .await
            });
            deleted?;
        }
        Ok(())
    }

    /// Remembers flows of services that are not NAT.
    pub(super) fn insert(&self, flows: &[FlowRecord]) -> Result<usize, Error> {
        let mut inserted = 0;
        for flow in flows {
            let Some(server) = self.state.servers.get(&flow.server) else {
                continue;
            };
            let Some(service) = self.state.services.get(&server.service) else {
                continue;
            };
            if let Mode::Nat { .. } = service.mode {
                continue;
            }
            let ip = Ip::of(flow.key.source);
            let element = flow_key(&flow.key)
                .value(number(flow.server.get()))
                .with_timeout(timeout(&service.idle, flow));
            let map = match flow.state {
                FlowState::Closing => name::CLOSING,
                FlowState::Established | FlowState::Opening => name::FLOWS,
            };
            let set = definition(ip, map);
            let added = self.session.ask("insert a flow", async |connection| {
                match connection.add_set_elements(&set, &[element]).await {
                    Ok(()) => Ok(true),
                    // What is known already stays.
                    Err(known) if known.is_already_exists() => Ok(false),
                    Err(error) => Err(error),
                }
            })?;
            inserted += usize::from(added);
        }
        Ok(inserted)
    }

    pub(super) fn show_flows(&self, show: &mut dyn FnMut(FlowRecord)) -> Result<(), Error> {
        for ip in Ip::BOTH {
            for (map, state) in [
                (name::FLOWS, FlowState::Established),
                (name::CLOSING, FlowState::Closing),
            ] {
                let elements = self.elements(ip, map)?;
                let records = elements
                    .iter()
                    .filter_map(|element| record(ip, element, state));
                records.for_each(&mut *show);
            }
        }
        for entry in self.session.connections(None)? {
            let server = entry.mark.and_then(|mark| u16::try_from(mark).ok());
            let server = server.and_then(ServerNumber::new);
            let known = server.filter(|server| self.state.servers.contains_key(server));
            if let Some(flow) = known.and_then(|server| connection(&entry, server)) {
                show(flow);
            }
        }
        Ok(())
    }
}

fn server_of(element: &SetElement) -> Option<u32> {
    match element.data() {
        Some(SetElementData::Value(bytes)) => read_number(bytes),
        _ => None,
    }
}

fn flow_key(key: &FlowKey) -> SetElement {
    SetElement::concat([
        address(key.source),
        address(key.destination),
        SetElement::inet_proto(key.protocol),
        SetElement::port(key.source_port),
        SetElement::port(key.destination_port),
    ])
}

fn record(ip: Ip, element: &SetElement, state: FlowState) -> Option<FlowRecord> {
    let width = ip.width() as usize;
    let key = element.key();
    let port = |at: usize| Some(u16::from_be_bytes(key.get(at..at + 2)?.try_into().ok()?));
    let server = u16::try_from(server_of(element)?).ok()?;
    Some(FlowRecord {
        key: FlowKey {
            source: read_address(key.get(..width)?)?,
            destination: read_address(key.get(width..2 * width)?)?,
            protocol: *key.get(2 * width)?,
            source_port: port(2 * width + 4)?,
            destination_port: port(2 * width + 8)?,
        },
        vip: None,
        server: ServerNumber::new(server)?,
        state,
        idle: std::time::Duration::ZERO,
        translated: None,
    })
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn connection(entry: &ConntrackEntry, server: ServerNumber) -> Option<FlowRecord> {
    let source = |tuple: &ConntrackTuple| {
        let port = tuple.src_port.or(tuple.icmp_id).unwrap_or(0);
        Some((tuple.src_ip?, port))
    };
    let (client, source_port) = source(&entry.orig)?;
    // What the server answers to, if it is not the client itself.
    let seen = entry.reply.dst_ip?;
    let translated = (seen != client).then(|| {
        let port = entry.reply.dst_port.or(entry.reply.icmp_id).unwrap_or(0);
        SocketAddr::new(seen, port)
    });
    let state = match entry.tcp_state {
        Some(TcpConntrackState::SynSent | TcpConntrackState::SynRecv) => FlowState::Opening,
        None | Some(TcpConntrackState::Established) => FlowState::Established,
        Some(_) => FlowState::Closing,
    };
    Some(FlowRecord {
        key: FlowKey {
            source: client,
            destination: entry.orig.dst_ip?,
            protocol: entry.proto.number(),
            source_port,
            destination_port: entry.orig.dst_port.unwrap_or(0),
        },
        vip: None,
        server,
        state,
        idle: std::time::Duration::ZERO,
        translated,
    })
}

fn timeout(idle: &crate::service::IdleTimeouts, flow: &FlowRecord) -> std::time::Duration {
    use super::code::{SCTP, TCP, UDP};
    match (flow.key.protocol, flow.state) {
        (TCP, FlowState::Closing) => idle.tcp_closing,
        (TCP, FlowState::Opening) => idle.tcp_opening,
        (TCP, FlowState::Established) => idle.tcp,
        (UDP, _) => idle.udp,
        (SCTP, _) => idle.sctp,
        _ => idle.other,
    }
}
