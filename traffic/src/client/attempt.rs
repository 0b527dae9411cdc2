//! One connection.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use nix::libc;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use super::Client;
use crate::Transport;

/// What a client says to a UDP server.
const HELLO: &[u8] = b"Hello";

/// Longest name that is read.
const NAME_MAX: usize = 256;

/// A connection that was made and answered.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) host: String,
    pub(super) connected: Duration,
    pub(super) answered: Duration,
    pub(super) retried: u32,
    pub(super) stream: Option<TcpStream>,
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Connect,
    Read,
}

/// A connection that was not made or not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) kind: String,
}

impl Failure {
    pub(super) fn new(stage: Stage, kind: &str) -> Self {
        let kind = kind.to_owned();
        Self { stage, kind }
    }

    fn of(stage: Stage) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::new(stage, &describe(&error))
    }
}

impl Attempt {
    pub(super) async fn make(
        client: &Client,
        source: Option<IpAddr>,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        if client.transport == Transport::Udp {
            return Self::ask(client, source, deadline).await;
        }
        let start = Instant::now();
        let connecting = client.transport.connect(client.target, source);
        let connected = timeout_at(deadline, connecting).await;
        let mut stream = connected
            .unwrap_or_else(|_| Err(timed_out()))
            .map_err(Failure::of(Stage::Connect))?;
        let connected = start.elapsed();
        let mut name = [0; NAME_MAX];
        let read = timeout_at(deadline, stream.read(&mut name)).await;
        let length = read
            .unwrap_or_else(|_| Err(timed_out()))
            .map_err(Failure::of(Stage::Read))?;
        if length == 0 {
            return Err(Failure::new(Stage::Read, "closed"));
        }
        Ok(Self {
            host: host(&name[..length]),
            connected,
            answered: start.elapsed(),
            retried: 0,
            stream: Some(stream),
        })
    }

    /// A datagram there and one back.
    async fn ask(
        client: &Client,
        source: Option<IpAddr>,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let start = Instant::now();
        let socket = Transport::connect_datagrams(client.target, source)
            .map_err(Failure::of(Stage::Connect))?;
        let connected = start.elapsed();
        let mut name = [0; NAME_MAX];
        let mut retried = 0;
        let length = loop {
            let asked = timeout_at(deadline, question(&socket, &mut name, client.patience)).await;
            match asked.unwrap_or_else(|_| Err(timed_out())) {
                Ok(length) => break length,
                Err(error) if retried == client.retries || Instant::now() >= deadline => {
                    return Err(Failure::of(Stage::Read)(error));
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => retried += 1,
                Err(error) => return Err(Failure::of(Stage::Read)(error)),
            }
        };
        Ok(Self {
            host: host(&name[..length]),
            connected,
            answered: start.elapsed(),
            retried,
            stream: None,
        })
    }
}

async fn question(socket: &UdpSocket, name: &mut [u8], patience: Duration) -> io::Result<usize> {
    socket.send(HELLO).await?;
    timeout(patience, socket.recv(name))
        .await
        .unwrap_or_else(|_| Err(timed_out()))
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

/// A server's name as it came.
pub(crate) fn host(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    Closed,
    Reset,
}

/// What an error on an open connection means.
pub(crate) fn fate(error: &io::Error) -> Gone {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Gone::Closed,
        _ => Gone::Reset,
    }
}

/// The kind of an error in few words, the same for all of that kind.
pub(crate) fn describe(error: &io::Error) -> String {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
        io::ErrorKind::TimedOut => "timed out",
        io::ErrorKind::UnexpectedEof => "closed",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable",
        io::ErrorKind::AddrNotAvailable if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
            "no free port"
        }
        io::ErrorKind::PermissionDenied => "prohibited",
        _ => return error.to_string(),
    };
    kind.to_owned()
}
