//! Traces as a collector on loopback receives them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use carrick_telemetry::{Options, Telemetry, propagation};
use http::HeaderMap;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tracing::dispatcher::with_default;
use tracing::{debug_span, info_span};

/// A collector that passes on what it is sent.
struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0
            .send(request.into_inner())
            .await
            .expect("the test reads");
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, mpsc::Receiver<ExportTraceServiceRequest>) {
    let (send, received) = mpsc::channel(16);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback is up");
    let address = listener.local_addr().expect("it is bound");
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Collector(send)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    (address, received)
}

fn options(traces: Option<String>) -> Options {
    Options {
        service: "nse".to_owned(),
        instance: "nse-1".to_owned(),
        log_level: "ERROR".to_owned(),
        traces,
        ..Options::default()
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans
        .iter()
        .find(|s| s.name == name)
        .unwrap_or_else(|| panic!("no {name} in {spans:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parent_child_and_the_one_called_are_one_trace() {
    let (address, mut received) = collector().await;
    let (dispatch, telemetry) =
        Telemetry::build(&options(Some(address.to_string())), io::sink, false).unwrap();

    let mut headers = HeaderMap::new();
    with_default(&dispatch, || {
        let request = info_span!(target: "carrick_nse", "request", network_service = "vl3");
        let element = request.in_scope(|| debug_span!(target: "carrick_chain", "ipam"));
        propagation::inject(&element, &mut headers);
        let called = info_span!(target: "carrick_ipam", "lease");
        propagation::follow(&called, &headers);
        called.in_scope(|| info_span!(target: "h2", "a frame"));
    });
    telemetry.shutdown(Duration::from_secs(20)).await.unwrap();

    let export = received.recv().await.unwrap();
    let resource = &export.resource_spans[0];
    let attributes = format!("{:?}", resource.resource);
    assert!(
        attributes.contains("service.name") && attributes.contains("\"nse\""),
        "{attributes}"
    );
    assert!(attributes.contains("service.instance.id") && attributes.contains("\"nse-1\""));

    let spans = &resource.scope_spans[0].spans;
    assert_eq!(spans.len(), 3, "{spans:?}");
    let (request, element) = (named(spans, "request"), named(spans, "ipam"));
    let called = named(spans, "lease");
    assert!(request.parent_span_id.is_empty());
    assert_eq!(element.parent_span_id, request.span_id);
    assert_eq!(called.parent_span_id, element.span_id);
    assert_eq!(element.trace_id, request.trace_id);
    assert_eq!(called.trace_id, request.trace_id);
    assert!(
        request
            .attributes
            .iter()
            .any(|a| a.key == "network_service"),
        "{request:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_never_answers_does_not_hold_up_the_end() {
    // It takes connections, as the kernel does it, and reads nothing.
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let (dispatch, telemetry) = Telemetry::build(&options(Some(address)), io::sink, false).unwrap();
    with_default(&dispatch, || {
        drop(info_span!(target: "carrick_nse", "request"));
    });
    let shutdown = telemetry.shutdown(Duration::from_millis(100));
    tokio::time::timeout(Duration::from_secs(30), shutdown)
        .await
        .unwrap()
        .unwrap_err();
}

#[tokio::test]
async fn without_a_collector_the_context_of_a_caller_still_reads() {
    let (_dispatch, telemetry) = Telemetry::build(&options(None), io::sink, false).unwrap();
    let mut headers = HeaderMap::new();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.insert("traceparent", parent.parse().unwrap());
    let context = propagation::extract(&headers);
    let span = context.span().span_context().clone();
    assert_eq!(
        span.trace_id().to_string(),
        "0af7651916cd43dd8448eb211c80319c"
    );
    assert!(span.is_remote() && span.is_sampled());
    telemetry.shutdown(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_header_that_does_not_read_is_no_context() {
    let (_dispatch, _telemetry) = Telemetry::build(&options(None), io::sink, false).unwrap();
    for text in [
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "\u{e9}",
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(
            "traceparent",
            http::HeaderValue::from_bytes(text.as_bytes()).unwrap(),
        );
        assert!(
            !propagation::extract(&headers).has_active_span(),
            "{text:?}"
        );
    }
}
