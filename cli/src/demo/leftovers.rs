//! Looks at what there is, before the demo and after: both must be the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Namespaces, sockets, interfaces and processes that are there now.
pub(crate) fn look() -> Result<BTreeSet<String>> {
    let mut there = BTreeSet::new();
    for (what, directory) in [
        ("network namespace", "/run/netns"),
        ("file", "/run/carrick"),
    ] {
        there.extend(
            names(directory)?
                .into_iter()
                .map(|name| format!("{what} {name}")),
        );
    }
    there.extend(
        interfaces()?
            .into_iter()
            .map(|name| format!("interface {name}")),
    );
    for pid in names("/proc")?.into_iter().filter(|name| is_number(name)) {
        let what = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        there.insert(format!("process {pid} {}", what.trim()));
    }
    Ok(there)
}

fn names(directory: &str) -> Result<Vec<String>> {
    if !Path::new(directory).exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {directory}"))?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Interfaces of this process's network namespace; `/sys` may speak of another.
fn interfaces() -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/net/dev").context("cannot list interfaces")?;
    let lines = table.lines().filter_map(|line| line.split_once(':'));
    Ok(lines.map(|(name, _)| name.trim().to_owned()).collect())
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}
