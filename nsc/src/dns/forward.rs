//! One question to one server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Time for the answer of one server.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Largest message by UDP that is worth reading.
pub(super) const UDP_MAX: usize = 4096;

/// How a question came, and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// What a server said.
pub(super) enum Said {
    /// It knows the name.
    Known(Vec<u8>),
    /// It has none such, or does not want to say.
    Unknown(Vec<u8>),
}

/// Asks one server; `None` if it does not answer in time.
pub(super) async fn ask(
    server: SocketAddr,
    transport: Transport,
    question: &[u8],
    query: &Query,
) -> Option<Said> {
    let asked = async {
        match transport {
            Transport::Tcp => by_tcp(server, question).await,
            Transport::Udp => by_udp(server, question, query).await,
        }
    };
    let answer = match timeout(TIMEOUT, asked).await.ok()? {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(%server, %error, "a name server was not asked");
            return None;
        }
    };
    let message = Message::from_vec(&answer).ok()?;
    if !is_answer_to(&message, query) {
        return None;
    }
    let is_known = message.metadata.response_code == ResponseCode::NoError;
    Some(if is_known {
        Said::Known(answer)
    } else {
        Said::Unknown(answer)
    })
}

/// Under an id and from a port that nobody has seen: who does not see the
/// question must guess both to answer it.
async fn by_udp(server: SocketAddr, question: &[u8], query: &Query) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let (id, mut asked) = (fastrand::u16(..), question.to_vec());
    set_id(&mut asked, id);
    socket.send(&asked).await?;
    let mut buffer = vec![0; UDP_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = &buffer[..length];
        let message = Message::from_vec(answer);
        if message.is_ok_and(|m| m.metadata.id == id && is_answer_to(&m, query)) {
            let mut answer = answer.to_vec();
            answer[..2].copy_from_slice(&question[..2]);
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, question).await?;
    read_framed(&mut stream).await
}

/// A message behind its length (RFC 1035 §4.2.2).
pub(super) async fn read_framed(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(super) async fn write_framed(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &[u8],
) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes()[..], message].concat();
    stream.write_all(&framed).await
}

/// The answer that nobody could be asked, with the question in it.
pub(super) fn failed(question: &[u8]) -> Vec<u8> {
    const SERVFAIL: u8 = 2;
    let mut answer = question.to_vec();
    if let [_, _, flags, code, ..] = &mut answer[..] {
        *flags |= 0x80;
        *code = (*code & 0x70) | 0x80 | SERVFAIL;
    }
    answer
}

fn set_id(message: &mut [u8], id: u16) {
    message[..2].copy_from_slice(&id.to_be_bytes());
}

fn is_answer_to(message: &Message, query: &Query) -> bool {
    let same =
        |asked: &Query| asked.name() == query.name() && asked.query_type() == query.query_type();
    message.metadata.message_type == MessageType::Response && message.queries.iter().any(same)
}
