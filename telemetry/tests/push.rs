//! Metrics as a collector on loopback receives them.

use std::net::SocketAddr;
use std::time::Duration;

use carrick_telemetry::prometheus_client::metrics::counter::Counter;
use carrick_telemetry::{Error, Metrics, Push};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// A collector that passes on what it is sent.
struct Collector(mpsc::Sender<ExportMetricsServiceRequest>);

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0
            .send(request.into_inner())
            .await
            .expect("the test reads");
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn collect(listener: TcpListener) -> mpsc::Receiver<ExportMetricsServiceRequest> {
    let (send, received) = mpsc::channel(64);
    let server = tonic::transport::Server::builder()
        .add_service(MetricsServiceServer::new(Collector(send)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    received
}

fn value(export: &ExportMetricsServiceRequest, name: &str) -> f64 {
    let metrics = &export.resource_metrics[0].scope_metrics[0].metrics;
    let metric = metrics.iter().find(|metric| metric.name == name);
    match metric.and_then(|metric| metric.data.as_ref()) {
        Some(Data::Sum(sum)) => match sum.data_points[0].value {
            Some(Value::AsDouble(value)) => value,
            _ => panic!("no value in {sum:?}"),
        },
        _ => panic!("no counter {name} in {metrics:?}"),
    }
}

async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback is up");
    listener.local_addr().expect("it is bound")
}

#[tokio::test]
async fn a_collector_hears_at_the_interval_and_at_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut received = collect(listener);
    let (metrics, counter) = (Metrics::new(), Counter::<u64>::default());
    metrics.section("nse", |s| {
        s.register("requests", "Requests", counter.clone());
    });
    let interval = Duration::from_millis(10);
    let push = Push::new("nse", "nse-1", &address, interval).unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(push.run(metrics, stop.clone()));

    let first = received.recv().await.unwrap();
    let attributes = format!("{:?}", first.resource_metrics[0].resource);
    for text in [
        "service.name",
        "\"nse\"",
        "service.instance.id",
        "\"nse-1\"",
    ] {
        assert!(attributes.contains(text), "{text} in {attributes}");
    }
    counter.inc_by(7);
    while value(&received.recv().await.unwrap(), "carrick_nse_requests") < 7.0 {}
    counter.inc();
    stop.cancel();
    task.await.unwrap();
    received.close();
    let mut last = 0.0;
    while let Some(export) = received.recv().await {
        last = value(&export, "carrick_nse_requests");
    }
    assert!((last - 8.0).abs() < f64::EPSILON, "{last}");
}

#[tokio::test]
async fn a_collector_that_comes_late_is_told_all_and_one_that_is_away_holds_up_nobody() {
    let address = closed_port().await;
    let (metrics, counter) = (Metrics::new(), Counter::<u64>::default());
    metrics.section("nse", |s| {
        s.register("requests", "Requests", counter.clone());
    });
    counter.inc_by(3);
    let interval = Duration::from_millis(10);
    let push = Push::new("nse", "nse-1", &address.to_string(), interval).unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(push.run(metrics.clone(), stop.clone()));
    let mut received = collect(TcpListener::bind(address).await.unwrap());
    let late = received.recv().await.unwrap();
    assert!((value(&late, "carrick_nse_requests") - 3.0).abs() < f64::EPSILON);
    stop.cancel();
    task.await.unwrap();

    let away = closed_port().await.to_string();
    let push = Push::new("nse", "nse-1", &away, interval).unwrap();
    let stopped = CancellationToken::new();
    stopped.cancel();
    push.run(metrics, stopped).await;
}

#[tokio::test]
async fn an_address_that_is_none_is_refused() {
    let refused = Push::new("nse", "nse-1", "collector", Duration::from_secs(1));
    assert!(matches!(refused, Err(Error::Endpoint { endpoint }) if endpoint == "collector"));
}
