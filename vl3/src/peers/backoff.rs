use std::time::{Duration, Instant};

/// Delay before the next attempt: doubled each time, with jitter.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
}

impl Backoff {
    /// Delay after the first failure; later ones double it.
    pub(crate) const FIRST: Duration = Duration::from_millis(200);

    pub(crate) fn new() -> Self {
        Self {
            failures: 0,
            not_before: None,
        }
    }

    /// Failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// When the next attempt may start; `None` is at once.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Waits half to all of the doubled delay, but at most `cap`: half is
    /// random, so that endpoints that failed together do not return together.
    pub(crate) fn fail(&mut self, now: Instant, cap: Duration, rng: &mut fastrand::Rng) {
        let delay = Self::FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(cap);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + delay.mul_f64(0.5 + rng.f64() / 2.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_cap() {
        let (now, cap) = (Instant::now(), Duration::from_secs(30));
        let (mut rng, mut backoff) = (fastrand::Rng::with_seed(1), Backoff::new());
        for power in 0..40 {
            backoff.fail(now, cap, &mut rng);
            let full = Backoff::FIRST.saturating_mul(1 << power.min(16)).min(cap);
            let delay = backoff.not_before().unwrap() - now;
            assert!(
                full / 2 <= delay && delay <= full,
                "{delay:?} after {power}"
            );
        }
    }
}
