//! Mutual TLS with identities of a Workload API. Each test of a refusal names
//! the check that it guards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use carrick_chain::{Chain, Endpoint, EndpointOptions, Error, Remote};
use carrick_grpc::{
    Claims, DialOptions, Health, RemoteEndpoint, Security, ServerOptions, TokenOptions, Url,
    dial_with, listen, routes, serve, verify,
};
use carrick_spiffe::testing::{Authority, WorkloadApi, answer, context};
use carrick_types::{Connection, ConnectionId, PathSegment, ServiceName};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::sync::{CancellationToken, DropGuard};

const PATIENCE: Duration = Duration::from_secs(20);

/// A workload with a Workload API of its own.
struct Workload {
    api: WorkloadApi,
    security: Security,
}

impl Workload {
    async fn new(authority: &Authority, name: &str, federated: &[&Authority]) -> Self {
        Self::with(WorkloadApi::start(authority.answer(name, federated))).await
    }

    async fn with(api: WorkloadApi) -> Self {
        let security = Security::mutual_tls(api.follow(), &TokenOptions::default());
        let source = security.source().expect("mutual TLS");
        timeout(PATIENCE, source.ready())
            .await
            .expect("an identity comes");
        Self { api, security }
    }

    fn key(&self) -> String {
        let context = self
            .security
            .source()
            .and_then(|source| source.current().ok());
        let context = context.expect("an identity");
        context.svid().public_key_text().to_owned()
    }

    async fn serve(&self, url: &Url) -> (Url, DropGuard) {
        let listener = listen(url, &self.security).await.expect("a listener");
        let url = listener.url().clone();
        let tokens = self.security.tokens().expect("mutual TLS");
        let endpoint = Endpoint::new(EndpointOptions::new("nse", tokens), Chain::default());
        let stop = CancellationToken::new();
        let options = ServerOptions::default();
        let health = Health::new(Health::ENDPOINT).await;
        let routes = routes(&endpoint, &options, &health, &stop);
        let until = stop.clone();
        tokio::spawn(async move { serve(listener, routes, &options, until).await });
        (url, stop.drop_guard())
    }

    fn dial(&self, url: &Url) -> RemoteEndpoint {
        let dialled = dial_with(url, &self.security, &DialOptions::default());
        let tokens = self.security.tokens().expect("mutual TLS");
        RemoteEndpoint::new(dialled.expect("a channel"), tokens)
    }
}

fn tcp() -> Url {
    Url::tcp("127.0.0.1", 0)
}

async fn request(remote: &RemoteEndpoint, id: usize) -> Result<Connection, Error> {
    let id = ConnectionId::new(format!("c-{id}")).expect("an id");
    let service = ServiceName::new("vl3").expect("a name");
    let mut connection = Connection::new(id.clone(), service);
    connection.path.segments.push(PathSegment {
        name: "nsc".into(),
        id: id.to_string(),
        expires: Some(SystemTime::now() + Duration::from_secs(60)),
        ..PathSegment::default()
    });
    remote
        .request(connection, Instant::now() + Duration::from_secs(10))
        .await
}

#[tokio::test]
async fn both_ends_know_each_other_and_say_so_in_their_tokens() {
    let own = Authority::new("own.test");
    let server = Workload::new(&own, "nse", &[]).await;
    let client = Workload::new(&own, "nsc", &[]).await;
    let directory = tempfile::tempdir().unwrap();
    for url in [tcp(), Url::unix(directory.path().join("nse.sock"))] {
        let (url, _serving) = server.serve(&url).await;
        let answer = request(&client.dial(&url), 1).await.unwrap();
        let [of_client, of_server] = &answer.path.segments[..] else {
            panic!("{:?}", answer.path)
        };
        let now = SystemTime::now();
        let claims = verify(&of_client.token, &client.key(), now).unwrap();
        assert_eq!(claims.sub, "spiffe://own.test/nsc");
        assert_eq!(claims.aud, ["spiffe://own.test/nse"]);
        let claims = verify(&of_server.token, &server.key(), now).unwrap();
        assert_eq!(claims.sub, "spiffe://own.test/nse");
        assert_eq!(claims.aud, ["spiffe://own.test/nsc"]);
        assert!(of_server.expires.is_some());
    }
}

/// Guards the end of the own and of the peer's certificate in `SvidTokens`.
#[tokio::test]
async fn no_token_outlives_a_certificate() {
    let own = Authority::new("own.test");
    let soon = SystemTime::now() + Duration::from_secs(90);
    let api = WorkloadApi::start(answer(own.issue_until("nsc", soon), &[]));
    let client = Workload::with(api).await;
    let server = Workload::new(&own, "nse", &[]).await;
    let (url, _serving) = server.serve(&tcp()).await;
    let answer = request(&client.dial(&url), 1).await.unwrap();
    let [of_client, of_server] = &answer.path.segments[..] else {
        panic!("{:?}", answer.path)
    };
    let end = Claims::unverified(&of_client.token).unwrap().exp;
    let soon_s = soon
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert_eq!(end, soon_s, "its own certificate's");
    assert!(
        of_server.expires.unwrap() <= soon,
        "the peer's certificate's"
    );
}

