//! The frequency table: "N M" says that N servers got M connections each.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// How many servers got how many connections.
///
/// Displayed, each row is `N M`, fewest connections first; servers that got none are the row `<missing> 0`. A perfect
/// spread of 10,000 connections over 100 servers is the single row `100 100`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frequencies {
    servers: BTreeMap<u64, usize>,
}

impl Frequencies {
    /// Of `counts`, one per server that is known; if fewer than `expected` are, the others got none.
    #[must_use]
    pub fn of(counts: impl IntoIterator<Item = u64>, expected: usize) -> Self {
        let mut servers = BTreeMap::new();
        let mut known = 0;
        for count in counts {
            *servers.entry(count).or_default() += 1;
            known += 1;
        }
        if known < expected {
            *servers.entry(0).or_default() += expected - known;
        }
        Self { servers }
    }

    /// Servers and connections of each row, fewest connections first.
    #[must_use]
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (usize, u64)> {
        self.servers
            .iter()
            .map(|(&count, &servers)| (servers, count))
    }

    /// Servers that got nothing.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.servers.get(&0).copied().unwrap_or_default()
    }
}

impl fmt::Display for Frequencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows()
            .try_for_each(|(servers, count)| writeln!(f, "{servers:>7} {count}"))
    }
}

/// Frequencies side by side, one column each, under their names.
#[must_use]
pub fn side_by_side(columns: &[(String, Frequencies)]) -> String {
    let cells: Vec<Vec<String>> = columns
        .iter()
        .map(|(name, frequencies)| {
            let rows = frequencies.rows();
            let rows = rows.map(|(servers, count)| format!("{servers:>4} {count}"));
            std::iter::once(name.clone()).chain(rows).collect()
        })
        .collect();
    let width = |column: &Vec<String>| {
        column
            .iter()
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = cells.iter().map(width).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    let mut text = String::new();
    for row in 0..height {
        let mut line = String::new();
        for (column, width) in cells.iter().zip(&widths) {
            let cell = column.get(row).map_or("", String::as_str);
            write!(line, "{cell:<width$}  ").expect("a String takes all text");
        }
        writeln!(text, "{}", line.trim_end()).expect("a String takes all text");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_spread_is_one_row() {
        assert_eq!(
            Frequencies::of([100; 100], 100).to_string(),
            "    100 100\n"
        );
    }

    #[test]
    fn missing_servers_stand_before_a_zero() {
        let frequencies = Frequencies::of([5, 5, 7], 6);
        assert_eq!(frequencies.to_string(), "      3 0\n      2 5\n      1 7\n");
        assert_eq!(frequencies.missing(), 3);
    }

    #[test]
    fn results_stand_side_by_side_under_their_names() {
        let columns = [
            ("rr".to_owned(), Frequencies::of([100; 3], 3)),
            ("hash".to_owned(), Frequencies::of([90, 110], 3)),
        ];
        let table = side_by_side(&columns);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "rr        hash",
                "   3 100     1 0",
                "             1 90",
                "             1 110"
            ]
        );
    }
}
