//! Who is refused, and that others are not: the services as they are called by
//! peers whose identity is proved.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carrick_chain::{BoxError, Chain, Endpoint, EndpointOptions, Tokens};
use carrick_grpc::{Authorization, Monitoring, Requests, ServerOptions, token_to_metadata};
use carrick_policy::testing::Hop;
use carrick_policy::{Policies, Proven, Refusals};
use carrick_proto::connection::monitor_connection_server::MonitorConnection;
use carrick_proto::connection::{Connection, MonitorScopeSelector, Path, PathSegment};
use carrick_proto::networkservice::NetworkServiceRequest;
use carrick_proto::networkservice::network_service_server::NetworkService;
use carrick_types::Token;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

/// Tokens of a hop, for whoever asks.
struct Signed(Arc<Hop>);

impl Tokens for Signed {
    fn token(&self, audience: Option<&str>) -> Result<Token, BoxError> {
        Ok(token(&self.0, audience.unwrap_or_default(), 600))
    }
}

/// A token of `hop` for `next` that ends `left` seconds from now.
fn token(hop: &Hop, next: &str, left: i64) -> Token {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let end = now.as_secs().strict_add_signed(left);
    Token {
        value: hop.token(next, end),
        expires: UNIX_EPOCH + Duration::from_secs(end),
    }
}

/// An endpoint `nse`, its services, and a client and a forwarder of it.
struct World {
    endpoint: Endpoint,
    requests: Requests,
    monitoring: Monitoring,
    refusals: Refusals,
    nse: Arc<Hop>,
    client: Hop,
    forwarder: Hop,
}

impl World {
    fn new() -> Self {
        Self::with(|refusals| Authorization {
            requests: Policies::server().counted(refusals),
            monitoring: Policies::any(),
        })
    }

    fn with(authorization: impl Fn(&Refusals) -> Authorization) -> Self {
        let (nse, refusals) = (Arc::new(Hop::new("nse")), Refusals::default());
        let options = EndpointOptions::new("nse", Signed(Arc::clone(&nse)));
        let endpoint = Endpoint::new(options, Chain::default());
        let options = ServerOptions {
            authorization: authorization(&refusals),
            ..ServerOptions::default()
        };
        Self {
            requests: Requests::new(endpoint.clone(), &options),
            monitoring: Monitoring::new(endpoint.clone(), &options, CancellationToken::new()),
            endpoint,
            refusals,
            nse,
            client: Hop::new("client"),
            forwarder: Hop::new("forwarder"),
        }
    }

    /// The client's first Request to the endpoint by the forwarder.
    fn wanted(&self) -> Connection {
        Connection {
            id: "forwarder-1".to_owned(),
            network_service: "vl3".to_owned(),
            path: Some(Path {
                index: 1,
                path_segments: vec![
                    segment("client", token(&self.client, &self.forwarder.id, 600)),
                    segment("forwarder", self.good()),
                ],
            }),
            ..Connection::default()
        }
    }

    /// The forwarder's token.
    fn good(&self) -> Token {
        token(&self.forwarder, &self.nse.id, 600)
    }

    async fn request(
        &self,
        peer: &Hop,
        sent: &Token,
        connection: Connection,
    ) -> Result<Connection, Status> {
        let request = NetworkServiceRequest {
            connection: Some(connection),
            ..NetworkServiceRequest::default()
        };
        let answer = self.requests.request(called(peer, sent, request)).await;
        answer.map(tonic::Response::into_inner)
    }

    async fn close(&self, peer: &Hop, sent: &Token, connection: Connection) -> Result<(), Status> {
        let answer = self.requests.close(called(peer, sent, connection)).await;
        answer.map(tonic::Response::into_inner)
    }

    async fn monitor(&self, peer: &Hop, id: &str) -> Result<(), Status> {
        let named = PathSegment {
            id: id.to_owned(),
            ..PathSegment::default()
        };
        let selector = MonitorScopeSelector {
            path_segments: vec![named],
            ..MonitorScopeSelector::default()
        };
        let call = called(peer, &self.good(), selector);
        self.monitoring.monitor_connections(call).await.map(drop)
    }