/// Guards the verifiers in both TLS configurations.
#[tokio::test]
async fn a_stranger_is_refused_and_who_is_federated_is_served() {
    let (own, other) = (Authority::new("own.test"), Authority::new("other.test"));
    let strict = Workload::new(&own, "nse", &[]).await;
    let open = Workload::new(&own, "nse", &[&other]).await;
    let stranger = Workload::new(&other, "nsc", &[&own]).await;
    let (to_strict, _serving) = strict.serve(&tcp()).await;
    let (to_open, _serving_too) = open.serve(&tcp()).await;
    request(&stranger.dial(&to_strict), 1).await.unwrap_err();
    request(&stranger.dial(&to_open), 1).await.unwrap();
    let distrustful = Workload::new(&other, "nsc", &[]).await;
    request(&distrustful.dial(&to_open), 1).await.unwrap_err();
}

/// Guards that a certificate is required, and TLS at all.
#[tokio::test]
async fn without_a_certificate_nobody_is_served() {
    let own = Authority::new("own.test");
    let server = Workload::new(&own, "nse", &[]).await;
    let (url, _serving) = server.serve(&tcp()).await;
    let plain = dial_with(&url, &Security::insecure(), &DialOptions::default()).unwrap();
    let tokens = server.security.tokens().unwrap();
    request(&RemoteEndpoint::new(plain, tokens), 1)
        .await
        .unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_identities_rotate() {
    let own = Authority::new("own.test");
    let server = Workload::new(&own, "nse", &[]).await;
    let client = Workload::new(&own, "nsc", &[]).await;
    let (url, _serving) = server.serve(&tcp()).await;
    let remote = client.dial(&url);
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let callers = (0..4).map(|caller| {
        let (remote, stop, done) = (remote.clone(), Arc::clone(&stop), Arc::clone(&done));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                request(&remote, caller).await.expect("0 failed Requests");
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    for round in 1..=6 {
        while done.load(Ordering::Relaxed) < round * 20 {
            assert!(callers.iter().all(|caller| !caller.is_finished()));
            tokio::task::yield_now().await;
        }
        client.api.give(own.answer("nsc", &[]));
        server.api.give(own.answer("nse", &[]));
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    // What is signed now verifies with the certificate of now.
    let mut source = client.security.source().unwrap();
    loop {
        let key = client.key();
        let answer = request(&remote, 9).await.unwrap();
        if verify(&answer.path.segments[0].token, &key, SystemTime::now()).is_ok() {
            break;
        }
        source.changed().await;
    }
}

/// Guards the eviction of the oldest handshake, and that handshakes are tasks.
#[tokio::test]
async fn who_never_finishes_a_handshake_keeps_nobody_out() {
    let own = Authority::new("own.test");
    let server = Workload::new(&own, "nse", &[]).await;
    let client = Workload::new(&own, "nsc", &[]).await;
    let (url, _serving) = server.serve(&tcp()).await;
    let Url::Tcp { port, .. } = url else {
        panic!("{url}")
    };
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let begin = Instant::now();
    request(&client.dial(&url), 1).await.unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "before they time out"
    );
}

/// Guards the verification of a session that is gone on with (`tls::peer`).
#[tokio::test]
async fn a_session_ends_with_the_certificate_it_was_made_with() {
    let own = Authority::new("own.test");
    let server = Workload::new(&own, "nse", &[]).await;
    let (url, _serving) = server.serve(&tcp()).await;
    let Url::Tcp { port, .. } = url else {
        panic!("{url}")
    };
    let end = SystemTime::now() + Duration::from_secs(4);
    let client = context(&answer(own.issue_until("nsc", end), &[]));
    let connector = TlsConnector::from(Arc::clone(client.client()));
    let connect = async || {
        let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let name = ServerName::try_from("nse.invalid").unwrap();
        let mut stream = connector.connect(name, socket).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        // The server speaks first in HTTP/2, and a session comes before that.
        let mut settings = [0; 9];
        let read = timeout(PATIENCE, stream.read_exact(&mut settings)).await;
        (kind, read.unwrap().is_ok())
    };
    assert_eq!(connect().await, (Some(HandshakeKind::Full), true));
    assert_eq!(connect().await, (Some(HandshakeKind::Resumed), true));
    // The second in which it ends is its last.
    while SystemTime::now() <= end + Duration::from_secs(1) {
        tokio::task::yield_now().await;
    }
    let (_, went_on) = connect().await;
    assert!(!went_on, "its certificate has ended");
}
