//! The calls of clients: open, refresh and close a connection.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use carrick_grpc::Channel;
use carrick_grpc::token_to_metadata;
use carrick_proto::connection::monitor_connection_client::MonitorConnectionClient;
use carrick_proto::connection::{
    Connection, ConnectionEvent, MonitorScopeSelector, Path, PathSegment,
};
use carrick_proto::connectioncontext::{ConnectionContext, DnsContext, IpContext};
use carrick_proto::networkservice::NetworkServiceRequest;
use carrick_proto::networkservice::network_service_client::NetworkServiceClient;
use carrick_types::Token;
use tonic::{Status, Streaming};

use super::server::Server;

/// How calls get to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Each Request and each Close dials anew, as NSM's `dial` element does; a connection keeps what it dialled last.
    Dialled,
    /// One HTTP/2 connection carries all.
    Shared,
}

/// Who calls.
pub(crate) struct Caller<'a> {
    server: &'a Server,
    transport: Transport,
    shared: Channel,
}

/// A connection that is up.
pub(crate) struct Held {
    pub(crate) connection: Connection,
    dialled: Option<Channel>,
}

impl Held {
    /// One that came over a shared HTTP/2 connection.
    pub(crate) fn shared(connection: Connection) -> Self {
        Self {
            connection,
            dialled: None,
        }
    }
}

/// What a client's token is good for at first.
const LIFE: Duration = Duration::from_secs(600);

/// After what time NSM's clients refresh a connection with such a token.
pub(crate) const REFRESH: Duration = Duration::from_secs(120);

impl<'a> Caller<'a> {
    pub(crate) async fn new(server: &'a Server, transport: Transport) -> Result<Self> {
        Ok(Self {
            server,
            transport,
            shared: server.channel().await?,
        })
    }

    async fn channel(&self) -> Result<Channel> {
        match self.transport {
            Transport::Dialled => self.server.channel().await,
            Transport::Shared => Ok(self.shared.clone()),
        }
    }

    fn kept(&self, channel: Channel) -> Option<Channel> {
        (self.transport == Transport::Dialled).then_some(channel)
    }

    /// Opens a connection.
    pub(crate) async fn open(&self, number: usize) -> Result<Held> {
        let channel = self.channel().await?;
        let connection = request(channel.clone(), fresh(number)).await?;
        Ok(Held {
            connection,
            dialled: self.kept(channel),
        })
    }

    /// Refreshes a connection whose client's token is `age` younger than its first one.
    pub(crate) async fn refresh(&self, held: Held, age: Duration) -> Result<Held> {
        let channel = self.channel().await?;
        let connection = request(channel.clone(), renewed(held.connection, age)).await?;
        Ok(Held {
            connection,
            dialled: self.kept(channel),
        })
    }

    /// Closes a connection.
    pub(crate) async fn close(&self, held: Held) -> Result<()> {
        let mut client = NetworkServiceClient::new(self.channel().await?);
        let token = token(&held.connection)?;
        client.close(signed(held.connection, &token)?).await?;
        Ok(())
    }

    /// Follows a connection, as NSM's `heal` element does.
    pub(crate) async fn follow(&self, held: &Held) -> Result<Streaming<ConnectionEvent>> {
        let channel = held.dialled.clone();
        let mut client = MonitorConnectionClient::new(channel.unwrap_or(self.shared.clone()));
        let path = held.connection.path.as_ref();
        let own = path.and_then(|path| path.path_segments.first());
        let own = own.context("the answer has no path")?;
        let selector = MonitorScopeSelector {
            path_segments: vec![PathSegment {
                name: own.name.clone(),
                id: own.id.clone(),
                ..PathSegment::default()
            }],
            ..MonitorScopeSelector::default()
        };
        let mut events = client.monitor_connections(selector).await?.into_inner();
        events.message().await?.context("the stream ended")?;
        Ok(events)
    }
}

/// Asks for a connection, or for its refresh.
pub(crate) async fn request(
    channel: Channel,
    connection: Connection,
) -> Result<Connection, Status> {
    let token = token(&connection)?;
    let request = NetworkServiceRequest {
        connection: Some(connection),
        mechanism_preferences: Vec::new(),
    };
    let mut client = NetworkServiceClient::new(channel);
    let answer = client.request(signed(request, &token)?).await?;
    Ok(answer.into_inner())
}

/// The token of the client's own segment.
fn token(connection: &Connection) -> Result<Token, Status> {
    let path = connection.path.as_ref();
    let own = path.and_then(|path| path.path_segments.first());
    let own = own.ok_or_else(|| Status::internal("the answer has no path"))?;
    let expires = own.expires.and_then(|time| time.try_into().ok());
    Ok(Token {
        value: own.token.clone(),
        expires: expires.ok_or_else(|| Status::internal("the client's token has no end"))?,
    })
}

/// A message with the client's token beside it.
fn signed<T>(message: T, token: &Token) -> Result<tonic::Request<T>, Status> {
    let mut request = tonic::Request::new(message);
    token_to_metadata(token, request.metadata_mut())
        .map_err(|invalid| Status::internal(invalid.to_string()))?;
    Ok(request)
}

/// What a client asks for at first.
fn fresh(number: usize) -> Connection {
    let id = format!("00000000-0000-4000-8000-{number:016x}");
    let segment = PathSegment {
        name: format!("client-{number}"),
        id: id.clone(),
        token: "x".repeat(300),
        expires: Some((SystemTime::now() + LIFE).into()),
        ..PathSegment::default()
    };
    Connection {
        id,
        network_service: "vl3".into(),
        path: Some(Path {
            index: 0,
            path_segments: vec![segment],
        }),
        labels: [("podName".to_owned(), format!("pod-{number}"))].into(),
        payload: "IP".into(),
        // The Go SDK does not expect a Request without.
        context: Some(ConnectionContext {
            ip_context: Some(IpContext::default()),
            dns_context: Some(DnsContext::default()),
            ..ConnectionContext::default()
        }),
        ..Connection::default()
    }
}

/// What a client asks for when it refreshes: its last answer, with a new token.
pub(crate) fn renewed(mut connection: Connection, age: Duration) -> Connection {
    let path = connection.path.as_mut();
    if let Some(own) = path.and_then(|path| path.path_segments.first_mut()) {
        own.expires = Some((SystemTime::now() + LIFE + age).into());
    }
    connection
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_is_the_last_answer_with_a_later_end() {
        let first = fresh(7);
        let later = renewed(first.clone(), REFRESH);
        let end = |connection: &Connection| {
            let path = connection.path.as_ref().unwrap();
            SystemTime::try_from(path.path_segments[0].expires.unwrap()).unwrap()
        };
        assert!(end(&later) >= end(&first) + REFRESH);
        assert_eq!((later.id, later.labels), (first.id, first.labels));
    }
}
