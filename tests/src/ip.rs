//! What the kernel says of a namespace, asked with `ip -json`.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::Namespace;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number, which no other interface of the namespace ever has again.
    pub index: u64,
    /// Largest packet, in bytes.
    pub mtu: u64,
    /// Its addresses as `address/length`, without link-local ones.
    pub addresses: Vec<String>,
}

/// All interfaces but the loopback device, by name.
///
/// # Panics
///
/// There is no `ip`, or the namespace is gone.
#[must_use]
pub fn interfaces(namespace: &Namespace) -> BTreeMap<String, Interface> {
    let all = json(namespace, &["address", "show"]);
    let named = all
        .iter()
        .filter_map(|link| Some((link["ifname"].as_str()?.to_owned(), interface(link))));
    named.filter(|(name, _)| name != "lo").collect()
}

fn interface(link: &Value) -> Interface {
    let addresses = link["addr_info"].as_array().into_iter().flatten();
    let global = addresses.filter(|address| address["scope"] != "link");
    let text = |address: &Value| {
        let local = address["local"].as_str().unwrap_or_default();
        format!("{local}/{}", address["prefixlen"])
    };
    Interface {
        index: link["ifindex"].as_u64().unwrap_or_default(),
        mtu: link["mtu"].as_u64().unwrap_or_default(),
        addresses: global.map(text).collect(),
    }
}

/// The kinds of all interfaces that have one, such as `veth` and `vxlan`.
///
/// # Panics
///
/// There is no `ip`, or the namespace is gone.
#[must_use]
pub fn kinds(namespace: &Namespace) -> Vec<String> {
    let all = json(namespace, &["-details", "link", "show"]);
    all.iter()
        .filter_map(|link| Some(link["linkinfo"]["info_kind"].as_str()?.to_owned()))
        .collect()
}

/// All routes of the main table in order, each as `prefix [via address] dev
/// name`; what the kernel sets up by itself for IPv6 is left out.
///
/// # Panics
///
/// There is no `ip`, or the namespace is gone.
#[must_use]
pub fn routes(namespace: &Namespace) -> Vec<String> {
    let families = [("-4", "/32"), ("-6", "/128")];
    let mut routes: Vec<String> = families
        .iter()
        .flat_map(|(family, host)| {
            let all = json(namespace, &[family, "route", "show"]);
            all.iter()
                .filter_map(|is| route(is, host))
                .collect::<Vec<_>>()
        })
        .collect();
    routes.sort_unstable();
    routes
}

fn route(route: &Value, host: &str) -> Option<String> {
    let to = route["dst"].as_str()?;
    if to.starts_with("fe80:") || to.starts_with("ff00:") {
        return None;
    }
    let mut text = to.to_owned();
    if !to.contains('/') && to != "default" {
        text += host;
    }
    if let Some(kind) = route["type"].as_str() {
        text = format!("{kind} {text}");
    }
    for (field, word) in [("gateway", "via"), ("dev", "dev")] {
        if let Some(value) = route[field].as_str() {
            text.extend([" ", word, " ", value]);
        }
    }
    Some(text)
}

fn json(namespace: &Namespace, what: &[&str]) -> Vec<Value> {
    let output = namespace.within(|| Command::new("ip").arg("-json").args(what).output());
    let output = output.expect("ip (of iproute2) is installed");
    assert!(output.status.success(), "ip {what:?}: {output:?}");
    let text = output.stdout;
    if text.iter().all(u8::is_ascii_whitespace) {
        return Vec::new();
    }
    serde_json::from_slice(&text).expect("ip writes JSON")
}
