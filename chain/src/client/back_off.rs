//! How long to wait after a failure. Pure but for the dice.

use std::time::Duration;

/// Waiting times that double from `first` to `most`, each of them shortened by
/// up to a half at random, so that clients which lost the same peer do not come
/// back in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// After the first failure.
    pub first: Duration,
    /// After many.
    pub most: Duration,
}

impl Default for BackOff {
    /// 200 ms, which is NSM's interval, up to 15 s.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            most: Duration::from_secs(15),
        }
    }
}

impl BackOff {
    /// The time to wait after `failures` failures in a row; `dice` is from 0 to 1.
    pub(super) fn after(&self, failures: u32, dice: f64) -> Duration {
        let doubled = 1 << failures.saturating_sub(1).min(16);
        let whole = self.first.saturating_mul(doubled).min(self.most);
        whole.mul_f64(1.0 - dice.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_up_to_its_most_and_never_ends() {
        let back_off = BackOff::default();
        let waits = [1, 2, 3, 7, 8, u32::MAX].map(|failures| back_off.after(failures, 0.0));
        let millis = [200, 400, 800, 12_800, 15_000, 15_000];
        assert_eq!(waits, millis.map(Duration::from_millis));
    }

    #[test]
    fn the_dice_shorten_by_up_to_a_half() {
        let back_off = BackOff::default();
        assert_eq!(back_off.after(1, 1.0), back_off.first / 2);
        assert_eq!(back_off.after(1, 7.0), back_off.first / 2);
    }
}
