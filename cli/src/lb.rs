//! The load balancer: `carrick lb`.

mod clean;
mod metrics;
mod plane;
mod privileges;
mod run;
mod server;
mod status;
pub(crate) mod vl3;
mod watch;

use std::process::ExitCode;

use anyhow::Result;

/// What `carrick lb` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Remove what a killed balancer or server left in the kernel.
    Clean(clean::Args),
    /// Balance the services of a file (docs/load-balancer-config.md).
    Run(run::Args),
    /// Make this machine or namespace a server: VIPs on loopback, packets unwrapped.
    Server(server::Args),
    /// Show a running balancer: VIPs, servers, flows, drop reasons.
    Status(status::Args),
    /// Balance in a routed network: the VIP is an address of it, its clients are the servers.
    #[command(after_help = vl3::help())]
    Vl3,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Clean(args) => clean::run(args).await,
        Command::Run(args) => run::run(args).await,
        Command::Server(args) => server::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Vl3 => vl3::run().await,
    }
}
