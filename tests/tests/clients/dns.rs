//! Questions to a name server, put from within a pod.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use carrick_tests::Namespace;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Over what a question goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Tcp,
    Udp,
}

/// What is said to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) code: ResponseCode,
    /// The records' data as text, in order.
    pub(crate) data: Vec<String>,
}

/// Asks the server at `server` from `pod`; `None` if nobody answers.
pub(crate) fn ask(
    pod: &Namespace,
    server: IpAddr,
    name: &str,
    kind: RecordType,
    over: Over,
) -> Option<Said> {
    let mut question = Message::new(4711, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    let name = Name::from_ascii(name).expect("it is a name");
    question.add_query(Query::query(name, kind));
    let question = question.to_vec().expect("a question can be encoded");
    let at = SocketAddr::new(server, 53);
    let answer = pod.within(|| match over {
        Over::Tcp => over_tcp(at, &question),
        Over::Udp => over_udp(at, &question),
    });
    let answer = Message::from_vec(&answer.ok()?).expect("an answer is a message");
    let mut data: Vec<String> = answer
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect();
    data.sort_unstable();
    Some(Said {
        code: answer.metadata.response_code,
        data,
    })
}

fn over_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.send(question)?;
    let mut answer = vec![0; 65_535];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// Each message is preceded by its length (RFC 1035 §4.2.2).
fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let length = u16::try_from(question.len()).expect("a question is short");
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
