//! `carrick traffic`: judges any load balancer from outside.

mod client;
mod ending;
mod server;
mod sight;
mod table;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What `carrick traffic` is told.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make many connections and count which server answered each.
    Client(client::Args),
    /// Tell this machine's name to whoever connects.
    Server(server::Args),
    /// Show results side by side: how many servers got how many connections.
    Table(table::Args),
    /// Hold flows and tell which are reset, stall or move to another server.
    Watch(watch::Args),
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Client(args) => client::run(args).await,
        Command::Server(args) => server::run(args).await,
        Command::Table(args) => table::run(&args),
        Command::Watch(args) => watch::run(args).await,
    }
}
