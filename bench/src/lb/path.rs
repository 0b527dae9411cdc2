//! Packets per second on a real path: a client's veth, the balancer, a server's veth. One processor does it all: it makes
//! the packets, balances them and takes them away at the other end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use serde::Serialize;

use super::netns::within;
use super::nft::{Choice, Rules};
use super::ours::{Config, Ours, Plane};
use super::rig::{Packet, Rig, What};
use super::world::{BALANCER, CLIENT, PORT, SERVERS, VIP, World};
use super::{Options, Tell};

/// Longest wait for packets that are still under way.
const TAIL: Duration = Duration::from_secs(2);

/// How fast a path is.
#[derive(Clone, Debug, Serialize)]
pub struct PathSpeed {
    /// What is on it.
    pub path: String,
    /// Flows that take turns.
    pub flows: u32,
    /// Packets that were sent in one round.
    pub sent: u64,
    /// Of those, what did not arrive in the worst round.
    pub lost: u64,
    /// Packets per second of the best round.
    pub best: f64,
    /// Of the middle one.
    pub median: f64,
}

/// What of this project is on the path, and how packets get to servers.
const OURS: [(Plane, &str); 6] = [
    (Plane::Xdp, "nat"),
    (Plane::Xdp, "ipip"),
    (Plane::Xdp, "l2"),
    (Plane::Tc, "nat"),
    (Plane::Tc, "ipip"),
    (Plane::Nftables, "nat"),
];

/// Where packets end that were balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At the balancer, as a floor.
    Balancer,
    /// At the servers, by way of the balancer's own packet program.
    Own,
    /// At the servers.
    Servers,
}

struct Path<'a> {
    options: &'a Options,
    rig: Rig,
    to: std::net::Ipv4Addr,
}

pub(super) fn measure(options: &Options, world: &World, tell: &mut Tell) -> Result<Vec<PathSpeed>> {
    within(CLIENT, || {
        super::stay_on_one_processor().and_then(|()| all(options, world, tell))
    })
}

fn all(options: &Options, world: &World, tell: &mut Tell) -> Result<Vec<PathSpeed>> {
    let mut rows = Vec::new();
    tell("path: making packets and dropping them at once");
    rows.extend(
        Path::open(options, End::Balancer, VIP)?.speeds("generator, dropped at the balancer")?,
    );
    tell("path: plain forwarding");
    let server = world.servers().next().context("no server")?;
    rows.extend(Path::open(options, End::Servers, server)?.speeds("forwarding, no balancer")?);
    tell("path: nftables DNAT, random");
    let rules = Rules::install(Choice::Random, world.servers())?;
    rows.extend(Path::open(options, End::Servers, VIP)?.speeds("nftables DNAT, random")?);
    drop(rules);
    for (plane, mode) in OURS {
        let path = format!("{}, {mode}", plane.name());
        tell(&format!("path: {path}"));
        let config = Config {
            plane,
            policy: "weighted-round-robin",
            mode,
            more: String::new(),
            servers: world.servers().map(|address| (address, 1)).collect(),
        };
        let ours = match Ours::start(&options.carrick, BALANCER, &config) {
            Ok(ours) => ours,
            Err(error) => {
                tell(&format!("  left out: {error:#}"));
                continue;
            }
        };
        let end = if plane == Plane::Xdp {
            End::Own
        } else {
            End::Servers
        };
        rows.extend(Path::open(options, end, VIP)?.speeds(&path)?);
        drop(ours);
    }
    Ok(rows)
}

impl<'a> Path<'a> {
    /// Without another program on the balancer's interface, one that passes everything is needed there: it lets the
    /// interface take frames from a program.
    fn open(options: &'a Options, end: End, to: std::net::Ipv4Addr) -> Result<Self> {
        let mut rig = Rig::load()?;
        match end {
            End::Balancer => within(BALANCER, || rig.attach("sink", "b0"))?,
            End::Own => {}
            End::Servers => within(BALANCER, || rig.attach("pass", "b0"))?,
        }
        if end != End::Balancer {
            within(SERVERS, || rig.attach("sink", "s0"))?;
        }
        Ok(Self { options, rig, to })
    }

    fn speeds(mut self, path: &str) -> Result<Vec<PathSpeed>> {
        let flows: &[u32] = if self.options.quick {
            &[10_000]
        } else {
            &[1, 10_000, 100_000]
        };
        flows.iter().map(|&flows| self.speed(path, flows)).collect()
    }

    fn speed(&mut self, path: &str, flows: u32) -> Result<PathSpeed> {
        let (packets, rounds) = if self.options.quick {
            (50_000, 2)
        } else {
            (500_000, 7)
        };
        let interface = if_nametoindex("c0").context("the client has no c0")?;
        let packet = Packet {
            what: What::Udp,
            to: self.to.into(),
            port: PORT,
            flows,
            ethernet: [super::world::MACS.balancer, super::world::MACS.client],
            // XDP_TX.
            verdict: 3,
            offset: 0x0100,
        };
        self.rig.hand_to(None)?;
        self.rig.make(&packet)?;
        // Neighbours and flows become known.
        self.round(&packet, flows.max(1000), interface)?;
        let mut speeds = Vec::new();
        let mut lost = 0;
        for _ in 0..rounds {
            let (arrived, time) = self.round(&packet, packets, interface)?;
            lost = lost.max(u64::from(packets).saturating_sub(arrived));
            speeds.push(crate::float(arrived) / time.as_secs_f64());
        }
        speeds.sort_by(f64::total_cmp);
        let best = *speeds.last().context("no rounds")?;
        ensure!(best > 0.0, "{path}: nothing arrives");
        Ok(PathSpeed {
            path: path.to_owned(),
            flows,
            sent: packets.into(),
            lost,
            best,
            median: speeds[speeds.len() / 2],
        })
    }

    /// Sends and waits; what arrived, and in what time.
    fn round(&mut self, packet: &Packet, packets: u32, interface: u32) -> Result<(u64, Duration)> {
        self.rig.take_sunk()?;
        let start = Instant::now();
        self.rig.send(packet, packets, interface)?;
        let (mut arrived, mut last) = (self.rig.take_sunk()?, Instant::now());
        // What is still in queues arrives soon or never.
        while arrived < packets.into() && last.elapsed() < TAIL.min(start.elapsed()) {
            std::thread::yield_now();
            let more = self.rig.take_sunk()?;
            if more > 0 {
                (arrived, last) = (arrived + more, Instant::now());
            }
        }
        Ok((arrived, last - start))
    }
}
