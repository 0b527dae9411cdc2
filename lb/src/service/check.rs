use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::{IdleTimeouts, Mode, Policy, Server, Service, Snat};

/// One thing that is wrong with a service: the field, its value, and what
/// would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not {expected}")]
pub struct Problem {
    /// Path of the field, such as `services.web.servers.a.port`.
    pub field: String,
    /// What stands there.
    pub value: String,
    /// What would be right.
    pub expected: String,
}

/// Everything that is wrong; never empty when it is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let line = if index == 0 { "" } else { "\n" };
            write!(f, "{line}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Service {
    /// Checks the service by itself; conflicts with others are the control's.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn check(&self) -> Result<(), Problems> {
        let mut check = Check {
            service: self,
            problems: Vec::new(),
        };
        check.vips();
        check.policy();
        check.mode();
        check.servers();
        check.times();
        if check.problems.is_empty() {
            Ok(())
        } else {
            Err(Problems(check.problems))
        }
    }
}

struct Check<'a> {
    service: &'a Service,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, field: impl fmt::Display, value: impl fmt::Display, expected: &str) {
        self.problems.push(Problem {
            field: format!("services.{}.{field}", self.service.name),
            value: value.to_string(),
            expected: expected.to_owned(),
        });
    }

    fn vips(&mut self) {
        let vips = &self.service.vips;
        if vips.is_empty() {
            self.problem("vips", "[]", "a list of at least one VIP");
        }
        for (index, vip) in vips.iter().enumerate() {
            let field = format!("vips[{index}]");
            if vip.prefix != vip.prefix.trunc() {
                let expected =
                    format!("a prefix without host bits, such as {}", vip.prefix.trunc());
                self.problem(format!("{field}.prefix"), vip.prefix, &expected);
            }
            if vip.protocols.is_empty() {
                self.problem(format!("{field}.protocols"), "[]", "at least one protocol");
            }
            if let Some(other) = vips[..index].iter().find(|other| vip.conflicts(other)) {
                let expected = format!("apart from {other} of the same service");
                self.problem(field, vip, &expected);
            }
        }
    }

    fn policy(&mut self) {
        match self.service.policy {
            Policy::BoundedLoad { percent, .. } if !(101..=1000).contains(&percent) => {
                self.problem("policy.percent", percent, "a number of 101 to 1000");
            }
            Policy::Spill { above, .. } if !(1..=1000).contains(&above) => {
                self.problem("policy.above", above, "a number of 1 to 1000");
            }
            _ => {}
        }
    }

    fn mode(&mut self) {
        let service = self.service;
        match &service.mode {
            Mode::Gue { port: 0 } | Mode::Vxlan { port: 0, .. } => {
                self.problem("mode.port", 0, "a UDP port of 1 to 65535");
            }
            Mode::L3Dsr { dscp } => {
                for vip in &service.vips {
                    if !dscp.iter().any(|(prefix, _)| *prefix == vip.prefix) {
                        self.problem("mode.dscp", vip.prefix, "a VIP with a DSCP of its own");
                    }
                    if vip.prefix.prefix_len() != vip.prefix.max_prefix_len() {
                        self.problem("mode.dscp", vip.prefix, "one address, as l3dsr needs");
                    }
                }
                for (index, (prefix, value)) in dscp.iter().enumerate() {
                    if dscp[..index]
                        .iter()
                        .any(|(other, same)| same == value && other != prefix)
                    {
                        self.problem("mode.dscp", value.get(), "a DSCP that no other VIP has");
                    }
                }
            }
            Mode::Nat { snat } if *snat != Snat::Never && snat.addresses().is_empty() => {
                self.problem("mode.snat.addresses", "[]", "at least one address");
            }
            _ => {}
        }
    }

    fn servers(&mut self) {
        let mut ids = HashSet::new();
        for server in &self.service.servers {
            if !ids.insert(&server.id) {
                self.problem("servers", &server.id, "an id that no other server has");
            }
            self.server(server);
        }
    }

    fn server(&mut self, server: &Server) {
        let service = self.service;
        let field = |name: &str| format!("servers.{}.{name}", server.id);
        let address = server.address;
        if address.is_unspecified() || address.is_multicast() || is_broadcast(address) {
            self.problem(field("address"), address, "the address of one server");
        }
        let nat = matches!(service.mode, Mode::Nat { .. });
        match server.port {
            Some(0) => self.problem(field("port"), 0, "a port of 1 to 65535"),
            Some(port) if !nat => {
                let expected =
                    format!("set with mode {}; only nat translates", service.mode.name());
                self.problem(field("port"), port, &format!("to be {expected}"));
            }
            _ => {}
        }
        let same_family = matches!(service.mode, Mode::Nat { .. } | Mode::L3Dsr { .. });
        for vip in &service.vips {
            if same_family && vip.prefix.addr().is_ipv4() != address.is_ipv4() {
                let expected = format!(
                    "of the family of VIP {}, as mode {} needs",
                    vip.prefix,
                    service.mode.name()
                );
                self.problem(field("address"), address, &expected);
            }
        }
        if let Some(mac) = server.mac.filter(|_| service.mode != Mode::L2) {
            self.problem(field("mac"), mac, "used by any mode but l2");
        }
        if let Some(vni) = server
            .vni
            .filter(|_| !matches!(service.mode, Mode::Vxlan { .. }))
        {
            self.problem(field("vni"), vni, "used by any mode but vxlan");
        }
        if let Some(key) = server.key.filter(|_| service.mode != Mode::Gre) {
            self.problem(field("key"), key, "used by any mode but gre");
        }
    }

    fn times(&mut self) {
        let allowed = Duration::from_secs(1)..=IdleTimeouts::MAX;
        if let Some(time) = self.service.affinity.filter(|time| !allowed.contains(time)) {
            self.problem(
                "affinity",
                humantime::format_duration(time),
                "a time of 1s to 8000s",
            );
        }
        for (name, time) in self.service.idle.named() {
            if !allowed.contains(&time) {
                self.problem(
                    format!("idle.{name}"),
                    humantime::format_duration(time),
                    "a time of 1s to 8000s",
                );
            }
        }
    }
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}
