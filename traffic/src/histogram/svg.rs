//! As a picture file: one panel below the other.

use std::fmt::Write as _;

use super::{Bins, range};
use crate::{Frequencies, Spread};

const WIDTH: u64 = 720;
const PANEL: u64 = 150;
const LEFT: u64 = 48;
const RIGHT: u64 = 16;
const TOP: u64 = 26;
const BOTTOM: u64 = 26;
/// Bars of one panel at most.
const BARS: u64 = 120;

/// Each result's histogram in a panel of its own under its name, all with the same scale. Readable on light and on
/// dark ground.
#[must_use]
pub fn svg(results: &[(String, Frequencies)]) -> String {
    let panels: Vec<_> = range(results.iter().map(|(_, frequencies)| frequencies))
        .into_iter()
        .flat_map(|range| {
            let panel = move |(name, frequencies): &(String, Frequencies)| {
                (
                    escape(name),
                    summary(frequencies),
                    Bins::of(frequencies, range, BARS),
                )
            };
            results.iter().map(panel)
        })
        .collect();
    let tallest = panels
        .iter()
        .map(|(_, _, bins)| bins.tallest())
        .max()
        .unwrap_or(1)
        .max(1);
    let height = PANEL * panels.len() as u64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n"
    );
    for (index, (name, summary, bins)) in panels.iter().enumerate() {
        let top = PANEL * index as u64;
        text += &panel(top, name, summary, bins, tallest);
    }
    text + "</svg>\n"
}

fn panel(top: u64, name: &str, summary: &str, bins: &Bins, tallest: usize) -> String {
    let (low, room) = (top + PANEL - BOTTOM, PANEL - TOP - BOTTOM);
    let mut text = format!(
        "<g fill=\"#808080\"><text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{name}</text>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{summary}</text>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{tallest}</text>\
         <text x=\"{}\" y=\"{low}\" text-anchor=\"end\">0</text></g>\n\
         <path d=\"M{LEFT} {low}H{}\" stroke=\"#808080\"/>\n",
        top + 18,
        WIDTH - RIGHT,
        top + 18,
        LEFT - 6,
        top + TOP + 10,
        LEFT - 6,
        WIDTH - RIGHT,
    );
    let count = bins.servers.len().max(1) as u64;
    let edge = |bin: u64| LEFT + (WIDTH - LEFT - RIGHT) * bin / count;
    let every = (count / 8).max(1);
    for (bin, &servers) in (0..).zip(&bins.servers) {
        let (x, width) = (edge(bin), (edge(bin + 1) - edge(bin)).max(2) - 1);
        if bin % every == 0 {
            let label = bins.label(usize::try_from(bin).expect("there are few bars"));
            writeln!(
                text,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#808080\">{label}</text>",
                x + width / 2,
                low + 16
            )
            .expect("a String takes all text");
        }
        if servers == 0 {
            continue;
        }
        let height = (room * servers as u64 / tallest as u64).max(1);
        writeln!(
            text,
            "<rect x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"{height}\" fill=\"#2f7ed8\"><title>{servers} \
             servers: {}</title></rect>",
            low - height,
            bins.label(usize::try_from(bin).expect("there are few bars")),
        )
        .expect("a String takes all text");
    }
    text
}

fn summary(frequencies: &Frequencies) -> String {
    let counts = frequencies
        .rows()
        .flat_map(|(servers, count)| std::iter::repeat_n(count, servers));
    let spread = Spread::of(counts, 0);
    format!(
        "min {} · max {} · sd {:.2} · {} missing",
        spread.min, spread.max, spread.sd, spread.missing
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_of_servers_has_its_bar() {
        let results = [("a<b".to_owned(), Frequencies::of([99, 100, 100, 101], 5))];
        let picture = svg(&results);
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert_eq!(picture.matches("<rect ").count(), 4);
        assert!(picture.contains("a&lt;b") && picture.contains("min 0 · max 101"));
        assert_eq!(
            picture.matches("<g ").count(),
            picture.matches("</g>").count()
        );
    }

    #[test]
    fn nothing_is_an_empty_picture() {
        assert!(svg(&[]).contains("height=\"0\""));
    }
}
