//! The admin requests over real listeners.

use std::os::unix::fs::PermissionsExt;

use carrick_telemetry::prometheus_client::metrics::counter::Counter;
use carrick_telemetry::{Address, Admin, Error, Metrics, Readiness};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

/// The status code, the head and the body of `GET path`.
async fn get(stream: impl AsyncRead + AsyncWrite, path: &str) -> (u16, String, String) {
    tokio::pin!(stream);
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it takes a request");
    let mut response = String::new();
    stream
        .read_to_string(&mut response)
        .await
        .expect("it answers in text");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
    let code = head[9..12].parse().expect("a status code");
    (code, head.to_lowercase(), body.to_owned())
}

struct Running {
    address: Address,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Running {
    async fn start(admin: Admin, address: &str) -> Self {
        let address = address.parse().expect("an address");
        let bound = admin.bind(&address).await.expect("it is free");
        let (address, stop) = (bound.address().clone(), CancellationToken::new());
        let task = tokio::spawn(bound.serve(stop.clone()));
        Self {
            address,
            stop,
            task,
        }
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        match &self.address {
            Address::Tcp(address) => {
                get(TcpStream::connect(address).await.expect("it listens"), path).await
            }
            Address::Unix(socket) => {
                get(UnixStream::connect(socket).await.expect("it listens"), path).await
            }
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task
            .await
            .expect("it does not panic")
            .expect("it ends well");
    }
}

#[tokio::test]
async fn metrics_are_scraped_as_openmetrics() {
    let metrics = Metrics::new();
    let requests = Counter::<u64>::default();
    metrics.section("chain", |s| {
        s.register("requests", "Requests served", requests.clone());
    });
    requests.inc_by(5);
    let running = Running::start(Admin::new(metrics, Readiness::new()), "127.0.0.1:0").await;
    let (code, head, body) = running.get("/metrics").await;
    assert_eq!(code, 200);
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(body.contains("carrick_chain_requests_total 5\n"), "{body}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    running.stop().await;
}

#[tokio::test]
async fn readiness_turns_with_its_conditions_and_health_does_not() {
    let readiness = Readiness::new();
    let (registry, prefix) = (
        readiness.condition("registry"),
        readiness.condition("prefix"),
    );
    let running = Running::start(Admin::new(Metrics::new(), readiness), "127.0.0.1:0").await;
    registry.unmet("nobody answers at tcp://127.0.0.1:5002");
    let (code, _, body) = running.get("/readyz").await;
    assert_eq!(code, 503);
    assert_eq!(
        body,
        "prefix: not yet\nregistry: nobody answers at tcp://127.0.0.1:5002\n"
    );
    assert_eq!(running.get("/healthz").await.0, 200);

    registry.met();
    assert_eq!(running.get("/readyz").await.0, 503);
    prefix.met();
    let (code, _, body) = running.get("/readyz").await;
    assert_eq!((code, body.as_str()), (200, "ok\n"));

    registry.set(false);
    assert_eq!(running.get("/readyz").await.0, 503);
    running.stop().await;
}

#[tokio::test]
async fn status_holds_what_each_provider_says() {
    let admin = Admin::new(Metrics::new(), Readiness::new())
        .with_status("ipam", || json!({"prefix": "10.0.0.0/24"}))
        .with_status("peers", || json!(["nse-2"]));
    let running = Running::start(admin, "127.0.0.1:0").await;
    let (code, head, body) = running.get("/status").await;
    assert_eq!(code, 200);
    assert!(head.contains("content-type: application/json"), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        body,
        json!({"ipam": {"prefix": "10.0.0.0/24"}, "peers": ["nse-2"]})
    );
    running.stop().await;
}

#[tokio::test]
async fn another_path_is_not_found() {
    let admin = Admin::new(Metrics::new(), Readiness::new());
    let running = Running::start(admin, "127.0.0.1:0").await;
    assert_eq!(running.get("/").await.0, 404);
    running.stop().await;
}

#[tokio::test]
async fn a_provider_that_panics_ends_its_request_alone() {
    let admin = Admin::new(Metrics::new(), Readiness::new())
        .with_status("bad", || -> Value { panic!("a bug") });
    let running = Running::start(admin, "127.0.0.1:0").await;
    let Address::Tcp(address) = running.address else {
        panic!("it is TCP")
    };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /status HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(answer, b"");
    assert_eq!(running.get("/healthz").await.0, 200);
    running.stop().await;
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let admin = Admin::new(Metrics::new(), Readiness::new());
    let running = Running::start(admin, "127.0.0.1:0").await;
    let Address::Tcp(address) = running.address else {
        panic!("it is TCP")
    };
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 1];
    idle.read_exact(&mut first).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_unix_socket_is_private_and_gone_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/admin.sock");
    let address = format!("unix://{}", path.display());
    let admin = Admin::new(Metrics::new(), Readiness::new());
    let running = Running::start(admin.clone(), &address).await;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(running.get("/healthz").await.0, 200);

    let error = admin.bind(&address.parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::SocketInUse { .. }), "{error:?}");
    assert_eq!(running.get("/healthz").await.0, 200);
    running.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_of_a_killed_process_is_replaced_but_a_file_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let address = format!("unix://{}", path.display());
    // Dropping a listener leaves its socket, as a kill does.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let admin = Admin::new(Metrics::new(), Readiness::new());
    Running::start(admin.clone(), &address).await.stop().await;

    std::fs::write(&path, "precious").unwrap();
    let error = admin.bind(&address.parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::Bind { .. }), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_taken_port_is_an_error_with_the_address() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(taken.local_addr().unwrap());
    let error = Admin::new(Metrics::new(), Readiness::new())
        .bind(&address)
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
