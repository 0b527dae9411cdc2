//! How evenly connections are spread.

use std::sync::Arc;

use anyhow::{Context, Result};
use carrick_traffic::{Client, Report, Spread, Verdict};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::netns::within;
use super::nft::{Choice, Rules};
use super::world::{CLIENT, World, sources, target};
use super::{Options, Tell};

/// How one balancer spread the connections.
#[derive(Clone, Debug, Serialize)]
pub struct Distribution {
    /// The policy.
    pub policy: String,
    /// What balanced.
    pub balancer: String,
    /// Connections that were not made or not answered.
    pub failed: u64,
    /// How even.
    pub spread: Spread,
    /// What chi-square says.
    pub verdict: Verdict,
    /// Connections per second; for comparison within this run only.
    pub rate: f64,
}

pub(super) fn measure(
    options: &Options,
    world: &World,
    tell: &mut Tell,
) -> Result<Vec<Distribution>> {
    let mut rows = Vec::new();
    let kernel = [
        ("random", Choice::Random),
        ("hash (jhash)", Choice::Hash),
        ("in turn", Choice::InTurn),
    ];
    for (policy, choice) in kernel {
        tell(&format!("distribution: nftables, {policy}"));
        let rules = Rules::install(choice, world.servers())?;
        rows.push(Distribution::of(
            policy,
            "nftables",
            &connect(options)?,
            options,
        ));
        drop(rules);
    }
    Ok(rows)
}

impl Distribution {
    fn of(policy: &str, balancer: &str, report: &Report, options: &Options) -> Self {
        let spread = report.spread(options.servers as usize);
        let seconds = report.duration.as_secs_f64();
        Self {
            policy: policy.into(),
            balancer: balancer.into(),
            failed: report.failed_connects + report.failed_reads,
            spread,
            verdict: spread.verdict(),
            rate: crate::float(options.connections) / seconds,
        }
    }
}

/// Connects from the client, from other addresses each time.
fn connect(options: &Options) -> Result<Report> {
    let client = Client {
        connections: options.connections,
        sources: Some(sources()),
        seed: fastrand::u64(..),
        ..Client::new(target())
    };
    within(CLIENT, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let run = client.run(Arc::default(), CancellationToken::new());
        runtime.block_on(run).context("the client could not begin")
    })
}
