//! File descriptors beside the bytes: against a peer that speaks grpcfd's wire
//! format by hand, well-behaved or not, and with calls over real channels.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use carrick_grpc::Channel;
use carrick_grpc::{
    Attachments, ConnectInfo, Descriptors, DialOptions, ReceiveError, Security, Stream as Socket,
    Url, dial_passing, listen,
};
use carrick_proto::connection as wire;
use carrick_proto::networkservice::NetworkServiceRequest;
use carrick_proto::networkservice::network_service_client::NetworkServiceClient;
use carrick_proto::networkservice::network_service_server::{NetworkService, NetworkServiceServer};
use futures::StreamExt;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::common::unix;

/// A connection: our end, and the bare socket of the peer.
async fn connection() -> (Socket, UnixStream) {
    let mut listener = listen(&unix(), &Security::unix_only()).await.unwrap();
    let peer = UnixStream::connect(listener.url().path().unwrap()).unwrap();
    (listener.next().await.unwrap().unwrap(), peer)
}

fn handle(socket: &Socket) -> Descriptors {
    socket.descriptors().unwrap().clone()
}

/// A file that has an inode of its own, and its URL.
fn file() -> (File, Url) {
    let file = tempfile::tempfile().unwrap();
    let url = url_of(&file);
    (file, url)
}

fn url_of(file: &File) -> Url {
    let found = file.metadata().unwrap();
    Url::Inode(found.dev(), found.ino())
}

/// As the peer: one message with these descriptors.
fn send(peer: &UnixStream, bytes: &[u8], files: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(files)));
    let bytes = [IoSlice::new(bytes)];
    sendmsg(peer, &bytes, &mut control, SendFlags::empty()).unwrap();
}

/// As the peer: what one read brings.
fn receive(peer: &UnixStream) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let count = recvmsg(peer, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let files = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect(),
        _ => Vec::new(),
    });
    let files = files.collect();
    bytes.truncate(count.bytes);
    (bytes, files)
}

async fn read(socket: &mut Socket, count: usize) {
    socket.read_exact(&mut vec![0; count]).await.unwrap();
}

#[tokio::test]
async fn each_descriptor_goes_with_a_byte_of_its_own_ahead_of_the_rest() {
    let (mut socket, peer) = connection().await;
    let files = [file(), file()];
    for (file, url) in &files {
        assert_eq!(
            handle(&socket).send(file.try_clone().unwrap()).unwrap(),
            *url
        );
    }
    socket.write_all(b"hello").await.unwrap();
    for (byte, (_, url)) in [b"h", b"e"].into_iter().zip(&files) {
        let (bytes, got) = receive(&peer);
        assert_eq!((&bytes[..], got.len()), (&byte[..], 1));
        assert_eq!(url_of(&File::from(got.into_iter().next().unwrap())), *url);
    }
    let (bytes, files) = receive(&peer);
    assert_eq!((&bytes[..], files.len()), (&b"llo"[..], 0));
}

#[tokio::test]
async fn more_descriptors_than_one_write_takes_are_still_ahead_of_the_rest() {
    let (mut socket, peer) = connection().await;
    for _ in 0..100 {
        handle(&socket).send(file().0).unwrap();
    }
    let message: Vec<u8> = (0..200).collect();
    socket.write_all(&message).await.unwrap();
    let mut got = Vec::new();
    while got.len() < message.len() {
        let (bytes, files) = receive(&peer);
        assert_eq!(files.len(), usize::from(got.len() < 100));
        got.extend(bytes);
    }
    assert_eq!(got, message);
}

#[tokio::test]
async fn a_file_that_waits_to_be_sent_is_not_sent_twice() {
    let (mut socket, peer) = connection().await;
    let (file, _) = file();
    for _ in 0..3 {
        handle(&socket).send(file.try_clone().unwrap()).unwrap();
    }
    socket.write_all(b"ab").await.unwrap();
    assert_eq!(receive(&peer).1.len(), 1);
    assert_eq!(receive(&peer).1.len(), 0);
}

