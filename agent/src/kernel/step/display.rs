//! Steps in words, for errors.

use std::fmt;

use super::{Step, Toggle};

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address {
                toggle, address, ..
            } => write!(f, "{} address {address}", toggle.verb()),
            Self::Claim { alias, .. } => write!(f, "set the alias {alias}"),
            Self::CreateVeth { near, far, .. } => {
                write!(f, "make veth {} with peer {}", near.name, far.name)
            }
            Self::CreateVxlan { device, vxlan, .. } => write!(
                f,
                "make VXLAN {} with VNI {} from {} to {} port {}",
                device.name, vxlan.vni, vxlan.local, vxlan.remote, vxlan.port
            ),
            Self::Condemn { .. } => f.write_str("prepare a device for deletion"),
            Self::Delete { .. } => f.write_str("delete the device"),
            Self::DeleteCondemned => f.write_str("delete devices"),
            Self::Mac { .. } => f.write_str("set the hardware address"),
            Self::Mtu { mtu, .. } => write!(f, "set MTU {mtu}"),
            Self::Name { name, .. } => write!(f, "set the name {name}"),
            Self::Neighbor {
                toggle, address, ..
            } => write!(f, "{} neighbour {address}", toggle.verb()),
            Self::Route { toggle, route, .. } => {
                write!(f, "{} route {}", toggle.verb(), route.prefix)?;
                if let Some(next_hop) = route.next_hop {
                    write!(f, " via {next_hop}")?;
                }
                route
                    .source
                    .map_or(Ok(()), |source| write!(f, " from {source}"))
            }
            Self::Unreachable { toggle, prefix } => {
                write!(f, "{} unreachable route {prefix}", toggle.verb())
            }
            Self::Up { up: true, .. } => f.write_str("set the device up"),
            Self::Up { up: false, .. } => f.write_str("set the device down"),
        }
    }
}

impl Toggle {
    fn verb(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }
}
