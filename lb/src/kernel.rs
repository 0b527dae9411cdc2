//! The eBPF data plane: loading, attaching, adopting.
//!
//! Read first: [`Program`], the program in the kernel with its tables mapped
//! into this process.

mod program;
mod region;
#[cfg(test)]
mod tests;

pub use program::{Hook, Outcome, Program, Tables};
pub use region::Region;
