use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use crate::{Error, Options};

/// Which spans are exported: ours, and not those of the HTTP/2 connection that
/// carries them, which would feed itself.
pub(crate) fn filter() -> Targets {
    Targets::new().with_target("carrick", LevelFilter::DEBUG)
}

/// Must be called in a tokio runtime, which then carries the connection.
pub(crate) fn provider(options: &Options, endpoint: &str) -> Result<SdkTracerProvider, Error> {
    let endpoint = url(endpoint)?;
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&endpoint)
        .build()
        .map_err(|source| Error::Exporter { endpoint, source })?;
    let resource = Resource::builder()
        .with_service_name(options.service.clone())
        .with_attribute(KeyValue::new(
            "service.instance.id",
            options.instance.clone(),
        ))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

/// NSM writes the collector as `host:port`.
pub(crate) fn url(endpoint: &str) -> Result<String, Error> {
    let invalid = || Error::Endpoint {
        endpoint: endpoint.to_owned(),
    };
    let authority = match endpoint.trim().split_once("://") {
        Some(("http", authority)) => authority.trim_end_matches('/'),
        Some(_) => return Err(invalid()),
        None => endpoint.trim(),
    };
    let parsed: http::uri::Authority = authority.parse().map_err(|_| invalid())?;
    match parsed.port_u16() {
        Some(_) if !parsed.host().is_empty() => Ok(format!("http://{parsed}")),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_reads_with_and_without_its_scheme() {
        for text in [
            "collector:4317",
            "http://collector:4317",
            "http://collector:4317/",
        ] {
            assert_eq!(url(text).unwrap(), "http://collector:4317");
        }
        assert_eq!(url("[::1]:4317").unwrap(), "http://[::1]:4317");
    }

    #[test]
    fn an_endpoint_that_cannot_be_reached_this_way_is_refused_and_shown() {
        for text in [
            "",
            "collector",
            ":4317",
            "https://collector:4317",
            "a b:1",
            "c:99999",
        ] {
            let error = url(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
