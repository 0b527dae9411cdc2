//! The data plane in plain Rust: its specification.
