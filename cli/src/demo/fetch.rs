//! Every pod asks every other for its hello, by address and by name.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::netns::within_async;
use super::plan::HELLO_PORT;

/// A pod as the others see it.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: &'static str,
    pub(crate) address: IpAddr,
    /// The name server that it was told of.
    pub(crate) name_server: IpAddr,
    /// Its own name in the network.
    pub(crate) domain_name: String,
}

/// One answer, or why there was none.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) by_address: Result<Duration>,
    pub(crate) by_name: Result<Duration>,
}

impl Fetch {
    pub(crate) fn is_ok(&self) -> bool {
        self.by_address.is_ok() && self.by_name.is_ok()
    }
}

/// All pairs.
pub(crate) async fn all(pods: &[Pod]) -> Result<Vec<Fetch>> {
    let mut fetches = Vec::new();
    for from in pods.iter().cloned() {
        let others: Vec<Pod> = pods
            .iter()
            .filter(|pod| pod.name != from.name)
            .cloned()
            .collect();
        let name = from.name;
        let asked = within_async(name, move || from_one(from, others));
        fetches.extend(
            asked
                .await
                .with_context(|| format!("cannot enter {name}"))?,
        );
    }
    Ok(fetches)
}

async fn from_one(from: Pod, others: Vec<Pod>) -> Vec<Fetch> {
    let mut fetches = Vec::new();
    for to in others {
        fetches.push(Fetch {
            from: from.name,
            to: to.name,
            by_address: timed(hello(to.address, to.name)).await,
            by_name: timed(by_name(from.name_server, &to)).await,
        });
    }
    fetches
}

async fn timed(work: impl Future<Output = Result<()>>) -> Result<Duration> {
    let begin = Instant::now();
    timeout(Duration::from_secs(3), work)
        .await
        .context("no answer within 3 s")??;
    Ok(begin.elapsed())
}

async fn hello(address: IpAddr, instance: &str) -> Result<()> {
    let io = TcpStream::connect(SocketAddr::new(address, HELLO_PORT)).await?;
    let (status, body) = crate::http::get(io, &address.to_string(), "/hello").await?;
    let expected = format!("Hello version: v1, instance: {instance}\n");
    ensure!(
        status.is_success() && body == expected.as_bytes(),
        "answered {status}, {body:?}"
    );
    Ok(())
}

async fn by_name(server: IpAddr, to: &Pod) -> Result<()> {
    let address = resolve(server, &to.domain_name).await?;
    ensure!(
        address == to.address,
        "{} is said to be {address}",
        to.domain_name
    );
    hello(address, to.name).await
}

/// Asks `server` for the address of `name`.
pub(crate) async fn resolve(server: IpAddr, name: &str) -> Result<IpAddr> {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
    let unspecified: IpAddr = match server {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((unspecified, 0)).await?;
    socket.connect((server, 53)).await?;
    socket.send(&message.to_vec()?).await?;
    let mut packet = [0; 1232];
    let length = socket.recv(&mut packet).await?;
    let answer = Message::from_vec(&packet[..length])?;
    for record in &answer.answers {
        if let RData::A(address) = &record.data {
            return Ok(address.0.into());
        }
    }
    bail!("{name} has no address: {}", answer.metadata.response_code)
}
