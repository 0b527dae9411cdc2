//! How evenly connections are spread over servers: plain numbers in, plain numbers out.

use serde::{Deserialize, Serialize};

/// How connections are spread over servers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Servers that should get connections, those that got none included.
    pub servers: usize,
    /// Servers that got none.
    pub missing: usize,
    /// Connections of all servers.
    pub connections: u64,
    /// Of the server with the fewest.
    pub min: u64,
    /// Of the server with the most.
    pub max: u64,
    /// Connections per server if all were equal.
    pub mean: f64,
    /// Standard deviation of the whole population, in connections.
    pub sd: f64,
    /// Pearson's chi-square against equal shares; [`Self::degrees`] are its degrees of freedom.
    pub chi_square: f64,
}

/// What chi-square says of a spread, at 0.5 % on either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// No two servers differ by more than one connection.
    Even,
    /// More even than chance would have it: something counts.
    EvenerThanChance,
    /// As independent random choices would be.
    Random,
    /// Less even than chance would have it: shares differ, or there is nothing to share.
    Uneven,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Even => "even",
            Self::EvenerThanChance => "evener than chance",
            Self::Random => "random",
            Self::Uneven => "uneven",
        })
    }
}

/// The normal quantile of 99.5 %.
const Z_995: f64 = 2.575_829_303_548_901;

impl Spread {
    /// The spread of `counts`, one per server that is known. If fewer than `expected` are, the others got none.
    #[must_use]
    pub fn of(counts: impl IntoIterator<Item = u64>, expected: usize) -> Self {
        let mut counts: Vec<u64> = counts.into_iter().collect();
        if counts.len() < expected {
            counts.resize(expected, 0);
        }
        let connections = counts.iter().sum();
        let mean = ratio(connections, counts.len());
        let squares: f64 = counts.iter().map(|&n| (float(n) - mean).powi(2)).sum();
        Self {
            servers: counts.len(),
            missing: counts.iter().filter(|&&n| n == 0).count(),
            connections,
            min: counts.iter().copied().min().unwrap_or_default(),
            max: counts.iter().copied().max().unwrap_or_default(),
            mean,
            sd: if counts.is_empty() {
                0.0
            } else {
                (squares / float(counts.len() as u64)).sqrt()
            },
            chi_square: if mean > 0.0 { squares / mean } else { 0.0 },
        }
    }

    /// Degrees of freedom of [`Self::chi_square`].
    #[must_use]
    pub fn degrees(&self) -> usize {
        self.servers.saturating_sub(1)
    }

    /// How likely random choices are at least as uneven as this, 0 to 1 (Wilson and Hilferty's approximation, good
    /// to three digits from ten servers on).
    #[must_use]
    pub fn p_value(&self) -> f64 {
        let degrees = float(self.degrees() as u64);
        if degrees == 0.0 {
            return 1.0;
        }
        let ninth = 2.0 / (9.0 * degrees);
        let z = ((self.chi_square / degrees).cbrt() - (1.0 - ninth)) / ninth.sqrt();
        libm::erfc(z / std::f64::consts::SQRT_2) / 2.0
    }

    /// The chi-square that random choices exceed once in 200 runs.
    #[must_use]
    pub fn chi_square_bound(&self) -> f64 {
        quantile(self.degrees(), Z_995)
    }

    /// The standard deviation that random choices have on average: a hash cannot do better.
    #[must_use]
    pub fn random_sd(&self) -> f64 {
        let servers = float(self.servers.max(1) as u64);
        (self.mean * (1.0 - 1.0 / servers)).sqrt()
    }

    /// What chi-square says.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.connections == 0 {
            Verdict::Uneven
        } else if self.max - self.min <= 1 {
            Verdict::Even
        } else if self.chi_square < quantile(self.degrees(), -Z_995) {
            Verdict::EvenerThanChance
        } else if self.chi_square <= self.chi_square_bound() {
            Verdict::Random
        } else {
            Verdict::Uneven
        }
    }
}

