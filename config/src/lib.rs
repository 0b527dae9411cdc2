//! Settings from the environment: one table, all mistakes at once.
//!
//! Read first: [`Variable`], a line of the table that the documentation is
//! compared with, and [`Reader`], which turns text into values and collects
//! what is wrong instead of stopping at the first mistake.
//!
//! Limits: values only come from a [`Source`]; there is no file format here.

mod common;
mod parse;
mod reader;

pub use common::{
    LOG_LEVEL, METRICS_EXPORT_INTERVAL, OPEN_TELEMETRY_ENDPOINT, Observability, PPROF_ENABLED,
    PPROF_LISTEN_ON, SPIFFE_ENDPOINT_SOCKET, TELEMETRY, positive,
};
pub use parse::{
    address, boolean, duration, labels, list, number, optional_path, prefix, prefixes, text,
};
pub use reader::{Env, Mistakes, Reader, Source, Variable, markdown};
