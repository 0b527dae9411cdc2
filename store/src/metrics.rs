use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

use crate::Store;

/// Read when asked for: the writer counts anyway.
#[derive(Debug)]
struct Counters(Store);

impl Store {
    /// Registers what is counted: transactions and records.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Counters(self.clone())));
    }
}

impl Collector for Counters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let all = [
            ("commits", "Transactions written", self.0.commits()),
            ("records", "Records put or removed", self.0.records()),
        ];
        for (name, help, value) in all {
            let counter = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_committed_is_in_the_metrics() {
        let (store, mut registry) = (Store::in_memory().unwrap(), Registry::default());
        store.register(&mut registry);
        store.table::<u8>("t").put("a", &1).await.unwrap();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in ["commits_total 1\n", "records_total 1\n"] {
            assert!(text.contains(line), "{text}");
        }
    }
}
