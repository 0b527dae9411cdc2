//! Clients that do what a test says, when it says so.

use std::sync::Arc;
use std::time::Duration;

use carrick_chain::{Error, Remote, Tokens};
use carrick_grpc::{InsecureTokens, RemoteEndpoint, Security, SpiffeId, TokenOptions, Url, dial};
use carrick_link::url_of_netns;
use carrick_tests::{Lab, Namespace, PATIENCE};
use carrick_types::{
    Connection, ConnectionId, Mechanism, MechanismClass, MechanismType, PathSegment, ServiceName,
};
use tokio::time::Instant;

/// The gRPC interface of an endpoint, as `nsc` uses it.
#[derive(Clone)]
pub(crate) struct Hop {
    remote: RemoteEndpoint,
    tokens: Arc<dyn Tokens>,
    node: String,
}

impl Hop {
    /// That of `nse` on `node`.
    pub(crate) async fn new(lab: &Lab, nse: &str, node: &str) -> Self {
        let url = Url::unix(lab.socket(nse));
        let channel = dial(&url, &Security::insecure(), Duration::from_secs(5)).await;
        let subject = SpiffeId::new("test", "clients").expect("it is an id");
        let tokens: Arc<dyn Tokens> =
            Arc::new(InsecureTokens::new(subject, &TokenOptions::default()));
        Self {
            remote: RemoteEndpoint::new(channel.expect("a URL to dial"), Arc::clone(&tokens)),
            tokens,
            node: node.to_owned(),
        }
    }

    /// What a client of this name in `pod` asks for.
    pub(crate) fn wanted(&self, name: &str, pod: &Namespace) -> Connection {
        let id = ConnectionId::new(format!("{name}-0")).expect("a client has a name");
        let service = ServiceName::new("vl3").expect("it is a service");
        let mut connection = Connection::new(id, service);
        let kernel = Mechanism::new(MechanismClass::Local, MechanismType::Kernel)
            .with(Mechanism::INODE_URL, url_of_netns(&pod.foreign()))
            .with(Mechanism::NAME, "nsm-1")
            .with(Mechanism::NODE_NAME, &self.node);
        connection.preferences.push(kernel);
        let labels = [("podName", name), ("nodeName", &self.node)];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        connection.labels.0.extend(labels);
        let token = self.tokens.token(None).expect("a token can be made");
        connection.path.segments.push(PathSegment {
            name: name.to_owned(),
            id: connection.id.to_string(),
            token: token.value,
            expires: Some(token.expires),
            ..PathSegment::default()
        });
        connection
    }

    /// Sends a Request; with an answer it is a refresh.
    pub(crate) async fn request(&self, connection: &Connection) -> Result<Connection, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut request = connection.clone();
        request.path.index = 0;
        self.remote.request(request, deadline).await
    }

    /// Sends a Close for an answer.
    pub(crate) async fn close(&self, connection: &Connection) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut request = connection.clone();
        request.path.index = 0;
        self.remote.close(request, deadline).await
    }
}