#[tokio::test]
async fn a_descriptor_is_received_by_its_inode_as_often_as_it_is_asked_for() {
    let (mut socket, peer) = connection().await;
    let (file, url) = file();
    send(&peer, b"x", &[file.as_fd()]);
    read(&mut socket, 1).await;
    for _ in 0..2 {
        let got = handle(&socket).receive(&url).await.unwrap();
        assert!(
            rustix::io::fcntl_getfd(&got)
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
        assert_eq!(url_of(&got.into()), url);
    }
}

#[tokio::test]
async fn who_asks_before_a_descriptor_comes_gets_it() {
    let (mut socket, peer) = connection().await;
    let (file, url) = file();
    let descriptors = handle(&socket);
    let asked = {
        let url = url.clone();
        tokio::spawn(async move { descriptors.receive(&url).await })
    };
    tokio::task::yield_now().await;
    send(&peer, b"x", &[file.as_fd()]);
    read(&mut socket, 1).await;
    assert_eq!(url_of(&asked.await.unwrap().unwrap().into()), url);
}

/// Guards the wait in `Descriptors::receive`.
#[tokio::test(start_paused = true)]
async fn a_descriptor_that_never_comes_is_an_error_that_names_it() {
    let (socket, _peer) = connection().await;
    let error = handle(&socket)
        .receive(&Url::Inode(4, 402))
        .await
        .unwrap_err();
    assert!(matches!(error, ReceiveError::Late(_)), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("inode://4/402") && text.contains("2s"),
        "{text}"
    );
}

#[tokio::test]
async fn who_waits_is_told_when_the_connection_ends() {
    let (socket, _peer) = connection().await;
    let descriptors = handle(&socket);
    let asked = tokio::spawn(async move { descriptors.receive(&Url::Inode(4, 402)).await });
    tokio::task::yield_now().await;
    drop(socket);
    let error = asked.await.unwrap().unwrap_err();
    assert!(matches!(error, ReceiveError::Ended(_)), "{error}");
}

/// Guards `WAITING_MAX` on receipt.
#[tokio::test]
async fn a_peer_that_sends_a_thousand_descriptors_has_most_of_them_closed() {
    let (mut socket, peer) = connection().await;
    let mut first = None;
    for _ in 0..1000 {
        let (file, url) = file();
        first.get_or_insert(url);
        send(&peer, b"x", &[file.as_fd()]);
        read(&mut socket, 1).await;
    }
    let descriptors = handle(&socket);
    assert_eq!(descriptors.waiting(), Descriptors::WAITING_MAX);
    assert_eq!(descriptors.refused(), 1000 - 256);
    // Those that were in time can be had, and make room for others then.
    descriptors.receive(&first.unwrap()).await.unwrap();
    let (file, url) = file();
    send(&peer, b"x", &[file.as_fd()]);
    read(&mut socket, 1).await;
    descriptors.receive(&url).await.unwrap();
    assert_eq!(descriptors.waiting(), Descriptors::WAITING_MAX);
}

/// Guards the expiry of what nobody asks for.
#[tokio::test]
async fn a_descriptor_that_nobody_asks_for_is_closed_after_a_minute() {
    let (mut socket, mut peer) = connection().await;
    let (pipe, mut other) = std::io::pipe().map(|(read, write)| (write, read)).unwrap();
    send(&peer, b"x", &[pipe.as_fd()]);
    read(&mut socket, 1).await;
    drop(pipe);
    assert_eq!(handle(&socket).waiting(), 1);
    tokio::time::pause();
    tokio::time::advance(Descriptors::KEPT).await;
    tokio::time::resume();
    peer.write_all(b"x").unwrap();
    read(&mut socket, 1).await;
    assert_eq!(handle(&socket).waiting(), 0);
    assert_eq!(other.read(&mut [0]).unwrap(), 0, "the pipe is closed");
}

#[tokio::test]
async fn of_one_message_no_more_than_sixty_four_descriptors_are_taken() {
    let (mut socket, peer) = connection().await;
    let files: Vec<File> = (0..253).map(|_| file().0).collect();
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    send(&peer, b"x", &files);
    read(&mut socket, 1).await;
    assert_eq!(handle(&socket).waiting(), 64);
}

/// Guards `Descriptors::end`: a handle must not keep what the connection held.
#[tokio::test]
async fn what_a_connection_holds_is_closed_with_it() {
    let (mut socket, peer) = connection().await;
    let (pipe, mut other) = std::io::pipe().map(|(read, write)| (write, read)).unwrap();
    let descriptors = handle(&socket);
    send(&peer, b"x", &[pipe.as_fd()]);
    read(&mut socket, 1).await;
    descriptors.send(pipe).unwrap();
    drop(socket);
    assert_eq!(other.read(&mut [0]).unwrap(), 0, "the pipe is closed");
    assert_eq!(descriptors.waiting(), 0);
}

/// Guards the bound of what waits to be sent.
#[tokio::test]
async fn a_peer_that_does_not_read_is_not_sent_descriptors_without_end() {
    let (socket, _peer) = connection().await;
    let sent = (0..300).map(|_| handle(&socket).send(file().0));
    assert_eq!(sent.flatten().count(), Descriptors::WAITING_MAX);
}

// === with calls ===

/// Answers with the size of the file that the Request's id names.
struct Sizes;

#[tonic::async_trait]
impl NetworkService for Sizes {
    async fn request(
        &self,
        request: Request<NetworkServiceRequest>,
    ) -> Result<Response<wire::Connection>, Status> {
        let info: ConnectInfo = request.extensions().get().cloned().unwrap();
        let url = request.into_inner().connection.unwrap().id;
        let descriptors = info.descriptors.unwrap();
        let file = descriptors.receive(&url.parse().unwrap()).await;
        let file = File::from(file.map_err(|e| Status::invalid_argument(e.to_string()))?);
        let answer = file.try_clone().unwrap();
        Ok(Response::new(wire::Connection {
            id: file.metadata().unwrap().len().to_string(),
            network_service: descriptors.send(answer).unwrap().to_string(),
            ..wire::Connection::default()
        }))
    }

    async fn close(&self, _: Request<wire::Connection>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}

struct Sizing {
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Sizing {
    async fn start(url: &Url) -> Self {
        let listener = listen(url, &Security::unix_only()).await.unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let ended = tokio::spawn(async move {
            let file = listener.socket_file().unwrap();
            let server = Server::builder().add_service(NetworkServiceServer::new(Sizes));
            server
                .serve_with_incoming_shutdown(listener, stopped)
                .await
                .unwrap();
            file.remove().await.unwrap();
        });
        Self { stop, ended }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.ended.await.unwrap();
    }
}

fn dialled(url: &Url) -> (Channel, Attachments) {
    let options = DialOptions::default();
    let dialled = dial_passing(url, &Security::unix_only(), &options).unwrap();
    (dialled.channel, dialled.attachments.unwrap())
}

async fn size(channel: &Channel, url: &Url) -> Result<wire::Connection, Status> {
    let request = NetworkServiceRequest {
        connection: Some(wire::Connection {
            id: url.to_string(),
            ..wire::Connection::default()
        }),
        ..NetworkServiceRequest::default()
    };
    let answer = NetworkServiceClient::new(channel.clone())
        .request(request)
        .await;
    answer.map(Response::into_inner)
}

fn sized(size: u64) -> File {
    let (file, _) = file();
    file.set_len(size).unwrap();
    file
}

#[tokio::test]
async fn a_call_takes_its_file_along_and_brings_one_back() {
    let url = unix();
    let server = Sizing::start(&url).await;
    let (channel, attachments) = dialled(&url);
    let attached = attachments.attach(sized(7)).unwrap();
    let answer = size(&channel, &attached.url()).await.unwrap();
    assert_eq!(answer.id, "7");
    let back = answer.network_service.parse().unwrap();
    let back = File::from(attachments.receive(&back).await.unwrap());
    assert_eq!(back.metadata().unwrap().len(), 7);
    server.stop().await;
}

/// Guards that a new connection is given what is attached.
#[tokio::test]
async fn a_file_goes_over_the_connection_that_carries_the_call() {
    let url = unix();
    let (channel, attachments) = dialled(&url);
    let mut server = Sizing::start(&url).await;
    for round in 1..=3 {
        // Attached while the former connection is the one there is.
        let attached = attachments.attach(sized(round)).unwrap();
        if round > 1 {
            server.stop().await;
            server = Sizing::start(&url).await;
        }
        let answer = loop {
            match size(&channel, &attached.url()).await {
                // The channel has yet to notice that its connection ended.
                Err(error) if error.code() != tonic::Code::InvalidArgument => {}
                answer => break answer.unwrap(),
            }
        };
        assert_eq!(answer.id, round.to_string());
    }
    server.stop().await;
}

#[tokio::test]
async fn many_calls_at_once_each_find_their_file() {
    let url = unix();
    let server = Sizing::start(&url).await;
    let (channel, attachments) = dialled(&url);
    let calls = (1..=200).map(|length| {
        let (channel, attachments) = (channel.clone(), attachments.clone());
        async move {
            let attached = attachments.attach(sized(length)).unwrap();
            assert_eq!(
                size(&channel, &attached.url()).await.unwrap().id,
                length.to_string()
            );
        }
    });
    futures::future::join_all(calls).await;
    server.stop().await;
}

/// Guards the wait at the server: an announced file that is not sent.
#[tokio::test]
async fn a_call_whose_file_is_not_sent_is_refused_by_its_url() {
    let url = unix();
    let server = Sizing::start(&url).await;
    let (channel, _) = dialled(&url);
    let refused = size(&channel, &Url::Inode(4, 402)).await.unwrap_err();
    assert!(refused.message().contains("inode://4/402"), "{refused}");
    server.stop().await;
}

#[tokio::test]
async fn tcp_takes_no_files_along() {
    let options = DialOptions {
        connect_timeout: Duration::from_secs(1),
        ..DialOptions::default()
    };
    let url = Url::tcp("127.0.0.1", 1);
    let dialled = dial_passing(&url, &Security::insecure(), &options).unwrap();
    assert!(dialled.attachments.is_none());
}
