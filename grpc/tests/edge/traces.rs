//! W3C trace context across a call.

use carrick_grpc::trace::{adopt, inject};
use opentelemetry::global;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tonic::metadata::MetadataMap;
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;

#[test]
fn a_callees_span_is_a_child_of_its_callers() {
    global::set_text_map_propagator(TraceContextPropagator::new());
    let tracer = SdkTracerProvider::builder().build().tracer("test");
    let layer = tracing_opentelemetry::layer().with_tracer(tracer);
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        let mut metadata = MetadataMap::new();
        let calling = info_span!("caller");
        calling.in_scope(|| inject(&mut metadata));
        let sent = metadata
            .get("traceparent")
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let served = info_span!(parent: None, "callee");
        adopt(&served, &metadata);
        let trace = |span: &tracing::Span| span.context().span().span_context().trace_id();
        assert_eq!(trace(&served), trace(&calling));
        assert!(sent.contains(&trace(&calling).to_string()), "{sent}");
    });
}

#[test]
fn without_traces_nothing_is_sent_and_nothing_fails() {
    let mut metadata = MetadataMap::new();
    inject(&mut metadata);
    adopt(&info_span!("callee"), &metadata);
    assert!(metadata.is_empty());
}
