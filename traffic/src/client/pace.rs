//! When each connection is due.

use std::time::Duration;

use tokio::time::Instant;

/// Evenly spaced beginnings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    start: Instant,
    rate: Option<f64>,
}

impl Pace {
    pub(super) fn new(start: Instant, rate: Option<f64>) -> Self {
        let rate = rate.filter(|rate| *rate > 0.0);
        Self { start, rate }
    }

    /// When connection number `index` may begin.
    pub(super) fn due(&self, index: u64) -> Instant {
        let Some(rate) = self.rate else {
            return self.start;
        };
        let after = Duration::try_from_secs_f64(crate::statistics::float(index) / rate);
        self.start + after.unwrap_or(Duration::from_secs(u64::from(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_per_second_are_a_millisecond_apart() {
        let start = Instant::now();
        let pace = Pace::new(start, Some(1000.0));
        assert_eq!(pace.due(0), start);
        assert_eq!(pace.due(2500), start + Duration::from_millis(2500));
    }

    #[test]
    fn without_a_rate_all_are_due_at_once() {
        let start = Instant::now();
        assert_eq!(Pace::new(start, None).due(1 << 40), start);
        assert_eq!(Pace::new(start, Some(0.0)).due(9), start);
    }
}
