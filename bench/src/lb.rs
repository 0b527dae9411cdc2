//! A load balancer beside others, in one run.
//!
//! Everything happens in network namespaces that this makes: a client with a whole prefix of addresses, a balancer,
//! and servers (one machine with many addresses, each of which answers with its own name). It must run in a mount,
//! process and network namespace of its own, as root; what is made then goes with the process.
//!
//! Read [`Options`] and [`Results`] first. Times depend on the machine: what is compared is what stands in one table.

mod distribution;
mod netns;
mod nft;
mod report;
mod world;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

pub use distribution::Distribution;
pub use report::{Machine, Results};

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
    /// Less of everything, for a look or a test.
    pub quick: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// How evenly each policy spreads connections.
    Distribution,
}

/// Measures. What is under way is told to `tell`.
///
/// # Errors
///
/// Something that is needed is missing, or a balancer could not be set up.
pub fn run(options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Results> {
    ensure!(
        (1..=60_000).contains(&options.servers),
        "servers: from 1 to 60000"
    );
    let wanted = |part| options.parts.is_empty() || options.parts.contains(&part);
    let mut results = Results::new(options);
    tell("making a client, a balancer and servers (network namespaces)");
    let world = world::World::make(options.servers).context("cannot make the namespaces")?;
    if wanted(Part::Distribution) {
        results.distribution = distribution::measure(options, &world, tell)?;
    }
    Ok(results)
}
