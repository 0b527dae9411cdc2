//! Logs, OTLP traces, Prometheus metrics and the admin listener that serves them.
//!
//! [`Telemetry`] sets up what the whole process writes: logs and traces. [`Admin`]
//! serves what others read: `/metrics`, `/healthz`, `/readyz` and `/status`. Read
//! those two first.
//!
//! Limits:
//! - Without a collector no spans are made, so the trace of a caller ends here
//!   instead of going on to those we call.
//! - Traces go out unencrypted, as NSM's own components send them.
//! - The admin listener has no authentication; it belongs on loopback, a unix
//!   socket or the pod's network.

mod admin;
mod error;
mod level;
mod logs;
mod metrics;
mod panics;
mod process;
pub mod propagation;
mod readiness;
mod setup;
mod traces;

pub use prometheus_client;

pub use self::admin::{Address, Admin, Bound, InvalidAddress, Status};
pub use self::error::Error;
pub use self::level::{Level, UnknownLevel};
pub use self::logs::{Format, LevelSwitch};
pub use self::metrics::{METRICS_CONTENT_TYPE, Metrics};
pub use self::readiness::{Condition, Missing, Readiness};
pub use self::setup::{Options, Telemetry};
