use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::forward::{Said, Transport, UDP_MAX, ask, failed, read_framed, write_framed};
use super::zones::Zones;

/// Questions in hand at once; more are left to the asker's own repetition.
const QUESTIONS: usize = 256;

/// TCP connections at once; more wait to be accepted.
const CONNECTIONS: usize = 64;

/// Time after which a TCP connection is closed that asks nothing.
const IDLE: Duration = Duration::from_secs(10);

/// Passes questions on to whom they are for.
#[derive(Debug)]
pub(super) struct Proxy {
    udp: UdpSocket,
    tcp: TcpListener,
    zones: watch::Receiver<Zones>,
    /// Port of the servers that are asked: 53 except in tests.
    port: u16,
}

impl Proxy {
    /// Listens on `address`, by UDP and TCP.
    pub(super) async fn bind(
        address: SocketAddr,
        zones: watch::Receiver<Zones>,
        port: u16,
    ) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        // The same port, also where any would do.
        let udp = UdpSocket::bind(tcp.local_addr()?).await?;
        Ok(Self {
            udp,
            tcp,
            zones,
            port,
        })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers until `stop` is cancelled.
    pub(super) async fn serve(self, stop: CancellationToken) {
        let Self {
            udp,
            tcp,
            zones,
            port,
        } = self;
        let router = Arc::new(Router { zones, port });
        let served = async { tokio::join!(serve_udp(udp, &router), serve_tcp(tcp, &router)) };
        stop.run_until_cancelled(served).await;
    }
}

async fn serve_udp(socket: UdpSocket, router: &Arc<Router>) {
    let (socket, permits) = (Arc::new(socket), Arc::new(Semaphore::new(QUESTIONS)));
    let mut buffer = vec![0; UDP_MAX];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // Of an answer that nobody waited for.
                debug!(%error, "a question was not received");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            continue;
        };
        let (router, socket, question) = (
            Arc::clone(router),
            Arc::clone(&socket),
            buffer[..length].to_vec(),
        );
        tokio::spawn(async move {
            if let Some(answer) = router.answer(Transport::Udp, &question).await
                && let Err(error) = socket.send_to(&answer, from).await
            {
                debug!(%error, "an answer was not sent");
            }
            drop(permit);
        });
    }
}

async fn serve_tcp(listener: TcpListener, router: &Arc<Router>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let tracker = TaskTracker::new();
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let router = Arc::clone(router);
        tracker.spawn(async move {
            router.converse(stream).await;
            drop(permit);
        });
    }
}

struct Router {
    zones: watch::Receiver<Zones>,
    port: u16,
}

impl Router {
    async fn converse(&self, mut stream: TcpStream) {
        while let Ok(Ok(question)) = timeout(IDLE, read_framed(&mut stream)).await {
            let Some(answer) = self.answer(Transport::Tcp, &question).await else {
                return;
            };
            let written = timeout(IDLE, write_framed(&mut stream, &answer)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// The first answer of one who knows the name, else the first that there
    /// is; `None` to what is no question.
    async fn answer(&self, transport: Transport, question: &[u8]) -> Option<Vec<u8>> {
        let message = Message::from_vec(question).ok()?;
        let is_query = message.metadata.message_type == MessageType::Query
            && message.metadata.op_code == OpCode::Query;
        let [query] = &message.queries[..] else {
            return None;
        };
        if !is_query {
            return None;
        }
        let servers = self.zones.borrow().servers(query.name());
        let mut unknown = None;
        for server in servers {
            let server = SocketAddr::new(server, self.port);
            match ask(server, transport, question, query).await {
                Some(Said::Known(answer)) => return Some(answer),
                Some(Said::Unknown(answer)) => {
                    unknown.get_or_insert(answer);
                }
                None => {}
            }
        }
        Some(unknown.unwrap_or_else(|| failed(question)))
    }
}
