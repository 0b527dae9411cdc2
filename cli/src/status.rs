//! Shows a running program, asked at its admin listener.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::net::TcpStream;

/// What `carrick status` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The program's admin listener: `unix:///path` or `tcp://address:port`. Without
    /// it every program with a socket below /run/carrick or /var/lib/carrick is shown.
    #[arg(long, value_name = "URL")]
    admin: Option<carrick_telemetry::Address>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Where programs have their admin sockets unless told otherwise.
const PLACES: [&str; 2] = ["/run/carrick", "/var/lib/carrick"];

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let shown = match &args.admin {
        Some(address) => vec![(address.to_string(), ask(&address.to_string()).await?)],
        None => ask_all().await?,
    };
    if args.json {
        let all: serde_json::Map<String, Value> = shown.into_iter().collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        for (address, status) in shown {
            print!("{}", text(&address, &status));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask_all() -> Result<Vec<(String, Value)>> {
    let mut found = Vec::new();
    for socket in sockets() {
        let url = format!("unix://{}", socket.display());
        // A socket that a killed program left says nothing.
        if let Ok(status) = ask(&url).await {
            found.push((url, status));
        }
    }
    ensure!(
        !found.is_empty(),
        "no program answers below {}; name one with --admin",
        PLACES.join(" or ")
    );
    Ok(found)
}

fn sockets() -> Vec<PathBuf> {
    let entries = PLACES
        .iter()
        .filter_map(|place| std::fs::read_dir(place).ok())
        .flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut sockets: Vec<_> = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "admin")
        })
        .collect();
    sockets.sort();
    sockets
}

async fn ask(url: &str) -> Result<Value> {
    let (code, body) = if let Some(path) = url.strip_prefix("unix://") {
        crate::http::get_unix(path.as_ref(), "/status").await?
    } else {
        let place = url.strip_prefix("tcp://").unwrap_or(url);
        let io = TcpStream::connect(place).await;
        let io = io.with_context(|| format!("nothing listens on {place}"))?;
        crate::http::get(io, place, "/status").await?
    };
    ensure!(code.is_success(), "{url} answers {code}");
    Ok(serde_json::from_slice(&body)?)
}

/// A status for people: single values first, then a table for each list.
fn text(address: &str, status: &Value) -> String {
    let mut text = format!("{address}\n");
    let fields = || status.as_object().into_iter().flatten();
    for (key, value) in fields().filter(|(_, value)| !is_table(value)) {
        writeln!(text, "  {key}: {}", cell(value)).expect("a String takes all text");
    }
    for (key, value) in fields() {
        if let Some(rows) = value.as_array().filter(|_| is_table(value)) {
            writeln!(text, "  {key} ({})", rows.len()).expect("a String takes all text");
            text += &table(rows);
        }
    }
    text
}

fn is_table(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|rows| rows.iter().any(Value::is_object))
}

/// Rows of objects with a column for each key that any of them has.
fn table(rows: &[Value]) -> String {
    let mut columns: Vec<&String> = Vec::new();
    for key in rows
        .iter()
        .filter_map(Value::as_object)
        .flat_map(|row| row.keys())
    {
        if !columns.contains(&key) {
            columns.push(key);
        }
    }
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            columns
                .iter()
                .map(|column| cell(&row[column.as_str()]))
                .collect()
        })
        .collect();
    let width = |at: usize| {
        let cells = lines.iter().map(|line| line[at].chars().count());
        cells
            .chain([columns[at].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let head: Vec<String> = columns.iter().map(|&column| column.clone()).collect();
    let mut text = String::new();
    for line in std::iter::once(&head).chain(&lines) {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(text, "    {}", line.trim_end()).expect("a String takes all text");
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            let pairs = fields
                .iter()
                .map(|(key, value)| format!("{key}={}", cell(value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_become_tables_and_the_rest_lines() {
        let status = json!({
            "name": "nse-1",
            "prefixes": ["10.0.0.0/24"],
            "peers": [{"name": "nse-2", "state": "linked"}, {"name": "nse-3", "rtt_us": 40}],
            "routes": [],
        });
        let text = text("unix:///a", &status);
        assert!(text.contains("  name: nse-1\n"), "{text}");
        assert!(text.contains("  prefixes: 10.0.0.0/24\n"), "{text}");
        assert!(text.contains("  peers (2)\n"), "{text}");
        assert!(text.contains("nse-3  -       40"), "{text}");
    }
}
