use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carrick_grpc::{ConnectInfo, Held, Socket, Url, trace};
use carrick_proto::agent as wire;
use carrick_proto::agent::agent_server;
use carrick_types::Invalid;
use futures::{Stream, StreamExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};
use tracing::{Instrument, debug, debug_span};

use super::bind::{bind_path, serve_binds};
use super::convert::{changes_from_wire, netns_from_wire};
use super::fault;
use crate::{Agent, Change, Error, Netns};

/// The privileged half: serves an [`Agent`] on a unix socket.
///
/// Every connection's peer is asked for its credentials (`SO_PEERCRED`): it must
/// be of the server's own user, or its group one of those allowed.
pub struct Server {
    agent: Arc<dyn Agent>,
    calls: UnixListener,
    binds: UnixListener,
    peers: Peers,
    /// Removed when the server ends.
    paths: [PathBuf; 2],
}

/// Why the agent cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Another process serves there.
    #[error("somebody else listens on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The server ended by itself.
    #[error("cannot serve any longer")]
    Serve(#[source] tonic::transport::Error),
}

/// Who may connect.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    user: u32,
    groups: Arc<[u32]>,
}

impl Peers {
    /// Whether the peer of a connection is one of them.
    pub(super) fn allow(&self, stream: &UnixStream) -> bool {
        let Ok(peer) = stream.peer_cred() else {
            return false;
        };
        let is_allowed = peer.uid() == self.user || self.groups.contains(&peer.gid());
        if !is_allowed {
            let (uid, gid, pid) = (peer.uid(), peer.gid(), peer.pid());
            tracing::warn!(uid, gid, pid, "refused a process at the agent's socket");
        }
        is_allowed
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("paths", &self.paths)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on `path`, and on `path` with `.bind` behind it for sockets.
    /// Missing folders are made; what a killed server left is replaced.
    /// `groups` are the group ids that may connect besides the own user.
    ///
    /// # Errors
    ///
    /// [`ServerError::InUse`] and [`ServerError::Listen`]. Must be called within
    /// a tokio runtime.
    pub fn listen(
        path: &Path,
        groups: Vec<u32>,
        agent: Arc<dyn Agent>,
    ) -> Result<Self, ServerError> {
        let paths = [path.to_owned(), bind_path(path)];
        let mode = if groups.is_empty() { 0o600 } else { 0o666 };
        let peers = Peers {
            user: nix::unistd::geteuid().as_raw(),
            groups: groups.into(),
        };
        Ok(Self {
            calls: listen(&paths[0], mode)?,
            binds: listen(&paths[1], mode)?,
            agent,
            peers,
            paths,
        })
    }

    /// Serves until told to end; calls under way are answered first.
    ///
    /// # Errors
    ///
    /// [`ServerError::Serve`].
    pub async fn serve(
        self,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServerError> {
        let service = agent_server::AgentServer::new(Service {
            agent: Arc::clone(&self.agent),
        });
        let calls = allowed(self.calls, self.peers.clone());
        let serving = tonic::transport::Server::builder()
            .max_concurrent_streams(4096)
            .add_service(service)
            .serve_with_incoming_shutdown(calls, end);
        let result = tokio::select! {
            result = serving => result.map_err(ServerError::Serve),
            () = serve_binds(self.binds, self.peers, self.agent) => Ok(()),
        };
        for path in &self.paths {
            let _ = std::fs::remove_file(path); // somebody may have tidied up
        }
        result
    }
}

fn listen(path: &Path, mode: u32) -> Result<UnixListener, ServerError> {
    let failed = |source| ServerError::Listen {
        path: path.to_owned(),
        source,
    };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ServerError::InUse {
            path: path.to_owned(),
        });
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(failed)?;
    Ok(listener)
}

/// The connections of those who may connect.
fn allowed(listener: UnixListener, peers: Peers) -> impl Stream<Item = io::Result<Socket>> + Send {
    let allowed = UnixListenerStream::new(listener).filter(move |stream| {
        let passes = stream.as_ref().map_or(true, |stream| peers.allow(stream));
        std::future::ready(passes)
    });
    allowed.map(|stream| stream.map(Socket::from))
}

struct Service {
    agent: Arc<dyn Agent>,
}

#[tonic::async_trait]
impl agent_server::Agent for Service {
    async fn apply(
        &self,
        request: Request<wire::ApplyRequest>,
    ) -> Result<Response<wire::ApplyResponse>, Status> {
        let span = debug_span!("apply", otel.kind = "server");
        trace::adopt(&span, request.metadata());
        let info: Option<ConnectInfo> = request.extensions().get().cloned();
        let changes = changes_from_wire(request.into_inner().changes);
        let result = match changes.map_err(Error::Invalid) {
            Ok(changes) => {
                let _held = self.hold(info, &changes);
                self.agent.apply(changes).instrument(span).await
            }
            Err(e) => Err(e),
        };
        let error = result.err().map(fault::to_wire).transpose()?;
        Ok(Response::new(wire::ApplyResponse { error }))
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        let wire::ListRequest { netns, owner } = request.into_inner();
        let netns = netns_from_wire(netns);
        let response = match self.agent.list(&netns, &owner).await {
            Ok(found) => wire::ListResponse {
                links: found.into_iter().map(wire::Found::from).collect(),
                error: None,
            },
            Err(e) => wire::ListResponse {
                links: Vec::new(),
                error: Some(fault::to_wire(e)?),
            },
        };
        Ok(Response::new(response))
    }

    async fn ping(
        &self,
        request: Request<wire::PingRequest>,
    ) -> Result<Response<wire::PingResponse>, Status> {
        let response = match self.ping_now(request.into_inner()).await {
            Ok(answer) => wire::PingResponse {
                round_trip_nanos: answer.map(nanos),
                error: None,
            },
            Err(e) => wire::PingResponse {
                round_trip_nanos: None,
                error: Some(fault::to_wire(e)?),
            },
        };
        Ok(Response::new(response))
    }
}

impl Service {
    /// The namespaces that came along. One that did not is looked for.
    fn hold(&self, info: Option<ConnectInfo>, changes: &[Change]) -> Vec<Held> {
        let Some(descriptors) = info.and_then(|info| info.descriptors) else {
            return Vec::new();
        };
        let far = changes.iter().filter_map(Change::far_netns);
        let files = far.filter_map(|netns| match netns {
            Netns::Inode(device, inode) => descriptors.received(&Url::Inode(*device, *inode)),
            _ => None,
        });
        let held = files.map(|file| self.agent.hold(file));
        let held = held.inspect(|held| {
            if let Err(error) = held {
                debug!(%error, "a descriptor that came along");
            }
        });
        held.flatten().collect()
    }

    async fn ping_now(&self, request: wire::PingRequest) -> Result<Option<Duration>, Error> {
        let address = |field: &str, text: &str| {
            let invalid = |_| Invalid::new(field, text, "an address");
            text.parse().map_err(invalid).map_err(Error::Invalid)
        };
        let source = address("source", &request.source)?;
        let target = address("target", &request.target)?;
        let timeout = Duration::from_nanos(request.timeout_nanos);
        let netns = netns_from_wire(request.netns);
        self.agent.ping(&netns, source, target, timeout).await
    }
}

/// 584 years at most.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
