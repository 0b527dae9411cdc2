use carrick_chain::{ClientState, ClientStatus};
use carrick_telemetry::Metrics;
use carrick_telemetry::prometheus_client::metrics::counter::Counter;
use carrick_telemetry::prometheus_client::metrics::gauge::Gauge;

/// What a client counts, over all its connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    requests: Counter,
    failures: Counter,
    heals: Counter,
    reselects: Counter,
    up: Gauge,
}

impl Counters {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let counters = Self::default();
        let all = [
            (
                "requests",
                "Requests sent, refreshes too",
                &counters.requests,
            ),
            ("failures", "Requests that failed", &counters.failures),
            (
                "heals",
                "Times that a connection which was up was broken",
                &counters.heals,
            ),
            (
                "reselects",
                "Times that a connection was closed to be asked for anew",
                &counters.reselects,
            ),
        ];
        metrics.section("nsc", |section| {
            for (name, help, counter) in all {
                section.register(name, help, counter.clone());
            }
            section.register("up", "Connections that are up", counters.up.clone());
        });
        counters
    }

    /// Counts what happened to a connection between two looks at it.
    pub(crate) fn count(&self, before: &ClientStatus, now: &ClientStatus) {
        self.requests.inc_by(now.requests - before.requests);
        self.failures.inc_by(now.failures - before.failures);
        self.reselects.inc_by(now.reselects - before.reselects);
        let healing = |status: &ClientStatus| matches!(status.state, ClientState::Healing);
        if healing(now) && !healing(before) {
            self.heals.inc();
        }
        let up = |status: &ClientStatus| i64::from(status.connection().is_some());
        self.up.inc_by(up(now) - up(before));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use carrick_types::{Connection, ConnectionId, ServiceName};

    use super::*;

    #[test]
    fn what_happens_to_a_connection_is_counted_once() {
        let metrics = Metrics::new();
        let counters = Counters::register(&metrics);
        let service = ServiceName::new("vl3").unwrap();
        let connection = Connection::new(ConnectionId::new("nsc-0").unwrap(), service);
        let status = |state, requests, failures| ClientStatus {
            state,
            requests,
            failures,
            ..ClientStatus::default()
        };
        let steps = [
            ClientStatus::default(),
            status(ClientState::Connecting, 1, 1),
            status(ClientState::Up(Arc::new(connection)), 2, 1),
            status(ClientState::Healing, 2, 1),
            status(ClientState::Healing, 5, 4),
        ];
        for pair in steps.windows(2) {
            counters.count(&pair[0], &pair[1]);
        }
        let text = metrics.encode().unwrap();
        for line in [
            "requests_total 5",
            "failures_total 4",
            "heals_total 1",
            "up 0",
        ] {
            assert!(text.contains(&format!("carrick_nsc_{line}\n")), "{text}");
        }
    }
}
