use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, warn};

use crate::openmetrics::{Period, attributes, to_otlp};
use crate::{Error, Metrics, traces};

/// Time for one export.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Time for the last one: within that of the admin listener's end.
const LAST: Duration = Duration::from_millis(500);

/// Sends [`Metrics`] to a collector, again and again: OTLP over insecure gRPC,
/// as NSM's components send theirs.
#[derive(Debug)]
pub struct Push {
    client: MetricsServiceClient<Channel>,
    endpoint: String,
    interval: Duration,
    resource: Resource,
}

impl Push {
    /// Sends to `endpoint` (`host:port`) every `interval`; `service` is what kind
    /// of process it is, `instance` which one. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Endpoint`] when the collector's address cannot be used. A
    /// collector that is away is no error: it may come later.
    pub fn new(
        service: &str,
        instance: &str,
        endpoint: &str,
        interval: Duration,
    ) -> Result<Self, Error> {
        let invalid = || Error::Endpoint {
            endpoint: endpoint.to_owned(),
        };
        let channel = Endpoint::from_shared(traces::url(endpoint)?).map_err(|_| invalid())?;
        let channel = channel.connect_timeout(TIMEOUT).timeout(TIMEOUT);
        let resource = [
            ("service.name", service),
            ("service.instance.id", instance),
            ("service.version", env!("CARGO_PKG_VERSION")),
        ];
        Ok(Self {
            client: MetricsServiceClient::new(channel.connect_lazy()),
            endpoint: endpoint.to_owned(),
            interval,
            resource: Resource {
                attributes: attributes(&resource.map(|(k, v)| (k.to_owned(), v.to_owned()))),
                ..Resource::default()
            },
        })
    }

    /// Sends until `stop` is cancelled, and then once more. An export that
    /// failed is not repeated: the next one says all that it would have said.
    pub async fn run(mut self, metrics: Metrics, stop: CancellationToken) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is at once, and there is nothing to tell yet.
        ticks.tick().await;
        let mut works = true;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let sent = stop.run_until_cancelled(self.send(&metrics)).await;
            let Some(sent) = sent else { break };
            match sent {
                Ok(()) => works = true,
                Err(status) if works => {
                    works = false;
                    warn!(endpoint = self.endpoint, %status, "metrics are not delivered");
                }
                Err(status) => debug!(endpoint = self.endpoint, %status, "metrics not delivered"),
            }
        }
        let last = tokio::time::timeout(LAST, self.send(&metrics)).await;
        if works && !matches!(last, Ok(Ok(()))) {
            warn!(
                endpoint = self.endpoint,
                "the last metrics were not delivered"
            );
        }
    }

    async fn send(&mut self, metrics: &Metrics) -> Result<(), tonic::Status> {
        let text = metrics.encode();
        let text = text.map_err(|_| tonic::Status::internal("the metrics cannot be written"))?;
        let period = Period {
            since: metrics.since(),
            now: SystemTime::now(),
        };
        let scope = ScopeMetrics {
            scope: Some(InstrumentationScope {
                name: "carrick".to_owned(),
                ..InstrumentationScope::default()
            }),
            metrics: to_otlp(&text, period),
            ..ScopeMetrics::default()
        };
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![scope],
                ..ResourceMetrics::default()
            }],
        };
        self.client.export(request).await.map(drop)
    }
}
