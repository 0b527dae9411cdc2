//! Network namespaces that go along with Requests and Closes, and those that
//! must not.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carrick_chain::elements::{Mechanisms, OWN_NAMESPACE, kernel_of_own_namespace};
use carrick_chain::{Chain, Element, Endpoint, EndpointOptions, Error, Next, Remote};
use carrick_grpc::Channel;
use carrick_grpc::{
    Attachments, ConnectInfo, DialOptions, Health, Held, Namespaces, RemoteEndpoint, Security,
    ServerOptions, Url, convert, dial_passing, listen, routes, serve,
};
use carrick_proto::connection as wire;
use carrick_proto::networkservice::NetworkServiceRequest;
use carrick_proto::networkservice::network_service_client::NetworkServiceClient;
use carrick_proto::networkservice::network_service_server::{NetworkService, NetworkServiceServer};
use carrick_types::{Connection, Invalid, Mechanism, MechanismClass, MechanismType};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use crate::common::{client_tokens, request, tokens, unix};

fn inode_of(path: &str) -> Url {
    let found = std::fs::metadata(path).unwrap();
    Url::Inode(found.dev(), found.ino())
}

fn own() -> Url {
    inode_of("/proc/self/ns/net")
}

fn kernel(url: impl ToString) -> Mechanism {
    Mechanism::new(MechanismClass::Local, MechanismType::Kernel).with(Mechanism::INODE_URL, url)
}

fn offering(url: impl ToString) -> Connection {
    let mut offering = request("vl3");
    offering.preferences = vec![kernel(url)];
    offering
}

fn url_in(connection: &Connection) -> String {
    let mechanism = connection.mechanism.as_ref().unwrap();
    mechanism
        .parameter(Mechanism::INODE_URL)
        .unwrap()
        .to_owned()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

// === an endpoint of ours ===

/// What the endpoint held, and whether it held something while it served.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<(Vec<Url>, usize)>>);

struct Letting(Seen);

impl Drop for Letting {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().1 -= 1;
    }
}

impl Seen {
    fn hold(&self, file: OwnedFd) -> Result<Held, Invalid> {
        let found = File::from(file).metadata().unwrap();
        if !matches!(own(), Url::Inode(device, _) if device == found.dev()) {
            return Err(Invalid::new("inodeURL", "another file", "a namespace"));
        }
        let mut seen = self.0.lock().unwrap();
        seen.0.push(Url::Inode(found.dev(), found.ino()));
        seen.1 += 1;
        Ok(Box::new(Letting(self.clone())))
    }

    fn urls(&self) -> Vec<Url> {
        self.0.lock().unwrap().0.clone()
    }

