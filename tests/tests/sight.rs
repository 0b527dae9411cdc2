//! What the programs tell of themselves: traces, metrics, readiness, status, logs.

#[path = "sight/collector.rs"]
mod collector;
#[path = "sight/logs.rs"]
mod logs;
#[path = "sight/metrics.rs"]
mod metrics;
#[path = "sight/openmetrics.rs"]
mod openmetrics;
#[path = "sight/readiness.rs"]
mod readiness;
#[path = "sight/status.rs"]
mod status;
#[path = "sight/traces.rs"]
mod traces;
