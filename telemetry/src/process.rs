use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// What of the process grows without end if somebody forgets to give it back;
/// looked up at each scrape.
#[derive(Debug)]
pub(crate) struct Process;

impl Process {
    /// Open files, sockets and pipes; zero where the system does not say.
    fn descriptors() -> i64 {
        // The directory itself is open while it is counted.
        let count = fs::read_dir("/proc/self/fd").map_or(0, |all| all.count().saturating_sub(1));
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    /// Tasks of the runtime; zero outside of one.
    fn tasks() -> i64 {
        let runtime = tokio::runtime::Handle::try_current();
        let count = runtime.map_or(0, |runtime| runtime.metrics().num_alive_tasks());
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauges = [
            (
                "process_descriptors",
                "Open files, sockets and pipes",
                Self::descriptors(),
            ),
            ("process_tasks", "Tasks under way", Self::tasks()),
        ];
        for (name, help, value) in gauges {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use crate::Metrics;

    fn value(metrics: &Metrics, name: &str) -> usize {
        let text = metrics.encode().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    }

    #[tokio::test]
    async fn descriptors_and_tasks_are_counted_as_they_are_now() {
        let metrics = Metrics::new();
        let tasks = value(&metrics, "carrick_process_tasks");
        let waits: Vec<_> = (0..3)
            .map(|_| tokio::spawn(std::future::pending::<()>()))
            .collect();
        assert_eq!(value(&metrics, "carrick_process_tasks"), tasks + 3);
        for wait in waits {
            wait.abort();
            wait.await.unwrap_err();
        }
        assert_eq!(value(&metrics, "carrick_process_tasks"), tasks);

        // Other tests of this process open files meanwhile, but not as many.
        let before = value(&metrics, "carrick_process_descriptors");
        let files: Vec<_> = (0..200).map(|_| File::open("/dev/null").unwrap()).collect();
        assert!(value(&metrics, "carrick_process_descriptors") >= before + 100);
        drop(files);
        assert!(value(&metrics, "carrick_process_descriptors") < before + 100);
    }
}
