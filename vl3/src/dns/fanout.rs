use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carrick_agent::{Agent, Netns, Protocol};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// Asks the name servers of peers, all at once.
///
/// Questions leave from this endpoint's own address in the router's namespace,
/// by a socket of its own for each family.
pub struct Fanout {
    agent: Arc<dyn Agent>,
    netns: Netns,
    port: u16,
    ports: Mutex<HashMap<IpAddr, Arc<Port>>>,
}

impl std::fmt::Debug for Fanout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fanout")
            .field("netns", &self.netns)
            .finish_non_exhaustive()
    }
}

/// Why a question could not be put.
#[derive(Debug, thiserror::Error)]
pub enum FanoutError {
    /// There is no socket to be had.
    #[error("cannot bind a socket to ask from")]
    Bind(#[source] carrick_agent::Error),
    /// The socket does not work.
    #[error("the socket to ask from does not work")]
    Socket(#[source] std::io::Error),
}

/// What peers said.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Not all answered, and none had records.
    Failed,
    /// One has the name, with no record of this type.
    NoData,
    /// All said that they do not have the name.
    Nobody,
    /// One has these.
    Records(Vec<Record>),
}

/// A socket and the questions under way on it.
struct Port {
    socket: Arc<UdpSocket>,
    pending: Arc<Pending>,
    receiver: AbortOnDropHandle<()>,
}

type Pending = Mutex<HashMap<(u16, SocketAddr), oneshot::Sender<Message>>>;

impl Fanout {
    /// Time for one question.
    pub const TIMEOUT: Duration = Duration::from_secs(1);

    /// Asks peers at `port` (53 except in tests) out of `netns`.
    #[must_use]
    pub fn new(agent: Arc<dyn Agent>, netns: Netns, port: u16) -> Self {
        Self {
            agent,
            netns,
            port,
            ports: Mutex::default(),
        }
    }

    /// Puts a question to all `servers`; the first with records wins. Records
    /// that do not fit the question or are not `acceptable` are left out. A
    /// server that answers with an error does not have the name: that is how
    /// Go endpoints say so.
    ///
    /// All are sent the same message id, and without the wish for recursion:
    /// Go endpoints ask each other about what they cannot answer, and drop a
    /// question whose id is under way with them already (NSM `noloop`). With an
    /// id for each server, `n` of them would exchange `n³` messages.
    pub(crate) async fn ask(
        &self,
        sources: &[IpAddr],
        servers: &[IpAddr],
        name: &Name,
        kind: RecordType,
        acceptable: &(dyn Fn(&Record) -> bool + Sync),
    ) -> Asked {
        let id = fastrand::u16(..);
        let ask = |server: &IpAddr| self.ask_one(sources, *server, (id, name, kind));
        let mut answers: FuturesUnordered<_> = servers.iter().map(ask).collect();
        let (mut silent, mut known) = (false, false);
        while let Some(answer) = answers.next().await {
            let Some(message) = answer else {
                silent = true;
                continue;
            };
            known |= message.metadata.response_code == ResponseCode::NoError;
            let fits = |record: &Record| {
                record.name == *name
                    && (kind == RecordType::ANY || record.record_type() == kind)
                    && acceptable(record)
            };
            let records: Vec<_> = message.answers.into_iter().filter(fits).take(64).collect();
            if !records.is_empty() {
                return Asked::Records(records);
            }
        }
        match (known, silent) {
            (true, _) => Asked::NoData,
            (false, true) => Asked::Failed,
            (false, false) => Asked::Nobody,
        }
    }

    async fn ask_one(
        &self,
        sources: &[IpAddr],
        server: IpAddr,
        question: (u16, &Name, RecordType),
    ) -> Option<Message> {
        let (_, name, kind) = question;
        let source = sources
            .iter()
            .find(|source| source.is_ipv4() == server.is_ipv4())?;
        let exchange = async {
            let port = self.port_of(*source, sources).await?;
            port.exchange(SocketAddr::new(server, self.port), question)
                .await
        };
        match timeout(Self::TIMEOUT, exchange).await.ok()? {
            Ok(message) => Some(message).filter(|message| is_answer_to(message, name, kind)),
            Err(error) => {
                tracing::debug!(%server, error = &error as &dyn std::error::Error, "peer not asked");
                None
            }
        }
    }

