//! `carrick-bench`: what developers measure.
//!
//! `cargo run --release -p carrick-bench -- endpoint` puts one load on the `carrick` binary, on the Go endpoint of
//! `tests/interop` and on a bare tonic server that answers each Request with itself. What is compared is the server's
//! own processor time and memory, so that the load generator's do not count. Quote the ratios, not the times.

mod endpoint;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures Carrick beside others.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the gRPC echo at this socket.
    #[command(hide = true)]
    Echo {
        /// The socket.
        socket: PathBuf,
    },
    /// An endpoint: what a Request costs, what an idle connection holds, and how fast packets pass.
    Endpoint(endpoint::Args),
    /// Measures the data path, in namespaces that are its own already.
    #[command(hide = true)]
    Path(endpoint::PathArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let done = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(args.command)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("carrick-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Echo { socket } => endpoint::echo(&socket).await,
        Command::Endpoint(args) => endpoint::run(&args).await,
        Command::Path(args) => endpoint::path(&args).await,
    }
}
