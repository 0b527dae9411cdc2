//! A collector of traces in this process, which listens in the namespaces of
//! those who send.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use carrick_tests::Namespace;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span as WireSpan};
use tonic::{Request, Response, Status};

/// A span that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// `service.instance.id` of the program.
    pub(crate) instance: String,
    pub(crate) name: String,
    pub(crate) id: Vec<u8>,
    pub(crate) parent: Vec<u8>,
    pub(crate) trace: Vec<u8>,
    /// The spans it is linked to.
    pub(crate) links: Vec<Vec<u8>>,
    /// Names of its attributes.
    pub(crate) attributes: Vec<String>,
}

/// Keeps what it is sent. Clones are the same collector.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Listens at `address` in a namespace, until the test ends; what a
    /// program there needs to send all its spans soon.
    pub(crate) fn listen(
        &self,
        namespace: &Namespace,
        address: &str,
    ) -> Vec<(&'static str, String)> {
        let listener = namespace.within(|| {
            let listener = TcpListener::bind(address).expect("the address is there");
            listener.set_nonblocking(true).expect("a socket can be");
            listener
        });
        let local: SocketAddr = listener.local_addr().expect("it is bound");
        let listener = tokio::net::TcpListener::from_std(listener).expect("it is a listener");
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(self.clone()))
            .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
        tokio::spawn(server);
        Self::settings(&local.to_string())
    }

    /// Settings of a program that sends to a collector at `address`.
    pub(crate) fn settings(address: &str) -> Vec<(&'static str, String)> {
        vec![
            ("TELEMETRY", "true".to_owned()),
            ("NSM_OPEN_TELEMETRY_ENDPOINT", address.to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ]
    }

    /// All spans so far.
    pub(crate) fn spans(&self) -> Spans {
        Spans(self.0.lock().expect("nobody panics").clone())
    }

    fn take(&self, resource: ResourceSpans) {
        let attributes = resource.resource.map(|resource| resource.attributes);
        let instance = attributes.into_iter().flatten().find_map(|attribute| {
            let value = attribute.value?.value?;
            match value {
                Value::StringValue(text) if attribute.key == "service.instance.id" => Some(text),
                _ => None,
            }
        });
        let instance = instance.expect("a program says which it is");
        let scopes = resource.scope_spans.into_iter();
        let spans = scopes.flat_map(|scope| scope.spans);
        let spans = spans.map(|span| Span::new(&instance, span));
        self.0.lock().expect("nobody panics").extend(spans);
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            self.take(resource);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Span {
    fn new(instance: &str, span: WireSpan) -> Self {
        let attributes = span.attributes.into_iter();
        Self {
            instance: instance.to_owned(),
            name: span.name,
            id: span.span_id,
            parent: span.parent_span_id,
            trace: span.trace_id,
            links: span.links.into_iter().map(|link| link.span_id).collect(),
            attributes: attributes.map(|attribute| attribute.key).collect(),
        }
    }
}

/// Spans, and how they hang together.
#[derive(Debug)]
pub(crate) struct Spans(Vec<Span>);

impl Spans {
    /// Those of a program with a name.
    pub(crate) fn named<'a>(
        &'a self,
        instance: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = &'a Span> {
        let spans = self.0.iter();
        spans.filter(move |span| span.instance == instance && span.name == name)
    }

    /// The spans that `span` is within, innermost first.
    pub(crate) fn around<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = &'a Span> {
        std::iter::successors(Some(span), |span| self.parent(span)).skip(1)
    }

    /// Whether `inner` is within `outer`, by however many spans.
    pub(crate) fn is_within(&self, inner: &Span, outer: &Span) -> bool {
        inner.trace == outer.trace && self.around(inner).any(|around| around.id == outer.id)
    }

    fn parent(&self, span: &Span) -> Option<&Span> {
        let parents = self.0.iter();
        parents
            .filter(|parent| parent.trace == span.trace)
            .find(|parent| parent.id == span.parent)
    }
}
