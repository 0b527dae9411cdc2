use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::Namespace;

/// Longest wait for an answer; it comes in far less.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its name.
    pub server: String,
    /// Whom it saw.
    pub peer: SocketAddr,
    /// As whom it was asked.
    pub local: SocketAddr,
}

impl Answer {
    fn parse(text: &str) -> io::Result<Self> {
        let bad = || io::Error::other(format!("no answer: {text:?}"));
        let mut words = text.split_whitespace();
        let mut word = || words.next().ok_or_else(bad);
        Ok(Self {
            server: word()?.to_owned(),
            peer: word()?.parse().map_err(io::Error::other)?,
            local: word()?.parse().map_err(io::Error::other)?,
        })
    }
}

/// A TCP connection that is kept.
#[derive(Debug)]
pub struct Held {
    lines: BufReader<TcpStream>,
    /// What the server said at once.
    pub first: Answer,
}

impl Held {
    /// Connects from one of `client`'s addresses.
    ///
    /// # Errors
    ///
    /// Nobody answers in time, or a refusal.
    pub fn open(client: &Namespace, from: Option<IpAddr>, to: SocketAddr) -> io::Result<Self> {
        client.within(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            if let Some(from) = from {
                socket.bind(&SocketAddr::new(from, 0).into())?;
            }
            socket.connect_timeout(&to.into(), PATIENCE)?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut lines = BufReader::new(stream);
            let first = read(&mut lines)?;
            Ok(Self { lines, first })
        })
    }

    /// The client's end.
    ///
    /// # Panics
    ///
    /// Never: it is connected.
    #[must_use]
    pub fn from(&self) -> SocketAddr {
        let stream = self.lines.get_ref();
        stream.local_addr().expect("it is connected")
    }

    /// Asks again on the same connection, with `size` more bytes.
    ///
    /// # Errors
    ///
    /// It is broken.
    pub fn again_with(&mut self, size: usize) -> io::Result<Answer> {
        self.lines.get_mut().write_all(&vec![b'x'; size])?;
        self.again()
    }

    /// Asks again on the same connection.
    ///
    /// # Errors
    ///
    /// It is broken.
    pub fn again(&mut self) -> io::Result<Answer> {
        self.lines.get_mut().write_all(b"again\n")?;
        read(&mut self.lines)
    }
}

fn read(lines: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    Answer::parse(&line)
}

/// Asks over a new TCP connection.
///
/// # Errors
///
/// Nobody answers in time, or a refusal.
pub fn ask(client: &Namespace, to: SocketAddr) -> io::Result<Answer> {
    Ok(Held::open(client, None, to)?.first)
}

/// Asks over a new TCP connection from an address of the client.
///
/// # Errors
///
/// As [`ask`].
pub fn ask_from(client: &Namespace, from: IpAddr, to: SocketAddr) -> io::Result<Answer> {
    Ok(Held::open(client, Some(from), to)?.first)
}

/// Asks with one UDP packet of `size` bytes from a new socket.
///
/// # Errors
///
/// Nobody answers in time, or a refusal.
pub fn ask_udp(client: &Namespace, to: SocketAddr, size: usize) -> io::Result<Answer> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let any = SocketAddr::new(any, 0);
    ask_udp_from(client, any, to, size)
}

/// Asks with one UDP packet of `size` bytes.
///
/// # Errors
///
/// As [`ask_udp`].
pub fn ask_udp_from(
    client: &Namespace,
    from: SocketAddr,
    to: SocketAddr,
    size: usize,
) -> io::Result<Answer> {
    client.within(|| {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(&vec![b'x'; size])?;
        let mut packet = [0; 512];
        let length = socket.recv(&mut packet)?;
        Answer::parse(&String::from_utf8_lossy(&packet[..length]))
    })
}
