//! What a server needs of its machine: VIPs on loopback, ARP and reverse path
//! settings. All of it is written down before it is made, so that the next
//! start finds what a killed process left.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use carrick_types::IpNet;
use nlink::netlink::addr::{Ipv4Address, Ipv6Address};
use nlink::netlink::route::{Ipv4Route, Ipv6Route};
use nlink::netlink::types::route::{RouteScope, RouteType};
use nlink::netlink::{Connection, Route};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// The table of local addresses, `rt_tables`.
const LOCAL: u32 = 255;

/// What was changed on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Made {
    /// VIPs that were not there before.
    vips: Vec<IpNet>,
    /// Settings under /proc/sys, with what stood there.
    settings: Vec<(PathBuf, String)>,
}

/// The host, and where it is written down what was made there.
#[derive(Debug)]
pub(super) struct Host {
    file: PathBuf,
    made: Made,
}

impl Host {
    /// Takes over what an earlier process of this network namespace made.
    pub(super) fn open() -> Result<Self> {
        let dir = Path::new("/run/carrick");
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let namespace = std::fs::read_link("/proc/thread-self/ns/net")
            .context("cannot tell the network namespace")?;
        // "net:[4026531840]", of which the number names it.
        let number: String = namespace
            .to_string_lossy()
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        let file = dir.join(format!("server-{number}.json"));
        let made = std::fs::read(&file).ok();
        let made = made.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(Self {
            file,
            made: made.unwrap_or_default(),
        })
    }

    /// Holds these VIPs, and no others that an earlier process held.
    pub(super) async fn hold(&mut self, vips: &[IpNet]) -> Result<()> {
        let connection = Connection::<Route>::new().context("cannot open a netlink socket")?;
        let gone: Vec<_> = self
            .made
            .vips
            .iter()
            .filter(|vip| !vips.contains(vip))
            .copied()
            .collect();
        for vip in gone {
            drop_vip(&connection, vip).await?;
            self.made.vips.retain(|held| *held != vip);
            self.write()?;
        }
        for vip in vips {
            // An address that somebody else has set stays theirs.
            if self.made.vips.contains(vip) || has(&connection, *vip).await? {
                continue;
            }
            self.made.vips.push(*vip);
            self.write()?;
            add_vip(&connection, *vip)
                .await
                .with_context(|| format!("cannot hold {vip}"))?;
        }
        Ok(())
    }

    /// Keeps ARP for VIPs silent on an interface, and takes packets whose
    /// answers leave elsewhere.
    pub(super) fn tune(&mut self, interface: &str) -> Result<()> {
        let dir = Path::new("/proc/sys/net/ipv4/conf").join(interface);
        self.set(&dir.join("arp_ignore"), "1")?;
        self.set(&dir.join("arp_announce"), "2")?;
        self.set(&dir.join("rp_filter"), "2")
    }

    fn set(&mut self, path: &Path, value: &str) -> Result<()> {
        let before = std::fs::read_to_string(path);
        let before = before.with_context(|| format!("cannot read {}", path.display()))?;
        let known = self.made.settings.iter().any(|(known, _)| known == path);
        if before.trim() == value {
            return Ok(());
        }
        if !known {
            self.made
                .settings
                .push((path.to_owned(), before.trim().to_owned()));
            self.write()?;
        }
        std::fs::write(path, value).with_context(|| format!("cannot set {}", path.display()))
    }

    /// Undoes everything.
    pub(super) async fn restore(mut self) -> Result<()> {
        self.hold(&[]).await?;
        for (path, before) in self.made.settings.drain(..) {
            // The interface may be gone, with its settings.
            if path.exists() && std::fs::write(&path, before).is_err() {
                warn!(path = %path.display(), "the setting stays changed");
            }
        }
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.file.display()))
            }
            _ => Ok(()),
        }
    }

    fn write(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.made)?;
        let next = self.file.with_extension("next");
        std::fs::write(&next, text)
            .and_then(|()| std::fs::rename(&next, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))
    }
}

fn is_host(vip: IpNet) -> bool {
    vip.prefix_len() == vip.max_prefix_len()
}

async fn has(connection: &Connection<Route>, vip: IpNet) -> Result<bool> {
    let addresses = connection
        .get_addresses()
        .await
        .context("cannot list addresses")?;
    Ok(is_host(vip)
        && addresses
            .iter()
            .any(|one| one.address() == Some(&vip.addr())))
}

/// One address is an address of loopback; a prefix is a local route to it.
async fn add_vip(connection: &Connection<Route>, vip: IpNet) -> nlink::Result<()> {
    let added = match (vip.addr(), is_host(vip)) {
        (IpAddr::V4(vip), true) => {
            connection
                .add_address(Ipv4Address::new("lo", vip, 32))
                .await
        }
        (IpAddr::V6(vip), true) => {
            connection
                .add_address(Ipv6Address::new("lo", vip, 128))
                .await
        }
        (IpAddr::V4(net), false) => connection.add_route(route4(net, vip.prefix_len())).await,
        (IpAddr::V6(net), false) => connection.add_route(route6(net, vip.prefix_len())).await,
    };
    match added {
        Err(error) if error.is_already_exists() => Ok(()),
        other => other,
    }
}

async fn drop_vip(connection: &Connection<Route>, vip: IpNet) -> Result<()> {
    let dropped = match (vip.addr(), is_host(vip)) {
        (address, true) => {
            connection
                .del_address("lo", address, vip.prefix_len())
                .await
        }
        (IpAddr::V4(net), false) => connection.del_route(route4(net, vip.prefix_len())).await,
        (IpAddr::V6(net), false) => connection.del_route(route6(net, vip.prefix_len())).await,
    };
    match dropped {
        Err(error) if !error.is_not_found() => {
            Err(error).with_context(|| format!("cannot give {vip} back"))
        }
        _ => Ok(()),
    }
}

fn route4(net: std::net::Ipv4Addr, length: u8) -> Ipv4Route {
    let route = Ipv4Route::from_addr(net, length).dev("lo").table(LOCAL);
    route.route_type(RouteType::Local).scope(RouteScope::Host)
}

fn route6(net: std::net::Ipv6Addr, length: u8) -> Ipv6Route {
    let route = Ipv6Route::from_addr(net, length).dev("lo").table(LOCAL);
    route.route_type(RouteType::Local).scope(RouteScope::Host)
}