    /// Asserts that `policy` refused a call, and that this was counted.
    #[track_caller]
    fn assert_refused<T>(&self, answer: Result<T, Status>, policy: &str) {
        let Err(status) = answer else {
            panic!("it was served")
        };
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        let message = status.message();
        assert!(message.starts_with("no sufficient privileges"), "{message}");
        assert!(message.contains(policy), "{message}");
        assert_eq!(self.refusals.of(policy), 1, "{message}");
    }
}

fn segment(name: &str, token: Token) -> PathSegment {
    PathSegment {
        name: name.to_owned(),
        id: format!("{name}-1"),
        token: token.value,
        expires: Some(token.expires.into()),
        ..PathSegment::default()
    }
}

/// A call of `peer`, as its TLS connection proves, with the token `sent` beside it.
fn called<M>(peer: &Hop, sent: &Token, message: M) -> Request<M> {
    let mut request = Request::new(message);
    token_to_metadata(sent, request.metadata_mut()).unwrap();
    let proven = Proven::new(&peer.id, &peer.certificate);
    request.extensions_mut().insert(proven);
    request
}

fn segments(connection: &mut Connection) -> &mut Vec<PathSegment> {
    &mut connection.path.as_mut().unwrap().path_segments
}

#[tokio::test]
async fn who_has_good_tokens_is_served_over_a_connections_life() {
    let world = World::new();
    let (peer, good) = (&world.forwarder, world.good());
    let answer = world.request(peer, &good, world.wanted()).await.unwrap();
    let again = world.request(peer, &good, answer).await.unwrap();
    assert_eq!(again.path.as_ref().unwrap().path_segments.len(), 3);
    world.monitor(peer, "forwarder-1").await.unwrap();
    world.close(peer, &good, again).await.unwrap();
    assert!(world.endpoint.connections().is_empty());
}

// Guards the call of `Authorization::request` in `Requests::serve`: without it
// each of these is served.
#[tokio::test]
async fn who_has_bad_tokens_is_refused_and_leaves_nothing() {
    let other = Hop::new("other");
    let nobody = Token {
        value: "none".to_owned(),
        expires: SystemTime::now(),
    };
    for (policy, case) in [
        ("common/tokens_chained", 0),
        ("common/tokens_expired", 1),
        ("common/tokens_chained", 2),
        ("server/prev_token_signed", 3),
        ("server/prev_token_signed", 4),
    ] {
        let world = World::new();
        let World { forwarder, nse, .. } = &world;
        let (peer, sent) = match case {
            0 => (forwarder, token(forwarder, &other.id, 600)),
            1 => (forwarder, token(forwarder, &nse.id, -1)),
            2 => (forwarder, nobody.clone()),
            // Its own name, another key.
            3 => (forwarder, token(&Hop::new("forwarder"), &nse.id, 600)),
            // Somebody else's token.
            _ => (&other, world.good()),
        };
        let answer = world.request(peer, &sent, world.wanted()).await;
        world.assert_refused(answer, policy);
        assert!(world.endpoint.connections().is_empty(), "{policy}");
    }
}

// Guards that the whole left side of the path is judged, not only the caller.
#[tokio::test]
async fn a_path_with_a_bad_token_before_the_callers_is_refused() {
    for (policy, case) in [
        ("common/tokens_chained", 0),
        ("common/tokens_expired", 1),
        ("common/tokens_chained", 2),
    ] {
        let world = World::new();
        let bad = match case {
            0 => token(&world.client, &world.nse.id, 600).value,
            1 => token(&world.client, &world.forwarder.id, -1).value,
            _ => String::new(),
        };
        let mut wanted = world.wanted();
        segments(&mut wanted)[0].token = bad;
        let answer = world.request(&world.forwarder, &world.good(), wanted).await;
        world.assert_refused(answer, policy);
    }
}

// Guards `own_index`: who claims to be the endpoint itself is judged by the hop
// before that.
#[tokio::test]
async fn a_path_without_a_caller_is_refused() {
    let world = World::new();
    let (peer, good) = (&world.forwarder, world.good());
    let mut wanted = world.wanted();
    wanted.path = None;
    world.assert_refused(
        world.request(peer, &good, wanted).await,
        "server/prev_token_signed",
    );
    let world = World::new();
    let mut wanted = world.wanted();
    let path = wanted.path.as_mut().unwrap();
    path.index = 0;
    path.path_segments = vec![segment("nse", good.clone())];
    wanted.id = "nse-1".to_owned();
    world.assert_refused(
        world.request(peer, &good, wanted).await,
        "server/prev_token_signed",
    );
}