    fn held(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

/// Tells in the connection's labels how many namespaces are held meanwhile.
struct Counting(Seen);

impl Element for Counting {
    const NAME: &'static str = "counting";
    type State = ();

    async fn request(
        &self,
        mut connection: Connection,
        _: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        let held = self.0.held().to_string();
        connection.labels.0.insert("held".to_owned(), held);
        next.request(connection).await
    }

    async fn close(&self, _: &Connection, (): &mut ()) -> Result<(), Error> {
        Ok(())
    }
}

/// Serves `mechanisms`; what comes along is held in what is returned.
async fn served(mechanisms: Mechanisms) -> (Url, Seen) {
    let seen = Seen::default();
    let listener = listen(&unix(), &Security::unix_only()).await.unwrap();
    let url = listener.url().clone();
    let chain = Chain::default()
        .then(Counting(seen.clone()))
        .then(mechanisms);
    let endpoint = Endpoint::new(EndpointOptions::new("nse", tokens("nse")), chain);
    let holder = seen.clone();
    let options = ServerOptions {
        namespaces: Namespaces::new(move |file| holder.hold(file)),
        ..ServerOptions::default()
    };
    let (health, stop) = (
        Health::new(Health::ENDPOINT).await,
        CancellationToken::new(),
    );
    let routes = routes(&endpoint, &options, &health, &stop);
    tokio::spawn(async move { serve(listener, routes, &options, stop).await });
    (url, seen)
}

fn as_offered() -> Mechanisms {
    Mechanisms::new([MechanismType::Kernel])
}

fn remote(url: &Url) -> RemoteEndpoint {
    let dialled = dial_passing(url, &Security::unix_only(), &DialOptions::default());
    RemoteEndpoint::new(dialled.unwrap(), client_tokens())
}

/// A client without the library: the channel, and what it takes along.
fn raw(url: &Url) -> (NetworkServiceClient<Channel>, Attachments) {
    let dialled = dial_passing(url, &Security::unix_only(), &DialOptions::default()).unwrap();
    (
        NetworkServiceClient::new(dialled.channel),
        dialled.attachments.unwrap(),
    )
}

#[tokio::test]
async fn a_clients_namespace_goes_along_and_is_held_while_the_request_is_served() {
    let (url, seen) = served(as_offered()).await;
    let path = format!("file:///proc/{}/ns/net", std::process::id());
    let remote = remote(&url);
    let answer = remote.request(offering(&path), soon()).await.unwrap();
    assert_eq!(url_in(&answer), path, "as the client named it");
    assert_eq!(answer.labels.value("held"), Some("1"));
    assert_eq!(seen.urls(), [own()]);
    assert_eq!(seen.held(), 0, "not beyond the answer");

    // A refresh names what was chosen.
    let mut refresh = offering(&path);
    refresh.mechanism.clone_from(&answer.mechanism);
    refresh.path = answer.path;
    let answer = remote.request(refresh, soon()).await.unwrap();
    assert_eq!(answer.labels.value("held"), Some("1"));
    assert_eq!(seen.urls(), [own(), own()]);
}

#[tokio::test]
async fn a_client_in_a_container_names_its_namespace_by_inode_and_sends_it() {
    let (url, seen) = served(as_offered()).await;
    let answer = remote(&url).request(offering(own()), soon()).await.unwrap();
    assert_eq!(url_in(&answer), own().to_string());
    assert_eq!(seen.urls(), [own()]);
}

/// Guards the check of the file's type before it is lent.
#[tokio::test]
async fn a_file_that_is_no_namespace_does_not_go_along() {
    let (url, seen) = served(as_offered()).await;
    let precious = tempfile::NamedTempFile::new().unwrap();
    let path = format!("file://{}", precious.path().display());
    let answer = remote(&url).request(offering(&path), soon()).await.unwrap();
    assert_eq!(url_in(&answer), path);
    assert_eq!(answer.labels.value("held"), Some("0"));
    assert!(seen.urls().is_empty());
}

#[tokio::test]
async fn a_request_whose_namespace_does_not_come_is_served_after_a_bounded_wait() {
    let (url, _) = served(as_offered()).await;
    let (mut client, _) = raw(&url);
    let begun = Instant::now();
    let message = convert::request_to_wire(&offering("inode://4/402"));
    let answer = client.request(message).await.unwrap().into_inner();
    assert_eq!(answer.labels["held"], "0");
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_descriptor_that_nobody_can_hold_is_refused() {
    let (url, _) = served(as_offered()).await;
    let (mut client, attachments) = raw(&url);
    let attached = attachments.attach(tempfile::tempfile().unwrap()).unwrap();
    let message = convert::request_to_wire(&offering(attached.url()));
    let refused = client.request(message).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}

#[tokio::test]
async fn an_endpoints_own_namespace_comes_with_the_answer_and_with_that_to_the_close() {
    let kernel = Mechanisms::default().with(MechanismType::Kernel, kernel_of_own_namespace);
    let (url, _) = served(kernel).await;
    let (mut client, attachments) = raw(&url);
    let message = convert::request_to_wire(&offering(""));
    let answer = client.request(message).await.unwrap().into_inner();
    let named = answer.mechanism.as_ref().unwrap().parameters["inodeURL"].clone();
    assert_eq!(named, own().to_string());
    let file = attachments.receive(&own()).await.unwrap();
    let found = File::from(file).metadata().unwrap();
    assert_eq!(Url::Inode(found.dev(), found.ino()), own());

    // Over another connection, which has to bring it once more.
    let (mut client, attachments) = raw(&url);
    client.close(answer).await.unwrap();
    attachments.receive(&own()).await.unwrap();
}

/// Guards `namespaces::give`: an answer may hold any path that a client chose.
#[tokio::test]
async fn a_client_does_not_get_the_namespace_that_it_names() {
    let (url, _) = served(as_offered()).await;
    let (mut client, attachments) = raw(&url);
    for named in ["file:///proc/self/ns/mnt", "file:///proc/self/ns/uts"] {
        let message = convert::request_to_wire(&offering(named));
        let answer = client.request(message).await.unwrap().into_inner();
        assert_eq!(answer.mechanism.unwrap().parameters["inodeURL"], named);
        let inode = inode_of(named.strip_prefix("file://").unwrap());
        attachments.receive(&inode).await.unwrap_err();
    }
}

// === a next hop that is not ours ===

/// Answers with what it is told to, and tells what came.
#[derive(Clone)]
struct Hop {
    answers: &'static str,
    came: Arc<Mutex<Vec<(String, usize)>>>,
}

#[tonic::async_trait]
impl NetworkService for Hop {
    async fn request(
        &self,
        request: Request<NetworkServiceRequest>,
    ) -> Result<Response<wire::Connection>, Status> {
        let info: ConnectInfo = request.extensions().get().cloned().unwrap();
        let mut connection = request.into_inner().connection.unwrap();
        let chosen = connection.mechanism.take().unwrap_or_default();
        let named = chosen
            .parameters
            .get("inodeURL")
            .cloned()
            .unwrap_or_default();
        let waiting = info.descriptors.unwrap().waiting();
        self.came.lock().unwrap().push((named, waiting));
        let parameters = [("inodeURL".to_owned(), self.answers.to_owned())];
        connection.mechanism = Some(wire::Mechanism {
            cls: "LOCAL".into(),
            r#type: "KERNEL".into(),
            parameters: parameters.into(),
        });
        Ok(Response::new(connection))
    }

    async fn close(&self, request: Request<wire::Connection>) -> Result<Response<()>, Status> {
        let info: ConnectInfo = request.extensions().get().cloned().unwrap();
        let named = request.into_inner().mechanism.unwrap().parameters["inodeURL"].clone();
        let waiting = info.descriptors.unwrap().waiting();
        self.came.lock().unwrap().push((named, waiting));
        Ok(Response::new(()))
    }
}

async fn hop(answers: &'static str) -> (Url, Hop) {
    let listener = listen(&unix(), &Security::unix_only()).await.unwrap();
    let url = listener.url().clone();
    let hop = Hop {
        answers,
        came: Arc::default(),
    };
    let server = Server::builder().add_service(NetworkServiceServer::new(hop.clone()));
    tokio::spawn(server.serve_with_incoming(listener));
    (url, hop)
}

/// Guards that of what an answer names nothing but our own is opened.
#[tokio::test]
async fn a_next_hop_does_not_get_the_namespace_that_its_answer_names() {
    for theirs in ["file:///proc/self/ns/mnt", "file:///etc/hostname"] {
        let (url, hop) = hop(theirs).await;
        let remote = remote(&url);
        let mut offer = offering("");
        let answer = remote.request(offer.clone(), soon()).await.unwrap();
        offer.mechanism = answer.mechanism.clone();
        remote.request(offer, soon()).await.unwrap();
        remote.close(answer, soon()).await.unwrap();
        let came = hop.came.lock().unwrap().clone();
        assert_eq!(came[1..], [(theirs.to_owned(), 0), (theirs.to_owned(), 0)]);
    }
}

#[tokio::test]
async fn a_close_brings_our_own_namespace_along() {
    let (url, hop) = hop(OWN_NAMESPACE).await;
    let mut closed = request("vl3");
    closed.mechanism = Some(kernel(OWN_NAMESPACE));
    remote(&url).close(closed, soon()).await.unwrap();
    let came = hop.came.lock().unwrap().clone();
    assert_eq!(came, [(own().to_string(), 1)]);
}
