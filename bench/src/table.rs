//! A table as text and in Markdown.

use std::fmt::Write as _;

/// The first column stands to the left, the others to the right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: &str, head: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            head: head.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
        }
    }

    /// As a reader at a terminal wants it.
    pub(crate) fn text(&self) -> String {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            all()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = format!("\n{}\n\n", self.title);
        for row in all() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let written = if column == 0 {
                    write!(text, "{cell:<width$}")
                } else {
                    write!(text, "  {cell:>width$}")
                };
                written.expect("a String takes all text");
            }
            text.push('\n');
        }
        text
    }

    /// As part of a page in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let numbers = self.head.iter().skip(1).map(|_| "---:".to_owned());
        let rule: Vec<String> = std::iter::once("---".to_owned()).chain(numbers).collect();
        let rows: String = self.rows.iter().map(|cells| row(cells)).collect();
        format!("\n### {}\n\n", self.title) + &row(&self.head) + &row(&rule) + &rows
    }
}

/// `page` with what is between its lines `<!-- bench NAME -->` and `<!-- /bench NAME -->` replaced; `None` without
/// these lines.
pub(crate) fn with_section(page: &str, name: &str, section: &str) -> Option<String> {
    let marks = [
        format!("<!-- bench {name} -->\n"),
        format!("<!-- /bench {name} -->\n"),
    ];
    let (before, rest) = page.split_once(&marks[0])?;
    let (_, after) = rest.split_once(&marks[1])?;
    Some([before, &marks[0], section, &marks[1], after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("Title", &["", "a", "long"]);
        table
            .rows
            .push(["row", "10", "2"].map(str::to_owned).to_vec());
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(table().text(), "\nTitle\n\n      a  long\nrow  10     2\n");
    }

    #[test]
    fn markdown_has_a_rule_below_the_head() {
        let expected = "\n### Title\n\n|  | a | long |\n| --- | ---: | ---: |\n| row | 10 | 2 |\n";
        assert_eq!(table().markdown(), expected);
    }

    #[test]
    fn only_what_is_between_the_marks_is_written_anew() {
        let page = "a\n<!-- bench x -->\nold\n<!-- /bench x -->\nb\n";
        let new = with_section(page, "x", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- bench x -->\nnew\n<!-- /bench x -->\nb\n");
        assert_eq!(with_section(page, "y", "new\n"), None);
    }
}
