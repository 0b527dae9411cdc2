//! A load balancer beside others, in one run.
//!
//! Everything happens in network namespaces that this makes: a client with a whole prefix of addresses, a balancer,
//! and servers (one machine with many addresses, each of which answers with its own name). It must run in a mount,
//! process and network namespace of its own, as root; what is made then goes with the process.
//!
//! Read [`Options`] and [`Results`] first. Times depend on the machine: what is compared is what stands in one table.

mod distribution;
mod live;
mod netns;
mod nft;
mod offload;
mod ours;
mod packets;
mod path;
mod report;
mod rig;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use world::World;

pub use distribution::Distribution;
pub use live::Live;
pub use packets::{Other, PacketCost};
pub use path::PathSpeed;
pub use report::{Machine, Results};
pub use rig::Cost;

/// What is measured, and how much of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program that can `lb run`; usually the one that runs this.
    pub carrick: PathBuf,
    /// Only some parts; empty for all of them.
    pub parts: Vec<Part>,
    /// Connections that are spread over the servers.
    pub connections: u64,
    /// Servers that they are spread over, at most 60,000.
    pub servers: u32,
    /// Another packet program to measure.
    pub subject: Option<Other>,
    /// Less of everything, for a look or a test.
    pub quick: bool,
}

/// Takes what is under way.
pub type Tell = dyn FnMut(&str) + Send;

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// How evenly each policy spreads connections.
    Distribution,
    /// What becomes of flows while servers come and go.
    Live,
    /// What a packet costs, in nanoseconds.
    Packets,
    /// Packets per second from a veth to a veth.
    Path,
}

/// Measures. What is under way is told to `tell`.
///
/// # Errors
///
/// Something that is needed is missing, or a balancer could not be set up.
pub fn run(options: &Options, tell: &mut Tell) -> Result<Results> {
    ensure!(
        (1..=60_000).contains(&options.servers),
        "servers: from 1 to 60000"
    );
    let wanted = |part| options.parts.is_empty() || options.parts.contains(&part);
    let mut results = Results::new(options);
    tell("making a client, a balancer and servers (network namespaces)");
    let world =
        World::make(&options.carrick, options.servers).context("cannot make the namespaces")?;
    if wanted(Part::Distribution) {
        results.distribution = distribution::measure(options, &world, tell)?;
    }
    if wanted(Part::Live) {
        results.live = live::measure(options, &world, tell)?;
    }
    if wanted(Part::Packets) {
        results.packets = packets::measure(options, &world, tell)?;
    }
    if wanted(Part::Path) {
        results.path = path::measure(options, &world, tell)?;
    }
    Ok(results)
}

/// Keeps this thread on one processor, so that its caches and tables are one program's.
fn stay_on_one_processor() -> Result<()> {
    let mut one = CpuSet::new();
    one.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &one).context("cannot stay on one processor")
}

/// Waits on a thread that nothing else waits for.
#[expect(clippy::disallowed_methods, reason = "no runtime's thread")]
fn rest(time: Duration) {
    std::thread::sleep(time);
}
