//! Logs, OTLP traces, metrics (Prometheus and OTLP), CPU profiles and the admin listener.
//!
//! [`Telemetry`] sets up what the whole process writes: logs and traces. [`Admin`]
//! serves what others read: `/metrics`, `/healthz`, `/readyz` and `/status`. Read
//! those two first. [`Outlets`] are the other ways out: [`Push`] sends the metrics,
//! [`Profiles`] say what the process spends its time on.
//!
//! Limits:
//! - Without a collector no spans are made, so the trace of a caller ends here
//!   instead of going on to those we call.
//! - Traces and metrics go out unencrypted, as NSM's own components send them.
//! - The admin listener has no authentication; it belongs on loopback, a unix
//!   socket or the pod's network.

mod admin;
mod error;
mod level;
mod logs;
mod metrics;
mod openmetrics;
mod outlets;
mod panics;
mod process;
mod profile;
pub mod propagation;
mod push;
mod readiness;
mod setup;
mod traces;

pub use prometheus_client;

pub use self::admin::{Address, Admin, Bound, InvalidAddress, Status};
pub use self::error::Error;
pub use self::level::{Level, UnknownLevel};
pub use self::logs::{Format, LevelSwitch};
pub use self::metrics::{METRICS_CONTENT_TYPE, Metrics};
pub use self::outlets::Outlets;
pub use self::profile::Profiles;
pub use self::push::Push;
pub use self::readiness::{Condition, Missing, Readiness};
pub use self::setup::{Options, Telemetry};