    /// The socket that asks from `source`; sockets of addresses that are no
    /// longer ours are let go.
    async fn port_of(&self, source: IpAddr, sources: &[IpAddr]) -> Result<Arc<Port>, FanoutError> {
        let usable = |port: &&Arc<Port>| !port.receiver.is_finished();
        if let Some(port) = self.ports().get(&source).filter(usable) {
            return Ok(Arc::clone(port));
        }
        let at = SocketAddr::new(source, 0);
        let socket = self
            .agent
            .bind(&self.netns, Protocol::Udp, at)
            .await
            .map_err(FanoutError::Bind)?;
        let port = Arc::new(Port::new(socket).map_err(FanoutError::Socket)?);
        let mut ports = self.ports();
        ports.retain(|address, _| sources.contains(address));
        ports.insert(source, Arc::clone(&port));
        Ok(port)
    }

    fn ports(&self) -> MutexGuard<'_, HashMap<IpAddr, Arc<Port>>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port {
    fn new(socket: carrick_agent::Socket) -> std::io::Result<Self> {
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        let pending = Arc::new(Pending::default());
        let receiver = tokio::spawn(receive(Arc::clone(&socket), Arc::clone(&pending)));
        Ok(Self {
            socket,
            pending,
            receiver: AbortOnDropHandle::new(receiver),
        })
    }

    async fn exchange(
        &self,
        server: SocketAddr,
        (id, name, kind): (u16, &Name, RecordType),
    ) -> Result<Message, FanoutError> {
        let (sender, answer) = oneshot::channel();
        let question = Question::new(&self.pending, server, id, sender);
        let mut message = Message::query();
        message.metadata.id = question.id;
        message.metadata.recursion_desired = false;
        message.add_query(Query::query(name.clone(), kind));
        let bytes = message
            .to_vec()
            .map_err(|error| FanoutError::Socket(std::io::Error::other(error)))?;
        self.socket
            .send_to(&bytes, server)
            .await
            .map_err(FanoutError::Socket)?;
        answer
            .await
            .map_err(|gone| FanoutError::Socket(std::io::Error::other(gone)))
    }
}

/// A question under way; forgotten when dropped.
struct Question<'a> {
    pending: &'a Pending,
    server: SocketAddr,
    id: u16,
}

impl<'a> Question<'a> {
    /// Takes the id, or a random one if that is under way to the same server:
    /// who does not see the question must guess it.
    fn new(
        pending: &'a Pending,
        server: SocketAddr,
        id: u16,
        sender: oneshot::Sender<Message>,
    ) -> Self {
        let mut questions = pending.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = std::iter::once(id).chain(std::iter::repeat_with(|| fastrand::u16(..)));
        let id = ids
            .take(64)
            .find(|id| !questions.contains_key(&(*id, server)))
            .unwrap_or_default();
        questions.insert((id, server), sender);
        Self {
            pending,
            server,
            id,
        }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let mut questions = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        questions.remove(&(self.id, self.server));
    }
}

/// Hands answers to those who asked. What was not asked for, or is no DNS, is
/// passed over.
async fn receive(socket: Arc<UdpSocket>, pending: Arc<Pending>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
            Err(error) => {
                tracing::debug!(%error, "socket to ask peers from is lost");
                return;
            }
        };
        let Ok(message) = Message::from_vec(&buffer[..length]) else {
            continue;
        };
        let question = (message.metadata.id, from);
        let asked = pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&question);
        if let Some(sender) = asked {
            let _ = sender.send(message);
        }
    }
}

fn is_answer_to(message: &Message, name: &Name, kind: RecordType) -> bool {
    let same = |query: &Query| query.name() == name && query.query_type() == kind;
    message.metadata.message_type == MessageType::Response && message.queries.iter().any(same)
}
