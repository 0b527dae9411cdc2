use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::process::Process;

/// The content type of [`Metrics::encode`].
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// With what every name of our own begins.
const OWN_PREFIX: &str = "carrick";

/// All metrics of the process. Cheap to clone.
///
/// Each crate registers what it counts in a section of its own, with the unit:
///
/// ```
/// use carrick_telemetry::Metrics;
/// use carrick_telemetry::prometheus_client::metrics::gauge::Gauge;
/// use carrick_telemetry::prometheus_client::registry::Unit;
///
/// let metrics = Metrics::new();
/// let age = Gauge::<i64>::default();
/// metrics.section("ipam", |section| {
///     section.register_with_unit("lease_age", "Age of the oldest lease", Unit::Seconds, age.clone());
/// });
/// age.set(7);
/// assert!(metrics.encode().unwrap().contains("carrick_ipam_lease_age_seconds 7"));
/// ```
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    since: SystemTime,
}

impl Metrics {
    /// A registry with what every program says of itself: `carrick_build_info`
    /// and the gauges that show what it holds, `carrick_process_…`.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let own = registry.sub_registry_with_prefix(OWN_PREFIX);
        own.register("build", "What this process was built from", build);
        own.register_collector(Box::new(Process));
        Self {
            registry: Arc::new(Mutex::new(registry)),
            since: SystemTime::now(),
        }
    }

    /// Registers metrics whose names begin with `carrick_` and `prefix`. A name
    /// must be registered once only; collectors would refuse the whole scrape.
    pub fn section<T>(&self, prefix: &str, register: impl FnOnce(&mut Registry) -> T) -> T {
        let prefix = format!("{OWN_PREFIX}_{prefix}");
        self.with(|registry| register(registry.sub_registry_with_prefix(prefix)))
    }

    /// Registers metrics under names that others have chosen, such as those of a
    /// predecessor that dashboards already know.
    pub fn unprefixed<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        self.with(register)
    }

    /// When counting began.
    pub(crate) fn since(&self) -> SystemTime {
        self.since
    }

    /// All metrics in the text format of `OpenMetrics`, see
    /// [`METRICS_CONTENT_TYPE`].
    ///
    /// # Errors
    ///
    /// When a collector that was registered cannot write its values.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        self.with(|registry| text::encode(&mut text, registry))?;
        Ok(text)
    }

    /// A registration that panicked is missing, the others are whole.
    fn with<T>(&self, f: impl FnOnce(&mut Registry) -> T) -> T {
        f(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::registry::Unit;

    use super::*;

    #[test]
    fn sections_have_their_prefix_and_unit() {
        let metrics = Metrics::new();
        let (leases, size) = (Counter::<u64>::default(), Gauge::<i64>::default());
        metrics.section("ipam", |s| {
            s.register("leases", "Leases given", leases.clone());
        });
        metrics.section("store", |s| {
            s.register_with_unit("size", "Size of the file", Unit::Bytes, size.clone());
        });
        leases.inc_by(3);
        size.set(4096);
        let text = metrics.encode().unwrap();
        assert!(text.contains("carrick_ipam_leases_total 3\n"), "{text}");
        assert!(
            text.contains("# UNIT carrick_store_size_bytes bytes\n"),
            "{text}"
        );
        assert!(text.contains("carrick_store_size_bytes 4096\n"), "{text}");
        assert!(text.contains("carrick_build_info{version="), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_panic_while_registering_does_not_end_the_metrics() {
        let metrics = Metrics::new();
        let copy = metrics.clone();
        let thread = std::thread::spawn(move || copy.section("bad", |_| panic!("a bug")));
        thread.join().expect_err("it panicked");
        assert!(metrics.encode().unwrap().contains("carrick_build_info"));
    }
}