/// A quantile of the chi-square distribution, by Wilson and Hilferty.
fn quantile(degrees: usize, z: f64) -> f64 {
    let degrees = float(degrees as u64);
    if degrees == 0.0 {
        return 0.0;
    }
    let ninth = 2.0 / (9.0 * degrees);
    degrees * (1.0 - ninth + z * ninth.sqrt()).powi(3)
}

fn ratio(sum: u64, count: usize) -> f64 {
    if count == 0 {
        0.0
    } else {
        float(sum) / float(count as u64)
    }
}

/// Counts stay far below 2⁵³, where floats begin to round.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2⁵³")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 0.005 * b.abs().max(1.0)
    }

    #[test]
    fn a_hundred_times_a_hundred_is_even() {
        let spread = Spread::of([100; 100], 100);
        assert_eq!((spread.min, spread.max, spread.missing), (100, 100, 0));
        assert!(close(spread.sd, 0.0) && close(spread.chi_square, 0.0));
        assert_eq!(spread.verdict(), Verdict::Even);
        assert!(spread.p_value() > 0.999);
    }

    #[test]
    fn servers_without_a_connection_count_as_missing() {
        let spread = Spread::of([150, 150], 3);
        assert_eq!((spread.servers, spread.missing, spread.min), (3, 1, 0));
        assert!(close(spread.mean, 100.0));
        assert!(close(spread.chi_square, 150.0));
        assert_eq!(spread.verdict(), Verdict::Uneven);
    }

    #[test]
    fn more_servers_than_expected_all_count() {
        assert_eq!(Spread::of([1, 2, 3], 2).servers, 3);
    }

    #[test]
    fn the_bound_for_a_hundred_servers_is_139() {
        let spread = Spread::of([100; 100], 100);
        assert!((spread.chi_square_bound() - 139.0).abs() < 0.3);
        assert!(close(spread.random_sd(), 9.95));
    }

    #[test]
    fn a_p_value_agrees_with_the_tables() {
        // Upper 5 % and 1 % points of the distribution, as any table has them.
        for (degrees, chi_square, p) in
            [(10, 18.307, 0.05), (30, 50.892, 0.01), (99, 123.225, 0.05)]
        {
            let mut spread = Spread::of(vec![10; degrees + 1], 0);
            spread.chi_square = chi_square;
            assert!(
                (spread.p_value() - p).abs() < 0.001,
                "{degrees} {}",
                spread.p_value()
            );
        }
    }

    #[test]
    fn two_shares_where_one_should_be_are_uneven() {
        let counts = std::iter::repeat_n(79, 73).chain(std::iter::repeat_n(156, 27));
        assert_eq!(Spread::of(counts, 100).verdict(), Verdict::Uneven);
    }

    #[test]
    fn nothing_at_all_is_no_division_by_zero() {
        let spread = Spread::of([], 0);
        assert!(spread.sd.abs() < f64::EPSILON && spread.chi_square.abs() < f64::EPSILON);
        assert!(spread.p_value() <= 1.0);
        let silent = Spread::of([], 5);
        assert_eq!((silent.missing, silent.connections), (5, 0));
        assert_eq!(silent.verdict(), Verdict::Uneven);
    }

    proptest! {
        #[test]
        fn chi_square_is_the_variance_over_the_mean_times_servers(counts in prop::collection::vec(0u64..1000, 2..200)) {
            let spread = Spread::of(counts.clone(), 0);
            prop_assume!(spread.mean > 0.0);
            let expected = spread.sd.powi(2) * float(counts.len() as u64) / spread.mean;
            prop_assert!(close(spread.chi_square, expected));
            prop_assert!(spread.min <= spread.max);
            prop_assert!(float(spread.min) <= spread.mean + 1e-9 && spread.mean <= float(spread.max) + 1e-9);
        }
    }
}
