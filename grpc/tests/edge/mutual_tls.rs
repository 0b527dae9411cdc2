//! Mutual TLS with identities of a Workload API. Each test of a refusal names
//! the check that it guards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use carrick_chain::{Chain, Endpoint, EndpointOptions, Error, Remote};
use carrick_grpc::{
    Claims, DialOptions, Health, ListenOptions, Listener, RemoteEndpoint, Security, ServerOptions,
    TokenOptions, Url, dial_with, routes, serve, verify,
};
use carrick_proto::spiffe::X509svidResponse;
use carrick_spiffe::testing::{Authority, WorkloadApi, answer, context};
use carrick_types::{Connection, ConnectionId, PathSegment, ServiceName};
use futures::FutureExt;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, SignatureScheme};
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

    /// Gives the workload another identity, and waits until it is the current one.
    async fn rotate(&self, answer: X509svidResponse) {
        let (before, mut source) = (self.key(), self.security.source().expect("mutual TLS"));
        self.api.give(answer);
        while self.key() == before {
            timeout(PATIENCE, source.changed()).await.expect("it comes");
        }
    }

    async fn serve(&self, url: &Url) -> (Url, DropGuard) {
        self.serve_with(url, &ListenOptions::default()).await
    }

    async fn serve_with(&self, url: &Url, options: &ListenOptions) -> (Url, DropGuard) {
        let listener = Listener::bind(url, &self.security, options).await;
        let listener = listener.expect("a listener");
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

    fn refused(&self) -> String {
        let mut registry = Registry::default();
        self.security.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).expect("counters have a text");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let mut samples: Vec<_> = samples.collect();
        samples.sort_unstable();
        samples.join(" ").replace("refused_handshakes_total", "")
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
    // Both ends count what came to nothing, each on its side of it.
    counted(&distrustful, r#"{side="client"} 1 {side="server"} 0"#).await;
    counted(&open, r#"{side="client"} 0 {side="server"} 1"#).await;
}

/// The server is told of it after the client.
async fn counted(workload: &Workload, refused: &str) {
    let all = async {
        while workload.refused() != refused {
            tokio::task::yield_now().await;
        }
    };
    let counted = timeout(PATIENCE, all).await;
    counted.unwrap_or_else(|_| panic!("{}, not {refused}", workload.refused()));
}

/// Guards that TLS is required.
#[tokio::test]
async fn without_tls_nobody_is_served() {
    let own = Authority::new("own.test");
    let server = Workload::new(&own, "nse", &[]).await;
    let (url, _serving) = server.serve(&tcp()).await;
    let plain = dial_with(&url, &Security::insecure(), &DialOptions::default()).unwrap();
    let tokens = server.security.tokens().unwrap();
    request(&RemoteEndpoint::new(plain, tokens), 1)
        .await
        .unwrap_err();
}

/// Guards that a client must show a certificate (`client_auth_mandatory`, which
/// is rustls's default; and that its chain must be there in `tls::peer`).
#[tokio::test]
async fn without_a_certificate_nobody_is_served() {
    let own = Authority::new("own.test");
    let server = Workload::new(&own, "nse", &[]).await;
    let (url, _serving) = server.serve(&tcp()).await;
    let with = context(&own.answer("nsc", &[]));
    let mut without = ClientConfig::clone(with.client());
    without.client_auth_cert_resolver = Arc::new(NoCertificate);
    assert!(hears_a_server(&url, with.client()).await);
    assert!(!hears_a_server(&url, &Arc::new(without)).await);
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Whether the server speaks HTTP/2 to a client, in which it speaks first.
async fn hears_a_server(url: &Url, client: &Arc<ClientConfig>) -> bool {
    let socket = TcpStream::connect(("127.0.0.1", port(url))).await;
    let socket = socket.expect("somebody listens");
    let name = ServerName::try_from("nse.invalid").expect("a name");
    let connector = TlsConnector::from(Arc::clone(client));
    // In TLS 1.3 a client is done before the server saw what it shows.
    let stream = connector.connect(name, socket).await;
    let mut stream = stream.expect("a handshake on our side");
    let mut settings = [0; 9];
    let read = timeout(PATIENCE, stream.read_exact(&mut settings)).await;
    read.expect("an answer or an end").is_ok()
}

fn port(url: &Url) -> u16 {
    match url {
        Url::Tcp { port, .. } => *port,
        other => panic!("{other}"),
    }
}

/// Guards that a client signs with the key that it showed on the connection,
/// not with its newest one (`Target::stamp`).
#[tokio::test]
async fn a_clients_token_is_of_the_identity_that_its_connection_showed() {
    let own = Authority::new("own.test");
    let server = Workload::new(&own, "nse", &[]).await;
    let client = Workload::new(&own, "nsc", &[]).await;
    let (url, _serving) = server.serve(&tcp()).await;
    let between = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let remote = client.dial(&Url::tcp("127.0.0.1", between.local_addr().unwrap().port()));
    let asked = tokio::spawn(async move { request(&remote, 1).await });
    let (mut near, _) = between.accept().await.unwrap();
    // The client chose what to show, and its identity changes now.
    let shown = client.key();
    client.rotate(own.answer("nsc", &[])).await;
    let mut far = TcpStream::connect(("127.0.0.1", port(&url))).await.unwrap();
    tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
    let answer = asked.await.unwrap().unwrap();
    let token = &answer.path.segments[0].token;
    verify(token, &shown, SystemTime::now()).expect("the key that the server saw");
}

/// Guards that a server signs with the key that it showed on the connection,
/// not with its newest one, for the client (`Tls::token`).
#[tokio::test]
async fn a_servers_token_is_of_the_identity_that_its_connection_showed() {
    let own = Authority::new("own.test");
    let server = Workload::new(&own, "nse", &[]).await;
    let client = Workload::new(&own, "nsc", &[]).await;
    let (url, _serving) = server.serve(&tcp()).await;
    let remote = client.dial(&url);
    request(&remote, 1).await.unwrap();
    // The server's identity changes below the client's connection.
    let shown = server.key();
    server.rotate(own.answer("nse", &[])).await;
    let answer = request(&remote, 2).await.unwrap();
    let token = &answer.path.segments[1].token;
    verify(token, &shown, SystemTime::now()).expect("the key that the client saw");
    let claims = Claims::unverified(token).unwrap();
    assert_eq!(claims.aud, ["spiffe://own.test/nsc"]);
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

/// Guards the eviction of the oldest handshake (`Accepting::begin`), and that
/// handshakes are tasks.
#[tokio::test]
async fn who_never_finishes_a_handshake_keeps_nobody_out() {
    let own = Authority::new("own.test");
    let server = Workload::new(&own, "nse", &[]).await;
    let client = Workload::new(&own, "nsc", &[]).await;
    let few = ListenOptions {
        handshakes_max: 4,
        ..ListenOptions::default()
    };
    let (url, _serving) = server.serve_with(&tcp(), &few).await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        let socket = TcpStream::connect(("127.0.0.1", port(&url))).await;
        silent.push(socket.unwrap());
    }
    let begin = Instant::now();
    request(&client.dial(&url), 1).await.unwrap();
    // The eight oldest gave way to their like, one more to who was served.
    for evicted in &mut silent[..9] {
        let end = timeout(PATIENCE, evicted.read(&mut [0])).await;
        assert_eq!(end.expect("it ends").unwrap_or(0), 0);
    }
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "before they time out"
    );
    let mut last = [0];
    let kept = silent[11].read(&mut last).now_or_never();
    assert!(kept.is_none(), "the newest still has its time");
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
        let name = ServerName::try_from("nse.invalid").expect("a name");
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
