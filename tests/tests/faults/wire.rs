//! Requests as messages, also such as no client of ours would send.

use std::sync::Arc;
use std::time::Duration;

use carrick_chain::Tokens;
use carrick_grpc::Channel;
use carrick_grpc::convert::time_to_wire;
use carrick_grpc::{InsecureTokens, Security, SpiffeId, TokenOptions, Url, dial};
use carrick_proto::connection::{Connection, Mechanism, Path, PathSegment};
use carrick_proto::networkservice::NetworkServiceRequest;
use carrick_proto::networkservice::network_service_client::NetworkServiceClient;
use carrick_tests::{Lab, Namespace, PATIENCE};
use tonic::{Code, Request, Status};

/// A caller of an endpoint, with tokens that only it believes in.
#[derive(Clone)]
pub(crate) struct Caller {
    channel: Channel,
    tokens: Arc<dyn Tokens>,
}

impl Caller {
    /// Calls `nse` at its unix socket.
    pub(crate) async fn new(lab: &Lab, nse: &str) -> Self {
        let url = Url::unix(lab.socket(nse));
        let channel = dial(&url, &Security::insecure(), Duration::from_secs(5)).await;
        Self {
            channel: channel.unwrap(),
            tokens: tokens(&TokenOptions::default()),
        }
    }

    /// The channel.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// What the client `name` asks for whose packets come from `pod`.
    pub(crate) fn wanted(&self, name: &str, pod: &Namespace) -> NetworkServiceRequest {
        let token = self.tokens.token(None).unwrap();
        let segment = PathSegment {
            name: name.into(),
            id: format!("{name}-0"),
            token: token.value,
            expires: Some(time_to_wire(token.expires)),
            ..PathSegment::default()
        };
        NetworkServiceRequest {
            connection: Some(Connection {
                id: segment.id.clone(),
                network_service: "vl3".into(),
                path: Some(Path {
                    index: 0,
                    path_segments: vec![segment],
                }),
                ..Connection::default()
            }),
            mechanism_preferences: vec![kernel(&format!("file://{}", pod.path().display()))],
        }
    }

    /// Sends a Request.
    pub(crate) async fn request(
        &self,
        wanted: NetworkServiceRequest,
    ) -> Result<Connection, Status> {
        let mut request = Request::new(wanted);
        request.set_timeout(PATIENCE);
        let mut client = NetworkServiceClient::new(self.channel());
        client
            .request(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Sends a Close.
    pub(crate) async fn close(&self, connection: Connection) -> Result<(), Status> {
        let mut client = NetworkServiceClient::new(self.channel());
        client.close(connection).await.map(drop)
    }

    /// Sends a Request that must be refused: `code`, and a message that names
    /// each of `named`.
    pub(crate) async fn refused(
        &self,
        what: &str,
        wanted: NetworkServiceRequest,
        code: Code,
        named: &[&str],
    ) {
        let Err(status) = self.request(wanted).await else {
            panic!("{what}: it was served");
        };
        assert_eq!(status.code(), code, "{what}: {status:?}");
        for name in named {
            let message = status.message();
            assert!(message.contains(name), "{what}: no {name:?} in {message:?}");
        }
    }
}

/// Tokens of a key that nobody knows.
pub(crate) fn tokens(options: &TokenOptions) -> Arc<dyn Tokens> {
    let subject = SpiffeId::new("test", "faults").unwrap();
    Arc::new(InsecureTokens::new(subject, options))
}

/// A kernel interface named `nsm-1` in a namespace.
pub(crate) fn kernel(inode_url: &str) -> Mechanism {
    let parameters = [("inodeURL", inode_url), ("name", "nsm-1")];
    let parameters = parameters.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Mechanism {
        cls: "LOCAL".into(),
        r#type: "KERNEL".into(),
        parameters: parameters.into(),
    }
}

/// The connection of a Request.
pub(crate) fn connection(request: &mut NetworkServiceRequest) -> &mut Connection {
    request.connection.as_mut().unwrap()
}

/// The client's segment of a Request.
pub(crate) fn segment(request: &mut NetworkServiceRequest) -> &mut PathSegment {
    let path = connection(request).path.as_mut().unwrap();
    &mut path.path_segments[0]
}

/// The parameters of the mechanism that a Request offers.
pub(crate) fn parameters(
    request: &mut NetworkServiceRequest,
) -> &mut std::collections::BTreeMap<String, String> {
    &mut request.mechanism_preferences[0].parameters
}

/// The refresh of an answer.
pub(crate) fn refresh(answer: &Connection) -> NetworkServiceRequest {
    NetworkServiceRequest {
        connection: Some(answer.clone()),
        mechanism_preferences: Vec::new(),
    }
}
