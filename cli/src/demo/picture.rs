//! The demo's topology and results, to be looked at in a terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::fetch::{Fetch, Pod};
use super::interruption::Seen;
use super::plan::{FABRIC, NODES, Node, UNDERLAY};

/// The machines with their addresses, as they turned out.
pub(crate) fn topology(prefixes: &BTreeMap<String, String>, pods: &[Pod]) -> String {
    const WIDTH: usize = 26;
    let boxes: Vec<Vec<String>> = NODES
        .iter()
        .map(|node| content(node, prefixes, pods))
        .collect();
    let height = boxes.iter().map(Vec::len).max().unwrap_or(0);
    let edge = |left: &str, middle: &str, right: &str| {
        let line: Vec<String> = boxes
            .iter()
            .map(|_| {
                format!(
                    "{left}{}{middle}{}{right}",
                    "─".repeat(WIDTH / 2),
                    "─".repeat(WIDTH / 2)
                )
            })
            .collect();
        line.join("  ")
    };
    let mut text = domains(WIDTH);
    writeln!(text, "{}", edge("┌", "─", "┐")).expect("a String takes all text");
    for row in 0..height {
        let cells = boxes.iter().map(|lines| {
            let line = lines.get(row).map_or("", String::as_str);
            format!("│ {line:<WIDTH$}│")
        });
        text.push_str(&cells.collect::<Vec<_>>().join("  "));
        text.push('\n');
    }
    writeln!(text, "{}", edge("└", "┬", "┘")).expect("a String takes all text");
    text + &fabric(WIDTH)
}

fn content(node: &Node, prefixes: &BTreeMap<String, String>, pods: &[Pod]) -> Vec<String> {
    let prefix = prefixes.get(&node.endpoint()).map_or("?", String::as_str);
    let mut lines = vec![
        format!("node {} {}", node.name, node.underlay),
        format!("{} {prefix}", node.endpoint()),
    ];
    for (at, name) in node.pods.iter().enumerate() {
        let branch = if at + 1 == node.pods.len() {
            "└"
        } else {
            "├"
        };
        let pod = pods.iter().find(|pod| pod.name == *name);
        let address = pod.map_or("?".into(), |pod| pod.address.to_string());
        lines.push(format!("  {branch}─ {name} {address}"));
    }
    lines
}

fn domains(width: usize) -> String {
    let (mut text, mut last) = (String::new(), "");
    for node in &NODES {
        let title = if node.domain == last {
            String::new()
        } else {
            format!("domain {}", node.domain)
        };
        last = node.domain;
        write!(text, "{title:<columns$}", columns = width + 5).expect("a String takes all text");
    }
    text.trim_end().to_owned() + "\n"
}

fn fabric(width: usize) -> String {
    let step = width + 5;
    let first = width / 2 + 1;
    let span = step * (NODES.len() - 1);
    let mut line: Vec<char> = std::iter::repeat_n(' ', first).collect();
    line.extend((0..=span).map(|at| match at {
        0 => '└',
        at if at == span => '┘',
        at if at.is_multiple_of(step) => '┴',
        _ => '─',
    }));
    let line: String = line.into_iter().collect();
    format!(
        "{line}\n{:first$}underlay {UNDERLAY}, fabric {FABRIC}; links between nodes are VXLAN\n",
        ""
    )
}

/// Who reached whom, by address and by name.
pub(crate) fn fetches(fetches: &[Fetch]) -> String {
    table(fetches.iter().map(|fetch| {
        let cell = match (&fetch.by_address, &fetch.by_name) {
            (Ok(address), Ok(name)) => format!("{} / {}", millis(*address), millis(*name)),
            (Err(_), Err(_)) => "FAILED".to_owned(),
            (Err(_), Ok(_)) => "ADDRESS FAILED".to_owned(),
            (Ok(_), Err(_)) => "NAME FAILED".to_owned(),
        };
        (fetch.from, fetch.to, cell)
    }))
}

/// For how long each pair was interrupted.
pub(crate) fn interruptions(seen: &[Seen]) -> String {
    table(seen.iter().map(|seen| {
        let cell = match seen.lost {
            0 => "0 ms".to_owned(),
            lost => format!("{} ms, {lost} lost", seen.gap.as_millis()),
        };
        (seen.from, seen.to, cell)
    }))
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// A square table: rows ask, columns answer.
fn table(cells: impl Iterator<Item = (&'static str, &'static str, String)>) -> String {
    let cells: BTreeMap<(&str, &str), String> = cells.map(|(a, b, cell)| ((a, b), cell)).collect();
    let names: Vec<&str> = super::plan::pods().map(|(_, pod)| pod).collect();
    let width = cells
        .values()
        .map(|cell| cell.chars().count())
        .max()
        .unwrap_or(0)
        .max(6)
        + 2;
    let mut text = format!("  {:<8}", "from\\to");
    for name in &names {
        write!(text, "{name:<width$}").expect("a String takes all text");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    for from in &names {
        write!(text, "  {from:<8}").expect("a String takes all text");
        for to in &names {
            let cell = cells.get(&(*from, *to)).map_or("·", String::as_str);
            write!(text, "{cell:<width$}").expect("a String takes all text");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &'static str) -> Pod {
        Pod {
            name,
            address: std::net::Ipv4Addr::new(172, 16, 0, 1).into(),
            name_server: std::net::Ipv4Addr::new(172, 16, 0, 0).into(),
            domain_name: format!("{name}.vl3."),
        }
    }

    #[test]
    fn every_machine_and_pod_is_in_the_picture() {
        let pods: Vec<Pod> = super::super::plan::pods()
            .map(|(_, name)| pod(name))
            .collect();
        let text = topology(&BTreeMap::new(), &pods);
        for word in [
            "domain east",
            "domain west",
            "node east-2",
            "└─ eel 172.16.0.1",
            "VXLAN",
        ] {
            assert!(text.contains(word), "{word} in\n{text}");
        }
    }

    #[test]
    fn a_failed_fetch_is_seen_in_the_table() {
        let fetch = Fetch {
            from: "ant",
            to: "eel",
            by_address: Ok(Duration::from_micros(1500)),
            by_name: Err(anyhow::anyhow!("no such name")),
        };
        assert!(fetches(&[fetch]).contains("NAME FAILED"));
    }
}
