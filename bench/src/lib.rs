//! Benchmarks that the `carrick` program offers to its users.

pub mod lb;

/// Counts stay far below 2⁵³, where floats begin to round.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2⁵³")]
fn float(count: u64) -> f64 {
    count as f64
}
