use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use carrick_grpc::Channel;
use carrick_grpc::{Attachments, DialOptions, Held, Security, Url, dial_passing, trace};
use carrick_proto::agent as wire;
use carrick_proto::agent::agent_client::AgentClient;
use carrick_types::Invalid;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tonic::Request;

use super::convert::netns_to_wire;
use super::server::nanos;
use super::{bind, fault};
use crate::check::check;
use crate::{Agent, Change, Error, Found, Netns, Protocol, Socket};

/// The half without privileges: an [`Agent`] in another process of this node.
///
/// It connects when it is first asked, and again after the other process was
/// started anew; meanwhile requests end with [`Error::Unavailable`].
///
/// Paths and [`Netns::Own`] are the other process's.
#[derive(Clone, Debug)]
pub struct RemoteAgent {
    path: PathBuf,
    channel: Channel,
    attachments: Attachments,
}

impl RemoteAgent {
    /// The agent that listens on the unix socket at `path`, absolute and UTF-8.
    /// Must be called within a tokio runtime; does not connect yet.
    ///
    /// # Errors
    ///
    /// The path is not one of those.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let invalid = || {
            let expected = "an absolute path in UTF-8";
            Error::Invalid(Invalid::new("agent socket", path.display(), expected))
        };
        let text = path.to_str().filter(|_| path.is_absolute());
        text.ok_or_else(invalid)?;
        let (security, options) = (Security::unix_only(), DialOptions::default());
        let dialled = dial_passing(&Url::unix(path), &security, &options);
        let dialled = dialled.map_err(|_| invalid())?;
        Ok(Self {
            path: path.to_owned(),
            channel: dialled.channel,
            attachments: dialled.attachments.unwrap_or_default(),
        })
    }

    fn client(&self) -> AgentClient<Channel> {
        AgentClient::new(self.channel.clone())
    }
}

fn unavailable(status: tonic::Status) -> Error {
    Error::Unavailable(Box::new(status))
}

impl Agent for RemoteAgent {
    /// It goes along with what is applied meanwhile.
    fn hold(&self, namespace: OwnedFd) -> Result<Held, Invalid> {
        let attached = self.attachments.attach(namespace).map_err(|error| {
            let expected = "a descriptor that can be passed on";
            Invalid::new("mechanism.parameters.inodeURL", error, expected)
        })?;
        Ok(Box::new(attached))
    }

    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            changes.iter().try_for_each(check).map_err(Error::Invalid)?;
            let changes = changes.into_iter().map(wire::Change::from).collect();
            let mut request = Request::new(wire::ApplyRequest { changes });
            trace::inject(request.metadata_mut());
            let answer = self.client().apply(request).await;
            fault::from_wire(answer.map_err(unavailable)?.into_inner().error)
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        netns: &'a Netns,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Found>, Error>> {
        async move {
            let request = wire::ListRequest {
                netns: Some(netns_to_wire(netns)),
                owner: owner.to_owned(),
            };
            let answer = self.client().list(request).await.map_err(unavailable)?;
            let answer = answer.into_inner();
            fault::from_wire(answer.error)?;
            let found = answer.links.into_iter().map(Found::try_from);
            found.collect::<Result<_, _>>().map_err(Error::Invalid)
        }
        .boxed()
    }

    fn ping<'a>(
        &'a self,
        netns: &'a Netns,
        source: IpAddr,
        target: IpAddr,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Option<Duration>, Error>> {
        async move {
            let request = wire::PingRequest {
                netns: Some(netns_to_wire(netns)),
                source: source.to_string(),
                target: target.to_string(),
                timeout_nanos: nanos(timeout),
            };
            let answer = self.client().ping(request).await.map_err(unavailable)?;
            let answer = answer.into_inner();
            fault::from_wire(answer.error)?;
            Ok(answer.round_trip_nanos.map(Duration::from_nanos))
        }
        .boxed()
    }

    fn bind<'a>(
        &'a self,
        netns: &'a Netns,
        protocol: Protocol,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Socket, Error>> {
        bind::ask(&self.path, netns, protocol, address).boxed()
    }
}
