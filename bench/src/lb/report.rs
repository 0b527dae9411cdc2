//! The results as text, JSON, and a section of a page.

use std::fmt::Write as _;
use std::fs;

use serde::Serialize;

use super::{Distribution, Live, Options, PacketCost, PathSpeed};

/// Everything that was measured in one run.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// The machine.
    pub machine: Machine,
    /// Connections of each distribution.
    pub connections: u64,
    /// Servers of each distribution.
    pub servers: u32,
    /// How evenly connections are spread.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distribution: Vec<Distribution>,
    /// What became of flows while servers came and went.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub live: Vec<Live>,
    /// What a packet costs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packets: Vec<PacketCost>,
    /// Packets per second from a veth to a veth.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<PathSpeed>,
}

/// What it was measured on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// The processor's model.
    pub processor: String,
    /// Processors that this program may use.
    pub processors: usize,
}

impl Machine {
    fn here() -> Self {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model.map_or("unknown", |(_, name)| name).trim().to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// A table: the first column to the left, the others to the right.
struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Results {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            machine: Machine::here(),
            connections: options.connections,
            servers: options.servers,
            distribution: Vec::new(),
            live: Vec::new(),
            packets: Vec::new(),
            path: Vec::new(),
        }
    }

    fn sections(&self) -> Vec<(String, Table)> {
        let mut sections = Vec::new();
        if !self.distribution.is_empty() {
            let title = format!(
                "{} connections over {} servers",
                self.connections, self.servers
            );
            sections.push((title, self.distributions()));
        }
        if !self.live.is_empty() {
            let title = "Live flows while servers are removed, added, drained and weighted";
            sections.push((title.to_owned(), self.lives()));
        }
        if !self.packets.is_empty() {
            let title = "Nanoseconds per packet in the test-run rig, its own share included";
            sections.push((title.to_owned(), self.packet_costs()));
        }
        if !self.path.is_empty() {
            let title = "Packets per second from a veth to a veth, on one processor";
            sections.push((title.to_owned(), self.path_speeds()));
        }
        sections
    }

    fn path_speeds(&self) -> Table {
        let row = |row: &PathSpeed| {
            let lost = crate::float(row.lost) / crate::float(row.sent) * 100.0;
            vec![
                row.path.clone(),
                row.flows.to_string(),
                format!("{:.2}", row.best / 1e6),
                format!("{:.2}", row.median / 1e6),
                format!("{:.0}", 1e9 / row.best),
                format!("{lost:.1}"),
            ]
        };
        Table {
            head: vec![
                "path",
                "flows",
                "best, million/s",
                "median",
                "best, ns each",
                "worst loss, %",
            ],
            rows: self.path.iter().map(row).collect(),
        }
    }

    fn lives(&self) -> Table {
        let row = |row: &Live| {
            vec![
                row.balancer.clone(),
                row.flows.to_string(),
                row.changes.to_string(),
                row.removed.to_string(),
                row.broken.to_string(),
                row.failed.to_string(),
                row.resumed.to_string(),
                row.longest_stall_ms.to_string(),
            ]
        };
        Table {
            head: vec![
                "balancer",
                "flows",
                "changes",
                "of removed servers",
                "broken of all others",
                "never opened",
                "resumed",
                "longest stall, ms",
            ],
            rows: self.live.iter().map(row).collect(),
        }
    }

    fn packet_costs(&self) -> Table {
        let row = |row: &PacketCost| {
            vec![
                row.program.clone(),
                row.packet.clone(),
                row.flows.to_string(),
                row.cost.min.to_string(),
                row.cost.median.to_string(),
                action(row.cost.verdict).to_owned(),
            ]
        };
        Table {
            head: vec!["program", "packet", "flows", "min", "median", "action"],
            rows: self.packets.iter().map(row).collect(),
        }
    }

    fn distributions(&self) -> Table {
        let row = |row: &Distribution| {
            let spread = &row.spread;
            vec![
                row.policy.clone(),
                row.balancer.clone(),
                format!("{:.2}", spread.sd),
                format!("{:.1}", spread.chi_square),
                spread.min.to_string(),
                spread.max.to_string(),
                spread.missing.to_string(),
                row.failed.to_string(),
                format!("{:.0}", row.rate),
                row.verdict.to_string(),
            ]
        };
        Table {
            head: vec![
                "policy", "balancer", "sd", "chi²", "min", "max", "missing", "failed", "per s",
                "verdict",
            ],
            rows: self.distribution.iter().map(row).collect(),
        }
    }

    /// As a reader at a terminal wants it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (title, table) in self.sections() {
            text = text + "\n" + &title + "\n\n" + &table.text();
        }
        text
    }

    /// As a section of a page in Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let Machine {
            kernel,
            processor,
            processors,
        } = &self.machine;
        let mut text = format!(
            "Measured with `carrick bench lb` on Linux {kernel}, {processors} × {processor}.\n"
        );
        for (title, table) in self.sections() {
            text = text + "\n### " + &title + "\n\n" + &table.markdown();
        }
        text
    }
}

/// The name of an XDP action.
fn action(verdict: u32) -> &'static str {
    let names = ["aborted", "drop", "pass", "tx", "redirect"];
    names.get(verdict as usize).copied().unwrap_or("unknown")
}

impl Table {
    fn text(&self) -> String {
        let head: Vec<String> = self.head.iter().map(ToString::to_string).collect();
        let all: Vec<&Vec<String>> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |column: usize| {
            all.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut text = String::new();
        for row in all {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let is_word = column == 0
                    || self
                        .rows
                        .iter()
                        .all(|row| !row[column].starts_with(|c: char| c.is_ascii_digit()));
                let written = if is_word {
                    write!(line, "{cell:<width$}  ")
                } else {
                    write!(line, "{cell:>width$}  ")
                };
                written.expect("a String takes all text");
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    fn markdown(&self) -> String {
        let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let head = row(self.head.iter().map(ToString::to_string).collect());
        let rule = row(vec!["---".to_owned(); self.head.len()]);
        let rows: String = self.rows.iter().map(|cells| row(cells.clone())).collect();
        head + &rule + &rows
    }
}
