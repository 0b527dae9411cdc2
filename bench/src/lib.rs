//! Benchmarks that the `carrick` program offers to its users.

pub mod lb;
