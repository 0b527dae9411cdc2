//! The carrick program: endpoint, client, prefix server, registry and vswitch
//! agent of a routed virtual layer 3 network, and what helps to see them.

mod bench;
mod demo;
mod hello;
mod http;
mod lb;
mod preflight;
mod programs;
mod sandbox;
mod status;
mod traffic;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A Network Service Mesh endpoint for routed virtual layer 3 networks.
///
/// The programs read their settings from the environment; `carrick <program>
/// --help` lists them.
#[derive(Debug, Parser)]
#[command(name = "carrick", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make links for endpoints that have no privileges (vswitch agent).
    #[command(after_help = programs::agent::help())]
    Agent,
    /// Measure on this machine.
    Bench(bench::Args),
    /// Show two domains, three nodes and five pods at work on this machine.
    Demo(demo::Args),
    /// Say hello over HTTP; the application of the demo.
    #[command(hide = true)]
    Hello(hello::Args),
    /// Lease prefixes to endpoints.
    #[command(after_help = programs::ipam::help())]
    Ipam(programs::ipam::Args),
    /// Balance VIPs over servers, and make servers.
    Lb(lb::Args),
    /// Request network services for this network namespace and keep them.
    #[command(after_help = programs::nsc::help())]
    Nsc,
    /// Serve a network service.
    #[command(after_help = programs::nse::help())]
    Nse(programs::nse::Args),
    /// Say what this node can do, and why not.
    Preflight(preflight::Args),
    /// Keep network services and endpoints for a domain without NSM.
    #[command(after_help = programs::registry::help())]
    Registry,
    /// Show a running program: connections, leases, peers, routes.
    Status(status::Args),
    /// Judge a load balancer from outside: servers, clients, tables, flows that are watched.
    Traffic(traffic::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        // Enters namespaces, which takes a process with a single thread.
        Command::Bench(args) => bench::run(&args),
        Command::Demo(args) => demo::run(args),
        command => programs::runtime(run(command)),
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Agent => programs::agent::run().await,
        Command::Bench(_) | Command::Demo(_) => unreachable!("they make their own runtimes"),
        Command::Hello(args) => hello::run(args).await.map(|()| ExitCode::SUCCESS),
        Command::Ipam(args) => programs::ipam::run(args).await,
        Command::Lb(args) => lb::run(args).await,
        Command::Nsc => programs::nsc::run().await,
        Command::Nse(args) => programs::nse::run(args).await,
        Command::Preflight(args) => preflight::run(args).await,
        Command::Registry => programs::registry::run().await,
        Command::Status(args) => status::run(args).await,
        Command::Traffic(args) => traffic::run(args).await,
    }
}
