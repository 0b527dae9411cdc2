//! `carrick traffic server`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::Result;
use carrick_traffic::{Error, Name, Server, Transport, allow_open_files};

use super::ending;

/// Connections at a time for which files are kept ready if the process may have so many.
const CONNECTIONS: u64 = 1 << 20;

/// What `carrick traffic server` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen, such as `10.0.0.1:5001` or `[::]:5001`; may be repeated.
    ///
    /// Without it, port 5001 of all addresses, IPv4 and IPv6 (as far as the machine has them).
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// What to call itself; without it the host name.
    #[arg(long, conflicts_with = "name_by_address")]
    name: Option<String>,
    /// Call itself by the address that was connected to: one process stands for many servers.
    #[arg(long)]
    name_by_address: bool,
    /// What to serve: tcp, udp, sctp.
    #[arg(
        long,
        value_name = "TRANSPORTS",
        value_delimiter = ',',
        default_value = "tcp,udp"
    )]
    transport: Vec<Transport>,
    /// Say nothing.
    #[arg(long, short)]
    quiet: bool,
}

pub(super) async fn run(args: Args) -> Result<ExitCode> {
    // Fewer will do for most; the limit then is what the machine says.
    let _ = allow_open_files(CONNECTIONS).or_else(|error| match error {
        Error::Files { allowed, .. } => allow_open_files(allowed.saturating_sub(64)),
        other => Err(other),
    });
    let name = match args.name {
        Some(name) => Name::Fixed(name),
        None if args.name_by_address => Name::LocalAddress,
        None => Name::hostname(),
    };
    let server = bind(&name, &args.listen, &args.transport)?;
    if !args.quiet {
        let what = match &name {
            Name::Fixed(name) => format!("as {name}"),
            Name::LocalAddress => "under the address that is connected to".into(),
        };
        eprintln!("serving {what}:");
        for (transport, address) in server.addresses() {
            eprintln!("  {transport} {address}");
        }
    }
    server.serve(ending::on_signal()?).await?;
    Ok(ExitCode::SUCCESS)
}

fn bind(name: &Name, listen: &[SocketAddr], transports: &[Transport]) -> Result<Server, Error> {
    if !listen.is_empty() {
        return Server::bind(name.clone(), listen, transports);
    }
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5001));
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5001));
    // A machine without IPv6 serves IPv4 alone.
    Server::bind(name.clone(), &[v4, v6], transports).or_else(|error| match error {
        Error::Listen { address, .. } if address == v6 => {
            Server::bind(name.clone(), &[v4], transports)
        }
        error => Err(error),
    })
}
