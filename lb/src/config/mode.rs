use std::net::IpAddr;

use carrick_types::Vni;
use serde_json::Value;

use super::prefix;
use super::walk::{Table, Walk};
use crate::service::{Dscp, Mode, Policy, Snat, TableSize};

const MODES: &str = "one of gre, gue, ipip, l2, l3dsr, nat, vxlan";
const POLICIES: &str =
    "one of bounded-load, least-connections, maglev, source-hash, spill, weighted-round-robin";

pub(super) fn mode(walk: &mut Walk, service: &Table<'_>) -> Mode {
    let keys = ["dscp", "name", "port", "snat", "snat-addresses", "vni"];
    let (table, name) = walk.named(service, "mode", &keys);
    let Some((path, name)) = name else {
        return Mode::L2;
    };
    let mode = match name.as_str().unwrap_or_default() {
        "gre" => Mode::Gre,
        "gue" => Mode::Gue {
            port: port(walk, &table, 6080),
        },
        "ipip" => Mode::Ipip,
        "l2" => Mode::L2,
        "l3dsr" => Mode::L3Dsr {
            dscp: dscp(walk, &table),
        },
        "nat" => Mode::Nat {
            snat: snat(walk, &table),
        },
        "vxlan" => vxlan(walk, &table),
        _ => {
            walk.wrong(path, name, MODES);
            Mode::L2
        }
    };
    allow(walk, &table, mode.name(), mode_keys(&mode));
    mode
}

fn mode_keys(mode: &Mode) -> &'static [&'static str] {
    match mode {
        Mode::Gre | Mode::Ipip | Mode::L2 => &["name"],
        Mode::Gue { .. } => &["name", "port"],
        Mode::L3Dsr { .. } => &["dscp", "name"],
        Mode::Nat { .. } => &["name", "snat", "snat-addresses"],
        Mode::Vxlan { .. } => &["name", "port", "vni"],
    }
}

/// Settings of another mode or policy are mistakes, not decoration.
fn allow(walk: &mut Walk, table: &Table<'_>, of: &str, keys: &[&str]) {
    for (key, value) in table.entries() {
        if !keys.contains(&key.as_str()) {
            walk.wrong(table.at(key), value, format!("used by {of}"));
        }
    }
}

fn port(walk: &mut Walk, table: &Table<'_>, default: u16) -> u16 {
    walk.number_at(table, "port", 1..=65_535).unwrap_or(default)
}

fn vxlan(walk: &mut Walk, table: &Table<'_>) -> Mode {
    if table.get("vni").is_none() {
        walk.wrong(
            table.at("vni"),
            &Value::Null,
            "a number of 1 to 16777215, which vxlan needs",
        );
    }
    let vni = walk.number_at(table, "vni", 1..=u64::from(Vni::MAX));
    let vni = vni.and_then(|vni: u32| Vni::new(vni).ok());
    let port = port(walk, table, 4789);
    match vni {
        Some(vni) => Mode::Vxlan { vni, port },
        None => Mode::L2,
    }
}

fn snat(walk: &mut Walk, table: &Table<'_>) -> Snat {
    let words = [("always", 2), ("never", 0), ("when-needed", 1)];
    let kind = walk.word_at(table, "snat", &words).unwrap_or(0);
    let expected = "an address of the balancer";
    let addresses = walk.texts_at(table, "snat-addresses", expected, |text| {
        text.parse::<IpAddr>().ok()
    });
    match kind {
        2 => Snat::Always(addresses),
        1 => Snat::WhenNeeded(addresses),
        _ => {
            if let Some(value) = table
                .get("snat-addresses")
                .filter(|_| !addresses.is_empty())
            {
                let expected = "used with snat: never; it is always or when-needed";
                walk.wrong(table.at("snat-addresses"), value, expected);
            }
            Snat::Never
        }
    }
}

fn dscp(walk: &mut Walk, table: &Table<'_>) -> Vec<(ipnet::IpNet, Dscp)> {
    let values = table.get("dscp").unwrap_or(&Value::Null);
    let values = walk.any_table(&table.at("dscp"), values, &["VIP: 1 to 63"]);
    let mut all = Vec::new();
    for (key, value) in values.entries() {
        let vip = Value::String(key.clone());
        let vip = walk.text(&values.path, &vip, "the address of a VIP", prefix);
        let dscp = walk.number_at(&values, key, 1..=63);
        let dscp = dscp.and_then(|dscp: u8| Dscp::new(dscp).ok());
        let _ = value;
        all.extend(vip.zip(dscp));
    }
    all
}

pub(super) fn policy(walk: &mut Walk, service: &Table<'_>) -> Policy {
    let keys = ["above", "name", "percent", "size"];
    let (table, name) = walk.named(service, "policy", &keys);
    let Some((path, name)) = name else {
        return Policy::default();
    };
    let size = table_size(walk, &table);
    let (policy, keys): (_, &[&str]) = match name.as_str().unwrap_or_default() {
        "bounded-load" => {
            let percent = walk.number_at(&table, "percent", 101..=1_000);
            let percent = percent.unwrap_or(125);
            (
                Policy::BoundedLoad { percent, size },
                &["name", "percent", "size"],
            )
        }
        "least-connections" => (Policy::LeastConnections, &["name"]),
        "maglev" => (Policy::Maglev { size }, &["name", "size"]),
        "source-hash" => (Policy::SourceHash { size }, &["name", "size"]),
        "spill" => {
            let above = walk.number_at(&table, "above", 1..=1_000).unwrap_or(5);
            (Policy::Spill { above, size }, &["above", "name", "size"])
        }
        "weighted-round-robin" => (Policy::WeightedRoundRobin, &["name"]),
        _ => {
            walk.wrong(path, name, POLICIES);
            return Policy::default();
        }
    };
    allow(walk, &table, policy.name(), keys);
    policy
}

fn table_size(walk: &mut Walk, table: &Table<'_>) -> TableSize {
    let Some(value) = table.get("size") else {
        return TableSize::default();
    };
    let wanted = value.as_u64().and_then(|size| u32::try_from(size).ok());
    let size = wanted.and_then(|size| TableSize::new(size).ok());
    if size.is_none() {
        let next = TableSize::at_least(wanted.unwrap_or(65_537));
        let expected = format!("a prime of 3 to {}, such as {next}", TableSize::MAX);
        walk.wrong(table.at("size"), value, expected);
    }
    size.unwrap_or_default()
}
