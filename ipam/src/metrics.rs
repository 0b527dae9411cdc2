use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What an endpoint counts of its addresses. Clones share their counters.
#[derive(Clone, Debug, Default)]
pub struct EndpointMetrics {
    /// Addresses and extra prefixes leased now.
    pub leases: Gauge,
    /// Leases written since the start.
    pub allocations: Counter,
    /// Requests that found no address.
    pub exhausted: Counter,
    /// Prefixes that the endpoint has now.
    pub prefixes: Gauge,
    /// Renewals of its prefixes that were answered.
    pub renewals: Counter,
    /// Streams to prefix servers that failed.
    pub stream_failures: Counter,
}

impl EndpointMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "leases",
            "Addresses and extra prefixes leased",
            self.leases.clone(),
        );
        registry.register("allocations", "Leases written", self.allocations.clone());
        registry.register(
            "exhausted",
            "Requests that found no address",
            self.exhausted.clone(),
        );
        registry.register(
            "prefixes",
            "Prefixes of this endpoint",
            self.prefixes.clone(),
        );
        registry.register(
            "renewals",
            "Renewals of prefixes answered",
            self.renewals.clone(),
        );
        registry.register(
            "stream_failures",
            "Streams to prefix servers that failed",
            self.stream_failures.clone(),
        );
    }
}

/// What a prefix server counts. Clones share their counters.
#[derive(Clone, Debug, Default)]
pub struct ServerMetrics {
    /// Prefixes granted now.
    pub leases: Gauge,
    /// Prefixes granted since the start, renewals not counted.
    pub allocations: Counter,
    /// Requests for which nothing was free.
    pub exhausted: Counter,
    /// Grants renewed by their owners.
    pub renewals: Counter,
    /// Grants whose time ran out.
    pub expired: Counter,
    /// Streams open now.
    pub streams: Gauge,
}

impl ServerMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("leases", "Prefixes granted", self.leases.clone());
        registry.register(
            "allocations",
            "Prefixes granted so far",
            self.allocations.clone(),
        );
        registry.register(
            "exhausted",
            "Requests without a free prefix",
            self.exhausted.clone(),
        );
        registry.register(
            "renewals",
            "Grants renewed by their owners",
            self.renewals.clone(),
        );
        registry.register("expired", "Grants whose time ran out", self.expired.clone());
        registry.register("streams", "Streams open", self.streams.clone());
    }
}
