//! A picture of how connections are spread: how many servers (upwards) got how many connections (to the right).

mod svg;
mod terminal;

pub use svg::svg;
pub use terminal::terminal;

use crate::Frequencies;

/// Neighbouring counts of connections, put together so that a picture stays readable.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bins {
    /// Connections at the left edge of the first one.
    first: u64,
    /// Connections that one of them spans.
    span: u64,
    servers: Vec<usize>,
}

impl Bins {
    /// At most `most` bins from `low` to `high` inclusive.
    fn of(frequencies: &Frequencies, (low, high): (u64, u64), most: u64) -> Self {
        let span = (high - low + 1).div_ceil(most.max(1)).max(1);
        let count = (high - low) / span + 1;
        let mut servers = vec![0; usize::try_from(count).unwrap_or(usize::MAX)];
        for (n, connections) in frequencies.rows() {
            let at = usize::try_from((connections.clamp(low, high) - low) / span);
            servers[at.expect("there are few bins")] += n;
        }
        Self {
            first: low,
            span,
            servers,
        }
    }

    fn tallest(&self) -> usize {
        self.servers.iter().copied().max().unwrap_or_default()
    }

    fn label(&self, bin: usize) -> String {
        let low = self.first + self.span * bin as u64;
        if self.span == 1 {
            low.to_string()
        } else {
            format!("{low}-{}", low + self.span - 1)
        }
    }
}

/// The least and the most connections of all results, so that their pictures have the same scale.
fn range<'a>(all: impl IntoIterator<Item = &'a Frequencies>) -> Option<(u64, u64)> {
    let counts = all
        .into_iter()
        .flat_map(|one| one.rows().map(|(_, count)| count));
    counts.fold(None, |range: Option<(u64, u64)>, count| {
        let (low, high) = range.unwrap_or((count, count));
        Some((low.min(count), high.max(count)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_count_is_one_bin() {
        let bins = Bins::of(&Frequencies::of([100; 100], 100), (100, 100), 40);
        assert_eq!(
            (bins.servers.as_slice(), bins.label(0).as_str()),
            (&[100][..], "100")
        );
    }

    proptest! {
        #[test]
        fn no_server_is_lost_in_a_bin(counts in prop::collection::vec(0u64..2000, 1..200), most in 1u64..60) {
            let frequencies = Frequencies::of(counts.iter().copied(), 0);
            let bins = Bins::of(&frequencies, range([&frequencies]).unwrap(), most);
            prop_assert_eq!(bins.servers.iter().sum::<usize>(), counts.len());
            prop_assert!(bins.servers.len() as u64 <= most);
        }
    }
}
