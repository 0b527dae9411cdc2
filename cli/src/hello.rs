//! The demo's application: says hello over HTTP and returns UDP packets.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::get;
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};

/// What the program `carrick hello` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Who says hello.
    #[arg(long)]
    name: String,
    /// Where to listen, TCP and UDP.
    #[arg(long, default_value = "[::]:5000")]
    listen: SocketAddr,
}

/// Serves until it is stopped.
pub(crate) async fn run(args: Args) -> Result<()> {
    let at = args.listen;
    let listener = TcpListener::bind(at)
        .await
        .with_context(|| format!("cannot listen on {at}"))?;
    let udp = UdpSocket::bind(at)
        .await
        .with_context(|| format!("cannot listen on {at}"))?;
    let text = format!("Hello version: v1, instance: {}\n", args.name);
    let app = Router::new().route("/hello", get(move || async move { text }));
    let mut terminate = signal(SignalKind::terminate()).context("cannot receive signals")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        served = axum::serve(listener, app) => served.context("cannot serve HTTP"),
        returned = give_back(udp) => returned.context("cannot serve UDP"),
    }
}

/// Returns every packet to its sender.
async fn give_back(socket: UdpSocket) -> std::io::Result<()> {
    let mut packet = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut packet).await?;
        socket.send_to(&packet[..length], from).await?;
    }
}
