//! The trace context on the wire. In a process of its own, because logs and
//! traces are set up once for all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use carrick_agent::Kernel;
use carrick_chain::testing::TestTokens;
use carrick_chain::{Chain, Endpoint, EndpointOptions};
use carrick_grpc::{Health, Security, ServerOptions, Url, builder, listen, routes};
use carrick_nsc::{Config, ConnectionState, Nsc};
use carrick_telemetry::{Options, Telemetry};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::service::InterceptorLayer;
use tonic::{Request, Status};

/// The trace id of a Request or Close, by the `traceparent` header (W3C Trace
/// Context §3.2); monitoring has no deadline.
fn trace_id(request: &Request<()>) -> Option<String> {
    let metadata = request.metadata();
    metadata.get("grpc-timeout")?;
    let parent = metadata.get("traceparent")?.to_str().ok()?;
    parent.split('-').nth(1).map(str::to_owned)
}

#[tokio::test]
async fn every_request_is_a_trace_of_its_own_and_tells_the_endpoint() {
    let options = Options {
        // Nobody collects there; the spans are made all the same.
        traces: Some("127.0.0.1:9".to_owned()),
        ..Options::default()
    };
    let _telemetry = Telemetry::install(&options).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let url = Url::unix(directory.path().join("nse.sock"));
    let (seen, mut traces) = mpsc::unbounded_channel();
    let see = move |request: Request<()>| -> Result<Request<()>, Status> {
        if let Some(id) = trace_id(&request) {
            seen.send(id).expect("the test listens");
        }
        Ok(request)
    };
    let options = EndpointOptions::new("nse", TestTokens::default());
    let endpoint = Endpoint::new(options, Chain::default());
    let options = ServerOptions::default();
    let health = Health::new(Health::ENDPOINT).await;
    let routes = routes(&endpoint, &options, &health, &CancellationToken::new());
    let listener = listen(&url, &Security::insecure()).await.unwrap();
    let server = builder(&options)
        .layer(InterceptorLayer::new(see))
        .add_routes(routes)
        .serve_with_incoming(listener);
    tokio::spawn(server);

    let url = url.to_string();
    let source = BTreeMap::from([
        ("NSM_CONNECT_TO", url.as_str()),
        ("NSM_NETWORK_SERVICES", "vl3/nsm-1"),
        ("NSM_LIVENESS_CHECK_ENABLED", "false"),
    ]);
    let nsc = Nsc::new(Config::read(&source).unwrap()).unwrap();
    let (_signals, received) = mpsc::channel(1);
    let mut status = nsc.watch();
    tokio::spawn(nsc.run(Arc::new(Kernel::new().unwrap()), received));

    let first = traces.recv().await.unwrap();
    status
        .wait_for(|status| status.connections[0].state == ConnectionState::Up)
        .await
        .unwrap();
    endpoint.ask_refresh(&|_| true, &|_| {});
    let second = traces.recv().await.unwrap();
    assert_eq!((first.len(), second.len()), (32, 32));
    assert_ne!(first, second);
}
