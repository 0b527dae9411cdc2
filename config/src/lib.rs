//! Settings from the environment: one table, all mistakes at once.
//!
//! Read first: [`Variable`], a line of the table that the documentation is
//! compared with, and [`Reader`], which turns text into values and collects
//! what is wrong instead of stopping at the first mistake.
//!
//! Limits: values only come from a [`Source`]; there is no file format here.

mod parse;
mod reader;

pub use parse::{
    address, boolean, duration, labels, list, number, optional_path, prefix, prefixes, text,
};
pub use reader::{
    Env, LOG_LEVEL, Mistakes, OPEN_TELEMETRY_ENDPOINT, Reader, Source, TELEMETRY, Variable,
    markdown,
};
