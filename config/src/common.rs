//! Settings that every program has.

use std::time::Duration;

use carrick_types::Invalid;

use crate::{Reader, Variable, boolean, duration, text};

/// How much is logged.
pub const LOG_LEVEL: Variable = Variable {
    name: "NSM_LOG_LEVEL",
    default: "INFO",
    meaning: "`TRACE`, `DEBUG`, `INFO`, `WARN` or `ERROR`; SIGUSR1 sets TRACE, SIGUSR2 sets it back.",
};

/// Of every program that speaks to others: where identities come from.
pub const SPIFFE_ENDPOINT_SOCKET: Variable = Variable {
    name: "SPIFFE_ENDPOINT_SOCKET",
    default: "",
    meaning: "The SPIFFE Workload API, `unix:///path` or `tcp://address:port`. Set: mutual TLS with its identities on every socket. Empty: no TLS; then TCP, and joining a mesh, take `NSM_INSECURE=true`.",
};

/// Whether traces and metrics are sent.
pub const TELEMETRY: Variable = Variable {
    name: "TELEMETRY",
    default: "false",
    meaning: "Whether traces and metrics are sent.",
};

/// Where traces and metrics are sent.
pub const OPEN_TELEMETRY_ENDPOINT: Variable = Variable {
    name: "NSM_OPEN_TELEMETRY_ENDPOINT",
    default: "otel-collector.observability.svc.cluster.local:4317",
    meaning: "Where traces and metrics are sent (OTLP over gRPC).",
};

/// How often metrics are sent.
pub const METRICS_EXPORT_INTERVAL: Variable = Variable {
    name: "NSM_METRICS_EXPORT_INTERVAL",
    default: "10s",
    meaning: "Time between two exports of the metrics, where `TELEMETRY` is `true`.",
};

/// Whether profiles are served.
pub const PPROF_ENABLED: Variable = Variable {
    name: "NSM_PPROF_ENABLED",
    default: "false",
    meaning: "Whether CPU profiles are served, for `go tool pprof` and its like.",
};

/// Where profiles are served.
pub const PPROF_LISTEN_ON: Variable = Variable {
    name: "NSM_PPROF_LISTEN_ON",
    default: "localhost:6060",
    meaning: "Where they are served: `/debug/pprof/profile?seconds=30` at `host:port`; anybody who reaches it may ask.",
};

/// What a process tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observability {
    /// Log level.
    pub log_level: String,
    /// Where traces and metrics go, if anywhere.
    pub collector: Option<String>,
    /// Time between two exports of metrics; positive.
    pub metrics_interval: Duration,
    /// Where profiles are served, if anywhere.
    pub pprof: Option<String>,
}

impl Observability {
    /// Reads it; the table of `reader` has all the variables of this module.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let log_level = reader.read(LOG_LEVEL.name, text);
        let is_sent = reader.read(TELEMETRY.name, boolean);
        let collector = reader.read(OPEN_TELEMETRY_ENDPOINT.name, text);
        let metrics_interval = reader.read(METRICS_EXPORT_INTERVAL.name, positive);
        let is_profiled = reader.read(PPROF_ENABLED.name, boolean);
        let pprof = reader.read(PPROF_LISTEN_ON.name, host_and_port);
        Some(Self {
            log_level: log_level?,
            collector: collector.filter(|_| is_sent == Some(true)),
            metrics_interval: metrics_interval?,
            pprof: pprof.filter(|_| is_profiled == Some(true)),
        })
    }
}

/// A time longer than zero, see [`duration`].
///
/// # Errors
///
/// It is none, or zero.
pub fn positive(text: &str) -> Result<Duration, Invalid> {
    let time = duration(text)?;
    if time.is_zero() {
        return Err(Invalid::new("", text, "a time longer than zero"));
    }
    Ok(time)
}

/// `host:port`, or `:port` for every address, as in Go.
fn host_and_port(text: &str) -> Result<String, Invalid> {
    let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err(Invalid::new("", text, "host:port, such as localhost:6060")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Mistakes;

    const VARIABLES: &[Variable] = &[
        LOG_LEVEL,
        TELEMETRY,
        OPEN_TELEMETRY_ENDPOINT,
        METRICS_EXPORT_INTERVAL,
        PPROF_ENABLED,
        PPROF_LISTEN_ON,
    ];

    fn read(settings: &[(&'static str, &'static str)]) -> Result<Observability, Mistakes> {
        let source: BTreeMap<&str, &str> = settings.iter().copied().collect();
        let mut reader = Reader::new(&source, VARIABLES);
        let observability = Observability::read(&mut reader);
        reader.finish(observability)
    }

    #[test]
    fn what_is_not_switched_on_goes_nowhere() {
        let none = read(&[("NSM_OPEN_TELEMETRY_ENDPOINT", "here:4317")]).unwrap();
        assert_eq!((none.collector, none.pprof), (None, None));
        let all = read(&[("TELEMETRY", "true"), ("NSM_PPROF_ENABLED", "true")]).unwrap();
        assert_eq!(
            all.collector.as_deref(),
            Some(OPEN_TELEMETRY_ENDPOINT.default)
        );
        assert_eq!(all.pprof.as_deref(), Some("localhost:6060"));
    }

    #[test]
    fn an_interval_of_nothing_and_an_address_without_a_port_are_mistakes() {
        let mistakes = read(&[
            ("NSM_METRICS_EXPORT_INTERVAL", "0"),
            ("NSM_PPROF_LISTEN_ON", "localhost"),
        ]);
        let fields: Vec<_> = mistakes
            .unwrap_err()
            .0
            .into_iter()
            .map(|m| m.field)
            .collect();
        assert_eq!(
            fields,
            ["NSM_METRICS_EXPORT_INTERVAL", "NSM_PPROF_LISTEN_ON"]
        );
    }
}
