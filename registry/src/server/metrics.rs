use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::Server;
use super::shared::Shared;

/// Read when asked for.
struct Gauges(Arc<Shared>);

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}

impl Server {
    /// Registers what is there: endpoints, services and those who watch them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Gauges(self.shared.clone())));
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (endpoints, services, watchers) = self.0.counts();
        let all = [
            ("endpoints", "Endpoints registered", endpoints),
            ("services", "Network services registered", services),
            ("watchers", "Watches open", watchers),
        ];
        for (name, help, value) in all {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}
