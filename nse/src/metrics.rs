//! What `/metrics` says of the endpoint as a whole; its parts count for themselves.

use std::fmt;
use std::time::{Duration, SystemTime};

use carrick_grpc::Observer;
use carrick_telemetry::Metrics;
use carrick_vl3::peers::PeerState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;
use tonic::Code;

use crate::parts::Parts;

/// Bounds of a Request's duration in seconds. A refresh takes about a
/// millisecond, a first Request some ten, most of it the agent's; one that waits
/// for a further prefix or a dead agent lasts seconds, and 15 s is the usual end.
const BUCKETS: [f64; 12] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0, 15.0,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Requests by what came of them, refreshes and peers' too.
#[derive(Clone, Debug)]
struct Requests {
    served: Family<Outcome, Counter>,
    duration: Family<Outcome, Histogram, fn() -> Histogram>,
}

/// Counts the Requests that the gRPC servers answer.
pub(crate) fn requests(metrics: &Metrics) -> Observer {
    let requests = Requests {
        served: Family::default(),
        duration: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
    };
    metrics.section("nse", |section| {
        section.register("requests", "Requests answered", requests.served.clone());
        section.register_with_unit(
            "request_duration",
            "Time from a Request to its answer",
            Unit::Seconds,
            requests.duration.clone(),
        );
    });
    // What never happened is there with 0, so that the first time is a change.
    for outcome in CODES.map(word) {
        drop(requests.served.get_or_create(&Outcome { outcome }));
    }
    Observer::new(move |code, took| requests.count(code, took))
}

impl Requests {
    fn count(&self, code: Code, took: Duration) {
        let outcome = Outcome {
            outcome: word(code),
        };
        self.served.get_or_create(&outcome).inc();
        let duration = self.duration.get_or_create(&outcome);
        duration.observe(took.as_secs_f64());
    }
}

/// The codes that a Request is answered with.
const CODES: [Code; 8] = [
    Code::Ok,
    Code::Cancelled,
    Code::DeadlineExceeded,
    Code::Internal,
    Code::InvalidArgument,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::Unavailable,
];

/// The outcome of a Request in a word, as gRPC calls it.
fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::Internal => "internal",
        Code::InvalidArgument => "invalid_argument",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::Unavailable => "unavailable",
        _ => "other",
    }
}

/// Has the gauges read from `parts` at each scrape.
pub(crate) fn gauges(metrics: &Metrics, parts: &Parts) {
    let gauges = Box::new(Gauges(parts.clone()));
    metrics.section("nse", |section| section.register_collector(gauges));
}

struct Gauges(Parts);

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}

impl Gauges {
    fn connections(&self) -> [(&'static str, usize); 3] {
        let Parts {
            handle, vl3, dials, ..
        } = &self.0;
        let served = handle.connections();
        let is_peer = |id| vl3.dialled_by(id).is_some();
        let inbound = served.iter().filter(|c| is_peer(&c.id)).count();
        let (clients, outgoing) = (served.len() - inbound, dials.ids().len());
        [
            ("client", clients),
            ("inbound", inbound),
            ("outgoing", outgoing),
        ]
    }

    fn peers(&self) -> [(&'static str, usize); 5] {
        let peers = self.0.peers_status();
        let count = |state| peers.iter().filter(|peer| peer.state == state).count();
        [
            ("dead", count(PeerState::Dead)),
            ("dialing", count(PeerState::Dialing)),
            ("gone", count(PeerState::Gone)),
            ("linked", count(PeerState::Linked)),
            ("waiting", count(PeerState::Waiting)),
        ]
    }

    fn oldest_lease(&self) -> Duration {
        let leases = self.0.leases.all();
        let now = SystemTime::now();
        let ages = leases
            .iter()
            .filter_map(|(_, lease)| now.duration_since(lease.since).ok());
        ages.max().unwrap_or_default()
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let connections = self.connections();
        by(
            &mut encoder,
            ("connections", "Connections, by who they are with"),
            "with",
            &connections,
        )?;
        let peers = self.peers();
        by(
            &mut encoder,
            ("peers", "Other endpoints, by how it is with them"),
            "state",
            &peers,
        )?;
        let routes = ConstGauge::new(number(self.0.routes().count()));
        let help = "Prefixes routed to other endpoints";
        routes.encode(encoder.encode_descriptor("routes", help, None, MetricType::Gauge)?)?;
        let age = ConstGauge::new(self.oldest_lease().as_secs_f64());
        let (help, unit) = ("Age of the oldest lease", Some(&Unit::Seconds));
        age.encode(encoder.encode_descriptor("oldest_lease_age", help, unit, MetricType::Gauge)?)
    }
}

/// A gauge for each value of one label.
fn by(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    label: &'static str,
    values: &[(&'static str, usize)],
) -> Result<(), fmt::Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (value, count) in values {
        let labels = [(label, *value)];
        ConstGauge::new(number(*count)).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_under_its_outcome_with_its_duration() {
        let metrics = Metrics::new();
        let requests = Requests {
            served: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        };
        metrics.section("nse", |section| {
            section.register("requests", "Requests answered", requests.served.clone());
        });
        requests.count(Code::Ok, Duration::from_millis(3));
        requests.count(Code::Ok, Duration::from_millis(3));
        requests.count(Code::PermissionDenied, Duration::ZERO);
        let text = metrics.encode().unwrap();
        for line in ["outcome=\"ok\"} 2", "outcome=\"permission_denied\"} 1"] {
            assert!(
                text.contains(&format!("carrick_nse_requests_total{{{line}\n")),
                "{text}"
            );
        }
    }
}