#[tokio::test]
async fn a_refused_refresh_leaves_what_is_up() {
    let world = World::new();
    let (peer, good) = (&world.forwarder, world.good());
    let answer = world.request(peer, &good, world.wanted()).await.unwrap();
    let late = token(peer, &world.nse.id, -1);
    let refused = world.request(peer, &late, answer).await;
    world.assert_refused(refused, "common/tokens_expired");
    assert_eq!(world.endpoint.connections().len(), 1);
}

// Guards `is_last_caller`, both ways: without it the first Close is refused,
// and with it always true the last one is served.
#[tokio::test]
async fn a_late_close_is_served_for_who_made_the_last_request_and_for_nobody_else() {
    let world = World::new();
    let (peer, good) = (&world.forwarder, world.good());
    let late = token(peer, &world.nse.id, -1);
    let answer = world.request(peer, &good, world.wanted()).await.unwrap();
    let mut expired = answer.clone();
    segments(&mut expired)[0].token = token(&world.client, &peer.id, -1).value;
    world.close(peer, &late, expired.clone()).await.unwrap();
    assert!(world.endpoint.connections().is_empty());

    world.request(peer, &good, world.wanted()).await.unwrap();
    let known = &world.endpoint.connections()[0];
    segments(&mut expired)[2].id = known.id.to_string();
    let other = Hop::new("other");
    let late = token(&other, &world.nse.id, -1);
    let refused = world.close(&other, &late, expired).await;
    world.assert_refused(refused, "common/tokens_chained");
    assert_eq!(world.endpoint.connections().len(), 1);
}

// Guards the call of `Authorization::monitor`, and that it is not asked by default.
#[tokio::test]
async fn where_it_is_asked_for_only_who_requested_a_connection_follows_it() {
    let mask = "etc/nsm/opa/monitor/.*.rego";
    let world = World::with(|refusals| Authorization {
        monitoring: Policies::load([mask], std::path::Path::new(""))
            .unwrap()
            .counted(refusals),
        ..Authorization::default()
    });
    let (peer, good) = (&world.forwarder, world.good());
    let answer = world.request(peer, &good, world.wanted()).await.unwrap();
    world.monitor(peer, "forwarder-1").await.unwrap();
    let refused = world.monitor(&world.client, "forwarder-1").await;
    world.assert_refused(refused, "monitor/service_connection");
    for id in ["client-1", "", "nobody"] {
        assert!(world.monitor(peer, id).await.is_err(), "{id}");
    }
    world.close(peer, &good, answer).await.unwrap();
    assert!(world.monitor(peer, "forwarder-1").await.is_err());
}

#[tokio::test]
async fn a_file_of_ones_own_judges_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("names.rego");
    let text = "package names\nvalid { input.path_segments[0].name == \"client\"; input.path_segments[input.index].name == \"nse\" }";
    std::fs::write(&file, text).unwrap();
    let world = World::with(|refusals| {
        let policies = Policies::load(["names.rego"], folder.path()).unwrap();
        Authorization {
            requests: policies.counted(refusals),
            ..Authorization::default()
        }
    });
    let (peer, good) = (&world.forwarder, world.good());
    world.request(peer, &good, world.wanted()).await.unwrap();
    let mut wanted = world.wanted();
    segments(&mut wanted)[0].name = "stranger".to_owned();
    world.assert_refused(world.request(peer, &good, wanted).await, "names.rego");
}

#[tokio::test]
async fn a_token_that_says_it_is_anothers_is_refused() {
    let world = World::new();
    let end = SystemTime::now() + Duration::from_secs(600);
    let claims = json!({
        "sub": world.forwarder.id,
        "aud": [world.nse.id],
        "exp": end.duration_since(UNIX_EPOCH).unwrap().as_secs(),
    });
    let liar = Hop::new("liar");
    let sent = Token {
        value: liar.sign(&claims),
        expires: end,
    };
    let refused = world.request(&liar, &sent, world.wanted()).await;
    world.assert_refused(refused, "server/prev_token_signed");
}
