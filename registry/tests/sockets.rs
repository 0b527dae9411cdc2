//! Endpoints that register with their socket instead of its path.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use carrick_grpc::{
    Attachments, DialOptions, Dialled, Security, ServerOptions as GrpcOptions, Url, dial_passing,
    listen, serve,
};
use carrick_proto::registry as proto;
use carrick_proto::registry::network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient;
use carrick_registry::{Client, ClientOptions, Endpoint, EndpointQuery, Server, ServerOptions};
use carrick_types::{EndpointName, ServiceName};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// A registry on a unix socket in a directory of its own.
struct Domain {
    directory: TempDir,
    url: Url,
    _server: Server,
}

impl Domain {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = Url::unix(directory.path().join("registry.sock"));
        let server = Server::start(ServerOptions::default()).unwrap();
        let listener = listen(&url, &Security::unix_only()).await.unwrap();
        let (routes, stop) = (server.routes(), CancellationToken::new());
        tokio::spawn(async move { serve(listener, routes, &GrpcOptions::default(), stop).await });
        Self {
            directory,
            url,
            _server: server,
        }
    }

    fn dial(&self) -> Dialled {
        let options = DialOptions::default();
        dial_passing(&self.url, &Security::unix_only(), &options).unwrap()
    }

    /// An endpoint that listens on a socket of this name.
    fn listening(&self, socket: &str) -> (UnixListener, Endpoint) {
        let path = self.directory.path().join(socket);
        let listener = UnixListener::bind(&path).unwrap();
        let labels = [(Endpoint::KEY_LABEL, "key")].into_iter().collect();
        let endpoint = Endpoint {
            labels: [(service(), labels)].into(),
            url: Some(Url::unix(path).to_string()),
            ..Endpoint::new(EndpointName::new("a").unwrap(), [service()])
        };
        (listener, endpoint)
    }
}

fn service() -> ServiceName {
    ServiceName::new("vl3").unwrap()
}

fn inode_of(path: &Path) -> Url {
    let found = std::fs::metadata(path).unwrap();
    Url::Inode(found.dev(), found.ino())
}

fn path_of(endpoint: &Endpoint) -> std::path::PathBuf {
    let url: Url = endpoint.url.as_ref().unwrap().parse().unwrap();
    url.path().unwrap().to_owned()
}

type Raw = NetworkServiceEndpointRegistryClient<carrick_grpc::Channel>;

fn raw(domain: &Domain) -> (Raw, Attachments) {
    let dialled = domain.dial();
    (Raw::new(dialled.channel), dialled.attachments.unwrap())
}

fn registration(url: &Url) -> proto::NetworkServiceEndpoint {
    proto::NetworkServiceEndpoint {
        name: "a".into(),
        network_service_names: vec!["vl3".into()],
        url: url.to_string(),
        ..proto::NetworkServiceEndpoint::default()
    }
}

#[tokio::test]
async fn a_socket_goes_along_with_its_registration_and_is_handed_on() {
    let domain = Domain::start().await;
    let client = Client::new(domain.dial(), ClientOptions::default());
    let (_listening, endpoint) = domain.listening("nse.sock");
    let path = path_of(&endpoint);
    let answer = client.register_endpoint(&endpoint).await.unwrap();
    assert_eq!(answer.url, endpoint.url, "as the endpoint named it");
    // From here on the path leads nowhere.
    let inode = inode_of(&path);
    std::fs::rename(&path, path.with_extension("hidden")).unwrap();

    let (mut finder, attachments) = raw(&domain);
    let found = finder
        .find(proto::NetworkServiceEndpointQuery::default())
        .await;
    let found = found
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        found.network_service_endpoint.unwrap().url,
        inode.to_string()
    );
    let file = std::fs::File::from(attachments.receive(&inode).await.unwrap());
    assert!(file.metadata().unwrap().file_type().is_socket());
}

#[tokio::test]
async fn a_refresh_need_not_bring_the_socket_again_and_an_unregistration_lets_it_go() {
    let domain = Domain::start().await;
    let (_listening, endpoint) = domain.listening("nse.sock");
    let (mut client, attachments) = raw(&domain);
    let attached = attachments.attach_path(&path_of(&endpoint)).unwrap();
    let registration = registration(&attached.url());
    client.register(registration.clone()).await.unwrap();
    drop(attached);
    let (mut other, _) = raw(&domain);
    other.register(registration.clone()).await.unwrap();
    other.unregister(registration.clone()).await.unwrap();
    let refused = other.register(registration).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}

/// Guards the wait for the socket: it ends, and names what is missing.
#[tokio::test]
async fn a_registration_whose_socket_does_not_come_is_refused() {
    let domain = Domain::start().await;
    let (mut client, _) = raw(&domain);
    let refused = client.register(registration(&Url::Inode(4, 402))).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("inode://4/402"), "{refused}");
    let query = EndpointQuery::by_service(service());
    let finder = Client::new(domain.dial(), ClientOptions::default());
    assert!(finder.find_endpoints(&query).await.unwrap().is_empty());
}

/// Guards the check that it is a socket.
#[tokio::test]
async fn a_registration_that_brings_something_else_is_refused() {
    let domain = Domain::start().await;
    let (mut client, attachments) = raw(&domain);
    let attached = attachments.attach(tempfile::tempfile().unwrap()).unwrap();
    let refused = client
        .register(registration(&attached.url()))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(
        refused.message().contains("the inode of a socket"),
        "{refused}"
    );
}

#[tokio::test]
async fn paths_and_addresses_are_registered_as_they_are() {
    let domain = Domain::start().await;
    let (mut client, _) = raw(&domain);
    for url in ["unix:///run/nse.sock", "tcp://127.0.0.1:1"] {
        let answer = client.register(registration(&url.parse().unwrap())).await;
        let answer = answer.unwrap().into_inner();
        assert_eq!(answer.url, url);
        client.unregister(answer).await.unwrap();
    }
}

#[tokio::test]
async fn an_endpoint_whose_socket_is_gone_can_be_unregistered() {
    let domain = Domain::start().await;
    let client = Client::new(domain.dial(), ClientOptions::default());
    let (_listening, endpoint) = domain.listening("nse.sock");
    client.register_endpoint(&endpoint).await.unwrap();
    std::fs::remove_file(path_of(&endpoint)).unwrap();
    let ended = client.unregister_endpoint(&endpoint);
    tokio::time::timeout(Duration::from_secs(5), ended)
        .await
        .unwrap()
        .unwrap();
    let query = EndpointQuery::by_service(service());
    assert!(client.find_endpoints(&query).await.unwrap().is_empty());
}
