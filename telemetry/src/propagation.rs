//! The W3C trace context (`traceparent`, `tracestate`) in HTTP headers, and in
//! whatever else is a map of headers, such as gRPC metadata.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::{Context, global};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Writes the context of `span` into `headers`, so that the one called becomes
/// part of the same trace. Without a context it writes nothing.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    let context = span.context();
    global::get_text_map_propagator(|p| p.inject_context(&context, &mut Headers(headers)));
}

/// The context that the caller wrote into `headers`; an empty one if there is
/// none or it does not read.
#[must_use]
pub fn extract(headers: &HeaderMap) -> Context {
    let empty = Context::new();
    global::get_text_map_propagator(|p| p.extract_with_context(&empty, &Read(headers)))
}

/// Makes `span` a child of the caller's span in `headers`. It has no effect when
/// traces are off, or once `span` was entered.
pub fn follow(span: &Span, headers: &HeaderMap) {
    // The only errors are "no traces" and "too late", as said above.
    let _ = span.set_parent(extract(headers));
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (key.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

struct Read<'a>(&'a HeaderMap);

impl Extractor for Read<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}
