//! What a Request costs an endpoint, beside a server that only echoes.
//!
//! `cargo run --release -p carrick-bench` starts the `carrick` binary (full
//! serving chain and durable state, but no links) and a bare tonic server that
//! answers each Request with itself, one after the other, and puts the same load
//! on both. What is compared is the server's own processor time, so that the
//! load generator's does not count. Quote the ratios, not the times.

mod baseline;
mod load;
mod process;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::load::{Load, Measured};
use crate::process::Server;

/// Measures an endpoint against a bare gRPC echo.
#[derive(Debug, Parser)]
struct Args {
    /// The `carrick` binary; default is the one beside this program.
    #[arg(long)]
    carrick: Option<PathBuf>,
    /// Connections to open, refresh and close in each round.
    #[arg(long, default_value_t = 5000)]
    connections: usize,
    /// Refreshes of each connection.
    #[arg(long, default_value_t = 3)]
    refreshes: usize,
    /// Requests under way at a time.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// Rounds; the median of each figure is shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Serve as the baseline at this socket.
    #[arg(long, hide = true)]
    echo: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let done = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("carrick-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    if let Some(socket) = args.echo {
        return baseline::serve(&socket).await;
    }
    let load = Load {
        connections: args.connections,
        refreshes: args.refreshes,
        concurrency: args.concurrency,
    };
    let carrick = args.carrick.map_or_else(process::beside, Ok)?;
    let (mut ours, mut echo) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        ours.push(load.measure(Server::endpoint(&carrick).await?).await?);
        echo.push(load.measure(Server::echo().await?).await?);
    }
    print!("{}", table(&ours, &echo));
    Ok(())
}

/// Picks one figure.
type Figure = fn(&Measured) -> f64;

/// The medians side by side.
fn table(ours: &[Measured], echo: &[Measured]) -> String {
    let rows: [(&str, Figure); 7] = [
        ("new connections per second", |m| m.open.rate),
        ("refreshes per second", |m| m.refresh.rate),
        ("closes per second", |m| m.close.rate),
        ("CPU ms per 1,000 new connections", |m| {
            m.open.cpu_ms_per_1000
        }),
        ("CPU ms per 1,000 refreshes", |m| m.refresh.cpu_ms_per_1000),
        ("CPU ms per 1,000 closes", |m| m.close.cpu_ms_per_1000),
        ("resident KiB per idle connection", |m| m.kib_per_connection),
    ];
    let mut text = format!("{:<36}{:>12}{:>12}{:>10}\n", "", "carrick", "echo", "ratio");
    for (name, figure) in rows {
        let (ours, echo) = (median(ours, figure), median(echo, figure));
        let ratio = if echo > 0.0 {
            format!("{:.2}", ours / echo)
        } else {
            "-".into()
        };
        writeln!(text, "{name:<36}{ours:>12.1}{echo:>12.1}{ratio:>10}")
            .expect("a String takes all text");
    }
    text
}

fn median(measured: &[Measured], figure: Figure) -> f64 {
    let mut figures: Vec<f64> = measured.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
