//! The data path: TCP and ping through an endpoint, beside plain routing between the same namespaces.
//!
//! ```text
//!          nsm0 ═══ links of the endpoint ═══ nsm0
//! client ──                 router                 ── server
//!        plain0 ═══ plain1          plain2 ═══ plain0
//! ```
//!
//! All of it is in network, mount and process namespaces of a process of its own, so that the kernel takes it away with
//! that process, however it ends.

mod netns;
mod probe;
mod world;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use self::world::World;
use super::Tell;
use super::figures::{median, ratio, shown};
use crate::table::Table;

/// What the process inside is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The `carrick` binary.
    carrick: PathBuf,
    /// Less of everything.
    #[arg(long)]
    quick: bool,
}

/// All rounds, through the endpoint and past it.
#[derive(Debug, Serialize, Deserialize)]
struct Results {
    endpoint: Vec<Round>,
    plain: Vec<Round>,
}

/// One way in one round.
#[derive(Debug, Serialize, Deserialize)]
struct Round {
    /// Bytes per second of one TCP stream.
    tcp: f64,
    /// Median time of a ping, in microseconds.
    ping: f64,
}

/// Measures in namespaces that are its own, and prints JSON.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let world = World::make(&args.carrick).await?;
    let (rounds, time, pings) = if args.quick {
        (1, Duration::from_millis(200), 50)
    } else {
        (7, Duration::from_millis(700), 2000)
    };
    let mut results = Results {
        endpoint: Vec::new(),
        plain: Vec::new(),
    };
    for _ in 0..rounds {
        for (way, address) in [
            (&mut results.endpoint, world.endpoint),
            (&mut results.plain, world.plain),
        ] {
            way.push(Round {
                tcp: probe::tcp(address, time).context("no TCP")?,
                ping: probe::ping(address, pings).context("no ping")?,
            });
        }
    }
    println!("{}", serde_json::to_string(&results)?);
    Ok(())
}

/// Starts this program again in new namespaces and has it measure there.
pub(super) async fn measure(carrick: &Path, quick: bool, tell: Tell<'_>) -> Result<Table> {
    tell("TCP and ping through an endpoint, beside plain routing");
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ])
        .arg(std::env::current_exe()?)
        .arg("path")
        .arg(carrick)
        .args(quick.then_some("--quick"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let output = command
        .output()
        .await
        .context("cannot start unshare: is util-linux installed?")?;
    ensure!(
        output.status.success(),
        "the data path cannot be measured ({}); it needs root, or leave it out with --only rates,idle",
        output.status
    );
    Ok(table(&serde_json::from_slice(&output.stdout)?))
}

/// Picks one figure.
type Figure = fn(&Round) -> f64;

/// Medians of each way, and the median of the ratios within a round.
fn table(results: &Results) -> Table {
    let head = ["", "endpoint", "plain routing", "ratio"];
    let mut table = Table::new("Packets through an endpoint", &head);
    let figures: [(&str, Figure); 2] = [
        ("TCP, Gbit/s", |round| round.tcp * 8.0 / 1e9),
        ("ping, µs", |round| round.ping),
    ];
    for (name, figure) in figures {
        let of = |rounds: &[Round]| median(rounds.iter().map(figure));
        let pairs = results.endpoint.iter().zip(&results.plain);
        let ratios = pairs.map(|(endpoint, plain)| figure(endpoint) / figure(plain));
        table.rows.push(vec![
            name.to_owned(),
            shown(of(&results.endpoint)),
            shown(of(&results.plain)),
            ratio(median(ratios), Some(1.0)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_those_within_a_round() {
        let rounds = |tcp: [f64; 3]| tcp.map(|tcp| Round { tcp, ping: 10.0 }).into();
        let table = table(&Results {
            endpoint: rounds([1e9, 2e9, 3e9]),
            plain: rounds([2e9, 2e9, 12e9]),
        });
        assert_eq!(table.rows[0], ["TCP, Gbit/s", "16.0", "16.0", "0.50"]);
        assert_eq!(table.rows[1], ["ping, µs", "10.0", "10.0", "1.00"]);
    }
}
