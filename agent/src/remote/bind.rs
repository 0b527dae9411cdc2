//! Sockets handed over: one question and one answer per connection, each with its
//! length before it, and the descriptor beside the answer (`unix(7)`, `SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carrick_proto::agent as wire;
use carrick_types::Invalid;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::convert::{netns_from_wire, netns_to_wire, protocol_from_wire, protocol_to_wire};
use super::fault;
use super::server::Peers;
use crate::{Agent, Error, Netns, Protocol, Socket};

/// Longest message; a path has at most 4,096 bytes.
const LEN_MAX: usize = 8 << 10;

/// Connections served at a time.
const CONCURRENT: usize = 64;

/// A question must be there, and its answer be taken, within this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket beside `path`.
pub(super) fn bind_path(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".bind");
    path.into()
}

/// Serves until dropped.
pub(super) async fn serve_binds(listener: UnixListener, peers: Peers, agent: Arc<dyn Agent>) {
    let places = Arc::new(Semaphore::new(CONCURRENT));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        while tasks.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) if peers.allow(&stream) => stream,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept at the agent's socket for binding");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let agent = Arc::clone(&agent);
        tasks.spawn(async move {
            let served = tokio::time::timeout(PATIENCE, serve(stream, &*agent)).await;
            if let Ok(Err(error)) = served {
                tracing::debug!(%error, "a process that asked for a socket went away");
            }
            drop(place);
        });
    }
}

async fn serve(mut stream: UnixStream, agent: &dyn Agent) -> io::Result<()> {
    let question = read(&mut stream).await?;
    let bound = match wire::BindRequest::decode(&*question) {
        Ok(request) => bind(agent, request).await,
        Err(e) => return Err(io::Error::new(io::ErrorKind::InvalidData, e)),
    };
    let (socket, error) = match bound {
        Ok(socket) => (Some(socket), None),
        Err(e) => (None, Some(fault::to_wire(e).map_err(io::Error::other)?)),
    };
    let answer = framed(&wire::BindResponse { error });
    send(&stream, &answer, socket.as_ref()).await
}

async fn bind(agent: &dyn Agent, request: wire::BindRequest) -> Result<Socket, Error> {
    let protocol = protocol_from_wire(request.protocol).map_err(Error::Invalid)?;
    let expected = "an address and port such as 10.0.0.0:53";
    let address = request
        .address
        .parse()
        .map_err(|_| Invalid::new("address", &request.address, expected))
        .map_err(Error::Invalid)?;
    let netns = netns_from_wire(request.netns);
    agent.bind(&netns, protocol, address).await
}

/// Asks the agent whose calls are served at `path` for a socket.
pub(super) async fn ask(
    path: &Path,
    netns: &Netns,
    protocol: Protocol,
    address: std::net::SocketAddr,
) -> Result<Socket, Error> {
    let request = wire::BindRequest {
        netns: Some(netns_to_wire(netns)),
        protocol: protocol_to_wire(protocol),
        address: address.to_string(),
    };
    let unavailable = |e: io::Error| Error::Unavailable(Box::new(e));
    let (socket, answer) = exchange(path, &framed(&request))
        .await
        .map_err(unavailable)?;
    fault::from_wire(answer.error)?;
    let missing = "the agent's answer has no socket beside it";
    socket.ok_or_else(|| unavailable(io::Error::new(io::ErrorKind::InvalidData, missing)))
}

async fn exchange(
    path: &Path,
    question: &[u8],
) -> io::Result<(Option<OwnedFd>, wire::BindResponse)> {
    let mut stream = UnixStream::connect(bind_path(path)).await?;
    stream.write_all(question).await?;
    let (socket, mut bytes) = receive(&stream).await?;
    let answer = match bytes.split_off_checked(4) {
        Some(rest) => {
            let len = length(&bytes)?;
            let mut message = rest;
            let begun = message.len();
            message.resize(len.max(begun), 0);
            stream.read_exact(&mut message[begun..]).await?;
            message
        }
        None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    };
    let answer = wire::BindResponse::decode(&*answer)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok((socket, answer))
}

fn framed(message: &impl prost::Message) -> Vec<u8> {
    let len = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.extend(message.encode_to_vec());
    bytes
}

async fn read(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let mut message = vec![0; length(&header)?];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn length(header: &[u8]) -> io::Result<usize> {
    let header = header.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
    let len = u32::from_be_bytes(header) as usize;
    if len > LEN_MAX {
        let text = format!("a message of {len} bytes, at most {LEN_MAX} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(len)
}

/// Sends bytes, the descriptor beside the first.
async fn send(stream: &UnixStream, bytes: &[u8], socket: Option<&OwnedFd>) -> io::Result<()> {
    let descriptors: Vec<RawFd> = socket.iter().map(|socket| socket.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() {
        &rights[..0]
    } else {
        &rights[..]
    };
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let data = [IoSlice::new(bytes)];
            let flags = MsgFlags::MSG_NOSIGNAL;
            Ok(sendmsg::<()>(
                stream.as_raw_fd(),
                &data,
                control,
                flags,
                None,
            )?)
        })
        .await?;
    // The buffer of a fresh socket takes a short message whole.
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::WriteZero))
    }
}

/// Receives the first bytes and the descriptor beside them.
async fn receive(stream: &UnixStream) -> io::Result<(Option<OwnedFd>, Vec<u8>)> {
    stream
        .async_io(Interest::READABLE, || {
            let mut bytes = vec![0; LEN_MAX];
            let mut space = nix::cmsg_space!([RawFd; 1]);
            let mut data = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(stream.as_raw_fd(), &mut data, Some(&mut space), flags)?;
            let mut socket = None;
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(descriptors) = control {
                    socket = descriptors.into_iter().map(owned).next();
                }
            }
            let len = message.bytes;
            bytes.truncate(len);
            Ok((socket, bytes))
        })
        .await
}

#[expect(unsafe_code, reason = "a received descriptor is a bare number")]
fn owned(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else
    // knows of it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// `Vec::split_off` that asks first.
trait SplitOffChecked: Sized {
    fn split_off_checked(&mut self, at: usize) -> Option<Self>;
}

impl SplitOffChecked for Vec<u8> {
    fn split_off_checked(&mut self, at: usize) -> Option<Self> {
        (self.len() >= at).then(|| self.split_off(at))
    }
}
