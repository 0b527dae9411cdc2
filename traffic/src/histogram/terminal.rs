//! In the terminal: a line per bin.

use std::fmt::Write as _;

use super::{Bins, range};
use crate::Frequencies;

/// Lines of one picture at most.
const LINES: u64 = 24;
/// Eighths of a cell.
const EIGHTHS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

/// Each result's histogram under its name, `width` cells wide, all with the same scale.
#[must_use]
pub fn terminal(results: &[(String, Frequencies)], width: usize) -> String {
    let Some(range) = range(results.iter().map(|(_, frequencies)| frequencies)) else {
        return String::new();
    };
    let all: Vec<_> = results
        .iter()
        .map(|(name, frequencies)| (name, Bins::of(frequencies, range, LINES)))
        .collect();
    let tallest = all
        .iter()
        .map(|(_, bins)| bins.tallest())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for (name, bins) in all {
        writeln!(text, "{name}: servers by connections").expect("a String takes all text");
        let labels: Vec<_> = (0..bins.servers.len()).map(|bin| bins.label(bin)).collect();
        let label_width = labels.iter().map(String::len).max().unwrap_or(0);
        let room = width.saturating_sub(label_width + 10).max(10);
        for (label, &servers) in labels.iter().zip(&bins.servers) {
            let bar = bar(servers, tallest, room);
            let count = if servers == 0 {
                String::new()
            } else {
                format!(" {servers}")
            };
            writeln!(text, "  {label:>label_width$} {bar}{count}")
                .expect("a String takes all text");
        }
    }
    text
}

fn bar(servers: usize, tallest: usize, room: usize) -> String {
    let eighths = (servers * room * 8).div_ceil(tallest.max(1));
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8 - 1]);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tallest_bar_fills_the_room_and_few_are_still_seen() {
        assert_eq!(bar(50, 50, 20), "█".repeat(20));
        assert_eq!(bar(1, 1000, 20), "▏");
        assert_eq!(bar(0, 1000, 20), "");
    }

    #[test]
    fn results_of_one_picture_have_one_scale() {
        let results = [
            ("even".to_owned(), Frequencies::of([10; 4], 4)),
            ("odd".to_owned(), Frequencies::of([9, 11, 10, 10], 4)),
        ];
        let picture = terminal(&results, 60);
        assert_eq!(picture.lines().count(), 2 * (1 + 3), "{picture}");
        assert!(
            picture.contains("even: servers by connections\n   9 \n  10 ████"),
            "{picture}"
        );
    }
}
