use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use carrick_agent::{Agent, Netns, Protocol};
use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::Record;
use hickory_server::Server;
use hickory_server::net::NetError;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Answer, Resolver};

/// Why names are not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is no socket to be had.
    #[error("cannot bind {0}")]
    Bind(SocketAddr, #[source] carrick_agent::Error),
    /// A socket does not work.
    #[error("the socket at {0} does not work")]
    Socket(SocketAddr, #[source] std::io::Error),
    /// The server ended.
    #[error("the name server ended")]
    Server(#[source] NetError),
}

/// Idle time after which a TCP connection is closed.
const TCP_IDLE: Duration = Duration::from_secs(5);
/// Answers that one TCP connection may leave unread.
const TCP_ANSWERS: usize = 32;
/// Delay before sockets are bound anew.
const RETRY: Duration = Duration::from_millis(500);

/// Where names are served.
#[derive(Clone, Debug)]
pub enum ServeAt {
    /// At one address of the process's own namespace.
    Address(SocketAddr),
    /// At this port of the endpoint's own addresses in a namespace.
    Own(Netns, u16),
}

impl ServeAt {
    fn netns(&self) -> &Netns {
        match self {
            Self::Address(_) => &Netns::Own,
            Self::Own(netns, _) => netns,
        }
    }

    fn sockets(&self, own: &[IpAddr]) -> Vec<SocketAddr> {
        match self {
            Self::Address(at) => vec![*at],
            Self::Own(_, port) => own.iter().map(|ip| SocketAddr::new(*ip, *port)).collect(),
        }
    }
}

/// Serves names, UDP and TCP, until `stop`, once the endpoint has an address.
/// Follows its addresses when they change, and begins anew when a socket is
/// lost.
pub async fn serve(
    resolver: Arc<Resolver>,
    agent: Arc<dyn Agent>,
    at: ServeAt,
    stop: CancellationToken,
) {
    let mut prefixes = resolver.vl3().prefixes();
    while !stop.is_cancelled() {
        prefixes.mark_unchanged();
        let addresses = resolver.vl3().addresses();
        let sockets = at.sockets(&addresses);
        let moved = async {
            while resolver.vl3().addresses() == addresses {
                if prefixes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = moved => {}
            result = serve_at(&resolver, &*agent, at.netns(), &sockets), if !addresses.is_empty() => {
                if let Err(error) = result {
                    tracing::warn!(error = &error as &dyn std::error::Error, "names are not served");
                }
                let _ = stop.run_until_cancelled(sleep(RETRY)).await;
            }
        }
    }
}

async fn serve_at(
    resolver: &Arc<Resolver>,
    agent: &dyn Agent,
    netns: &Netns,
    sockets: &[SocketAddr],
) -> Result<(), ServeError> {
    let mut server = Server::new(Handler::new(Arc::clone(resolver)));
    for &at in sockets {
        let bind = |protocol| agent.bind(netns, protocol, at);
        let udp = bind(Protocol::Udp)
            .await
            .map_err(|error| ServeError::Bind(at, error))?;
        let tcp = bind(Protocol::Tcp)
            .await
            .map_err(|error| ServeError::Bind(at, error))?;
        let lost = |error| ServeError::Socket(at, error);
        server.register_socket(UdpSocket::from_std(udp.into()).map_err(lost)?);
        let listener = TcpListener::from_std(tcp.into()).map_err(lost)?;
        server.register_listener(listener, TCP_IDLE, TCP_ANSWERS);
    }
    tracing::info!(?sockets, "names are served");
    server.block_until_done().await.map_err(ServeError::Server)
}

/// Turns DNS messages into questions for the resolver, and its answers back.
struct Handler {
    resolver: Arc<Resolver>,
    permits: Semaphore,
}

impl Handler {
    /// Most questions in hand at once; more are answered SERVFAIL.
    const QUESTIONS_MAX: usize = 1024;
    /// Largest UDP answer: what passes everywhere unfragmented (DNS flag day 2020).
    const PAYLOAD_MAX: u16 = 1232;

    fn new(resolver: Arc<Resolver>) -> Self {
        Self {
            resolver,
            permits: Semaphore::new(Self::QUESTIONS_MAX),
        }
    }

    async fn answer(&self, request: &Request) -> Reply {
        if request.metadata.op_code != OpCode::Query {
            return Reply::code(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Reply::code(ResponseCode::BADVERS);
        }
        let Ok(info) = request.request_info() else {
            return Reply::code(ResponseCode::FormErr);
        };
        let Ok(_permit) = self.permits.try_acquire() else {
            return Reply::code(ResponseCode::ServFail);
        };
        let query = info.query.original();
        let source = info.src.ip().to_canonical();
        let answer = self
            .resolver
            .resolve(
                query.name(),
                query.query_class(),
                query.query_type(),
                source,
                request.metadata.recursion_desired,
            )
            .await;
        answer.into()
    }
}

/// An answer in the terms of a DNS message.
struct Reply {
    code: ResponseCode,
    answers: Vec<Record>,
    soa: Option<Record>,
}

impl Reply {
    fn code(code: ResponseCode) -> Self {
        Self {
            code,
            answers: Vec::new(),
            soa: None,
        }
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        let with_soa = |code, soa: Box<Record>| Self {
            soa: Some(*soa),
            ..Self::code(code)
        };
        match answer {
            Answer::Failed => Self::code(ResponseCode::ServFail),
            Answer::NoData(soa) => with_soa(ResponseCode::NoError, soa),
            Answer::NoName(soa) => with_soa(ResponseCode::NXDomain, soa),
            Answer::Records(answers) => Self {
                answers,
                ..Self::code(ResponseCode::NoError)
            },
            Answer::Refused => Self::code(ResponseCode::Refused),
        }
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let reply = self.answer(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative =
            matches!(reply.code, ResponseCode::NoError | ResponseCode::NXDomain);
        let edns = request
            .edns
            .as_ref()
            .map(|_| payload(request.max_payload()));
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let message = builder.build(metadata, &reply.answers, [], reply.soa.as_ref(), []);
        response
            .send_response(message)
            .await
            .unwrap_or_else(|error| {
                tracing::debug!(%error, "DNS answer not sent");
                failed(request)
            })
    }
}

fn payload(asked: u16) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(asked.clamp(512, Handler::PAYLOAD_MAX))
        .set_version(0);
    edns
}

fn failed(request: &Request) -> ResponseInfo {
    let mut metadata = Metadata::new(
        request.metadata.id,
        MessageType::Response,
        request.metadata.op_code,
    );
    metadata.response_code = ResponseCode::ServFail;
    Header {
        metadata,
        counts: HeaderCounts::default(),
    }
    .into()
}
