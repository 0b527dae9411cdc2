use std::collections::BTreeSet;
use std::net::IpAddr;

use carrick_types::{ServiceName, Vni};
use serde_json::Value;

use super::walk::{Table, Walk};
use super::{mode, prefix};
use crate::service::{
    IdleTimeouts, MacAddr, OnEmpty, PortRange, Ports, Protocol, Protocols, Server, ServerId,
    Service, Vip,
};

const KEYS: [&str; 8] = [
    "affinity", "idle", "mode", "name", "on-empty", "policy", "servers", "vips",
];

pub(super) fn read_all(walk: &mut Walk, root: &Table<'_>) -> Vec<Service> {
    let mut names = BTreeSet::new();
    let mut services = Vec::new();
    for (path, value) in walk.list(root, "services") {
        let Some(service) = read(walk, &path, value) else {
            continue;
        };
        if names.insert(service.name.clone()) {
            services.push(service);
        } else {
            let name = Value::String(service.name.to_string());
            walk.wrong(
                format!("{path}.name"),
                &name,
                "a name that no other service has",
            );
        }
    }
    services
}

fn read(walk: &mut Walk, path: &str, value: &Value) -> Option<Service> {
    let mut table = walk.table(path, value, &KEYS);
    let expected = "a name of 1 to 512 bytes";
    if table.get("name").is_none() {
        walk.wrong(table.at("name"), value, expected);
    }
    let name = walk.text_at(&table, "name", expected, |text| ServiceName::new(text).ok());
    if let Some(name) = &name {
        table.path = format!("services.{name}");
    }
    let vips = walk.list(&table, "vips");
    let vips = vips
        .into_iter()
        .filter_map(|(path, value)| vip(walk, &path, value));
    let vips = vips.collect();
    let servers = walk.list(&table, "servers");
    let servers = servers
        .into_iter()
        .filter_map(|(path, value)| server(walk, &path, value));
    let servers = servers.collect();
    let words = [("drop", OnEmpty::Drop), ("reject", OnEmpty::Reject)];
    Some(Service {
        vips,
        policy: mode::policy(walk, &table),
        mode: mode::mode(walk, &table),
        servers,
        on_empty: walk.word_at(&table, "on-empty", &words).unwrap_or_default(),
        affinity: walk.time_at(&table, "affinity"),
        idle: idle(walk, &table),
        name: name?,
    })
}

const PREFIX: &str = "an address or a prefix, such as 10.0.0.1 or 10.2.2.0/24";

fn vip(walk: &mut Walk, path: &str, value: &Value) -> Option<Vip> {
    if value.is_string() {
        return walk.text(path, value, PREFIX, prefix).map(|prefix| Vip {
            prefix,
            protocols: Protocols::ANY,
            ports: Ports::All,
        });
    }
    let table = walk.table(path, value, &["ports", "prefix", "protocols"]);
    if table.get("prefix").is_none() {
        walk.wrong(table.at("prefix"), value, PREFIX);
    }
    let ports = ports(walk, &table);
    let protocols = protocols(walk, &table);
    Some(Vip {
        prefix: walk.text_at(&table, "prefix", PREFIX, prefix)?,
        protocols,
        ports,
    })
}

fn ports(walk: &mut Walk, vip: &Table<'_>) -> Ports {
    match vip.get("ports") {
        None => Ports::All,
        Some(Value::String(text)) if text == "all" => Ports::All,
        Some(Value::Array(_)) => {
            let expected = "a port of 1 to 65535 or a range such as 8000-8099";
            Ports::of(walk.texts_at(vip, "ports", expected, |text| {
                text.parse::<PortRange>().ok()
            }))
        }
        Some(other) => {
            walk.wrong(
                vip.at("ports"),
                other,
                "all or a list such as [80, 8000-8099]",
            );
            Ports::All
        }
    }
}

fn protocols(walk: &mut Walk, vip: &Table<'_>) -> Protocols {
    match vip.get("protocols") {
        None => Protocols::ANY,
        Some(Value::String(text)) if text == "any" => Protocols::ANY,
        Some(Value::Array(_)) => {
            let expected = "one of icmp, other, sctp, tcp, udp";
            Protocols::of(&walk.texts_at(vip, "protocols", expected, |text| {
                Protocol::ALL.into_iter().find(|known| known.name() == text)
            }))
        }
        Some(other) => {
            walk.wrong(
                vip.at("protocols"),
                other,
                "any or a list such as [tcp, udp]",
            );
            Protocols::ANY
        }
    }
}

fn server(walk: &mut Walk, path: &str, value: &Value) -> Option<Server> {
    let keys = ["address", "id", "key", "mac", "port", "vni", "weight"];
    let mut table = walk.table(path, value, &keys);
    let address = "an IP address";
    let id = "a name of 1 to 253 bytes without white space";
    for (key, expected) in [("address", address), ("id", id)] {
        if table.get(key).is_none() {
            walk.wrong(table.at(key), value, expected);
        }
    }
    let id = walk.text_at(&table, "id", id, |text| ServerId::new(text).ok());
    if let Some(id) = &id {
        let service = path.rsplit_once('[').map_or(path, |(before, _)| before);
        table.path = format!("{service}.{id}");
    }
    let address = walk.text_at(&table, "address", address, |text| {
        text.parse::<IpAddr>().ok()
    });
    let port = walk.number_at(&table, "port", 1..=65_535);
    let weight = walk.number_at(&table, "weight", 0..=65_535).unwrap_or(1);
    let vni = walk.number_at(&table, "vni", 1..=u64::from(Vni::MAX));
    let key = walk.number_at(&table, "key", 0..=u64::from(u32::MAX));
    let mac = "the Ethernet address of one station, such as 02:00:00:00:00:01";
    let mac = walk.text_at(&table, "mac", mac, |text| text.parse::<MacAddr>().ok());
    Some(Server {
        id: id?,
        address: address?,
        port,
        mac,
        weight,
        vni: vni.and_then(|vni: u32| Vni::new(vni).ok()),
        key,
    })
}

fn idle(walk: &mut Walk, service: &Table<'_>) -> IdleTimeouts {
    let default = IdleTimeouts::default();
    let keys = default.named().map(|(name, _)| name);
    let table = walk.sub(service, "idle", &keys);
    let mut time = |key, default| walk.time_at(&table, key).unwrap_or(default);
    IdleTimeouts {
        tcp: time("tcp", default.tcp),
        tcp_opening: time("tcp-opening", default.tcp_opening),
        tcp_closing: time("tcp-closing", default.tcp_closing),
        udp: time("udp", default.udp),
        sctp: time("sctp", default.sctp),
        other: time("other", default.other),
    }
}
