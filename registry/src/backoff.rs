use std::time::Duration;

/// Waits between attempts: twice as long each time, up to a longest one, and
/// spread at random over the upper half, so that many who lost the same
/// registry do not come back at once.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The wait after the first failure; 200 ms by default (NSM `retry`).
    pub first: Duration,
    /// The longest wait; 15 s by default.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(15),
        }
    }
}

impl Backoff {
    /// How long to wait after `failures` failures in a row, the last one included.
    #[must_use]
    pub fn after(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        spread(self.first.saturating_mul(doubled).min(self.longest))
    }
}

/// Between half of `longest` and all of it.
pub(crate) fn spread(longest: Duration) -> Duration {
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_up_to_the_longest() {
        let backoff = Backoff::default();
        for (failures, millis) in [
            (1, 200),
            (2, 400),
            (3, 800),
            (30, 15_000),
            (u32::MAX, 15_000),
        ] {
            let wait = backoff.after(failures);
            let longest = Duration::from_millis(millis);
            assert!(
                wait <= longest && wait >= longest / 2,
                "{failures}: {wait:?}"
            );
        }
    }
}
