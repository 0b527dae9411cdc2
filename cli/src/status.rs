//! Shows a running program, asked at its admin listener.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use carrick_config::{Env, Source};
use serde_json::Value;
use tokio::net::TcpStream;

/// What `carrick status` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The program's admin listener: `unix:///path` or `tcp://address:port`. Without
    /// it every program is shown that has a socket, `<name>.admin`, in /run/carrick,
    /// /var/lib/carrick or `CARRICK_STATE_DIR`.
    #[arg(long, value_name = "URL")]
    admin: Option<carrick_telemetry::Address>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Where programs have their admin sockets unless told otherwise.
fn places() -> Vec<PathBuf> {
    let usual = ["/run/carrick", "/var/lib/carrick"].map(PathBuf::from);
    let set = Env.text("CARRICK_STATE_DIR").filter(|dir| !dir.is_empty());
    let set = set.map(PathBuf::from).filter(|dir| !usual.contains(dir));
    usual.iter().cloned().chain(set).collect()
}

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
            print!("{}", text(&address, &status, SystemTime::now()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn ask_all() -> Result<Vec<(String, Value)>> {
    let mut found = Vec::new();
    let places = places();
    for socket in sockets(&places) {
        let url = format!("unix://{}", socket.display());
        // A socket that a killed program left says nothing.
        if let Ok(status) = ask(&url).await {
            found.push((url, status));
        }
    }
    ensure!(
        !found.is_empty(),
        "no program answers in {}; name one with --admin",
        places
            .iter()
            .map(|place| place.display().to_string())
            .collect::<Vec<_>>()
            .join(" or ")
    );
    Ok(found)
}

fn sockets(places: &[PathBuf]) -> Vec<PathBuf> {
    let entries = places
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

pub(crate) async fn ask(url: &str) -> Result<Value> {
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

/// What is shown of the rows of a table, in this order, each by its path in the
/// row; columns in which no row has anything are left out. What is not here is
/// in the JSON.
const TABLES: [(&str, &[&str]); 7] = [
    (
        "connections",
        &[
            "id",
            "client",
            "network_service",
            "endpoint",
            "state",
            "interface",
            "src_addrs",
            "dst_addrs",
            "mechanism",
            "mtu",
            "peer",
            "attempts",
            "since",
            "last_error",
        ],
    ),
    (
        "leases",
        &[
            "prefix",
            "client.name",
            "client.service",
            "connection",
            "since",
        ],
    ),
    (
        "network_service_endpoints",
        &["name", "services", "url", "registered_at", "expires"],
    ),
    ("network_services", &["name", "payload"]),
    (
        "peers",
        &[
            "name",
            "state",
            "direction",
            "prefixes",
            "rtt_us",
            "attempts",
            "since_ms",
            "last_error",
        ],
    ),
    (
        "prefix_servers",
        &["server", "connected", "prefixes.prefix", "last_error"],
    ),
    (
        "prefixes",
        &["prefix", "owner", "connected", "since", "expires"],
    ),
];

/// A status for people: single values first, then a table for each list.
fn text(address: &str, status: &Value, now: SystemTime) -> String {
    let mut text = format!("{address}\n");
    let fields = || status.as_object().into_iter().flatten();
    for (key, value) in fields().filter(|(_, value)| !is_table(value)) {
        let cell = cell(key, value, now);
        writeln!(text, "  {key}: {cell}").expect("a String takes all text");
    }
    for (key, value) in fields() {
        if let Some(rows) = value.as_array().filter(|_| is_table(value)) {
            writeln!(text, "  {key} ({})", rows.len()).expect("a String takes all text");
            text += &table(&columns(key, rows), rows, now);
        }
    }
    text
}

fn is_table(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|rows| rows.iter().any(Value::is_object))
}

/// The columns of a table that is known, or each key that any row has.
fn columns(name: &str, rows: &[Value]) -> Vec<String> {
    let known = TABLES.iter().find(|(table, _)| *table == name);
    let columns: Vec<String> = if let Some((_, columns)) = known {
        columns.iter().map(|&column| column.to_owned()).collect()
    } else {
        let rows = rows.iter().filter_map(Value::as_object);
        let mut keys: Vec<_> = rows.flat_map(|row| row.keys().cloned()).collect();
        keys.sort();
        keys.dedup();
        keys
    };
    let has = |column: &String| rows.iter().any(|row| !is_nothing(&at(row, column)));
    columns.into_iter().filter(has).collect()
}

/// What a row has at a path; of a list, what each item has.
fn at(row: &Value, path: &str) -> Value {
    path.split('.')
        .fold(row.clone(), |value, key| match &value {
            Value::Array(items) => items.iter().map(|item| item[key].clone()).collect(),
            _ => value[key].clone(),
        })
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn table(columns: &[String], rows: &[Value], now: SystemTime) -> String {
    let head: Vec<String> = columns.iter().map(|column| heading(column)).collect();
    let line = |row: &Value| -> Vec<String> {
        let cells = columns.iter();
        cells.map(|key| cell(key, &at(row, key), now)).collect()
    };
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows.iter().map(line)).collect();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).filter_map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(text, "    {}", line.trim_end()).expect("a String takes all text");
    }
    text
}

/// A column's name: the path without what the cells say anyway.
fn heading(path: &str) -> String {
    let path = path.strip_suffix(".name").unwrap_or(path);
    let name = path.rsplit('.').next().unwrap_or(path);
    let name = name.strip_suffix("_us").unwrap_or(name);
    let name = name.strip_suffix("_ms").unwrap_or(name);
    name.replace('_', " ")
}

/// A value for people; its key says what a number is.
fn cell(key: &str, value: &Value, now: SystemTime) -> String {
    match value {
        Value::Null => "-".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Number(number) => match number.as_u64() {
            Some(us) if key.ends_with("_us") => format!("{}.{:03} ms", us / 1000, us % 1000),
            Some(ms) if key.ends_with("_ms") => duration(Duration::from_millis(ms)),
            _ => number.to_string(),
        },
        Value::String(text) => match humantime::parse_rfc3339(text) {
            Ok(time) => age(time, now),
            Err(_) => text.clone(),
        },
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) => {
            let cells = items.iter().map(|item| cell(key, item, now));
            cells.collect::<Vec<_>>().join(",")
        }
        Value::Object(fields) => {
            let pairs = fields.iter();
            let pairs = pairs.map(|(key, value)| format!("{key}={}", cell(key, value, now)));
            pairs.collect::<Vec<_>>().join(" ")
        }
    }
}

/// A time as seen from now: `3m 2s ago`, `in 9m 59s`.
fn age(time: SystemTime, now: SystemTime) -> String {
    match now.duration_since(time) {
        Ok(ago) => format!("{} ago", duration(ago)),
        Err(ahead) => format!("in {}", duration(ahead.duration())),
    }
}

/// Whole seconds, in the two largest units.
fn duration(time: Duration) -> String {
    let whole = humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
    whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn shown(status: &Value) -> String {
        text("unix:///a", status, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn lists_become_tables_and_the_rest_lines() {
        let status = json!({
            "name": "nse-1",
            "ready": true,
            "prefixes": ["10.0.0.0/24"],
            "peers": [{"name": "nse-2", "state": "linked"}, {"name": "nse-3", "rtt_us": 40}],
            "routes": [],
        });
        let text = shown(&status);
        for line in [
            "  name: nse-1\n",
            "  ready: yes\n",
            "  prefixes: 10.0.0.0/24\n",
            "  peers (2)\n",
            "    name   state   rtt\n",
            "    nse-3  -       0.040 ms\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
    }

    #[test]
    fn a_time_is_shown_as_its_distance_from_now() {
        let at = |offset: i64| {
            let time = NOW.saturating_add_signed(offset);
            humantime::format_rfc3339(UNIX_EPOCH + Duration::from_secs(time)).to_string()
        };
        let status = json!({"prefixes": [
            {"prefix": "10.0.0.0/24", "owner": "nse", "connected": true, "since": at(-182), "expires": at(599)},
        ]});
        let text = shown(&status);
        let row = "10.0.0.0/24  nse    yes        3m 2s ago  in 9m 59s\n";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn a_row_is_shown_without_what_nobody_reads() {
        let client = json!({"id": "x", "name": "nsc-ant-0", "service": "vl3"});
        let lease =
            json!({"prefix": "10.0.0.1/32", "client": client, "connection": "c", "extra": false});
        let text = shown(&json!({"leases": [lease]}));
        assert!(
            text.contains("    prefix       client     service  connection\n"),
            "{text}"
        );
        assert!(
            text.contains("    10.0.0.1/32  nsc-ant-0  vl3      c\n"),
            "{text}"
        );
    }

    #[test]
    fn a_table_that_is_not_known_has_a_column_for_each_key() {
        let text = shown(&json!({"things": [{"b": 1}, {"a": [1, 2], "since_ms": 61_500}]}));
        assert!(text.contains("    a    b  since\n"), "{text}");
        assert!(text.contains("    1,2  -  1m 1s\n"), "{text}");
    }
}
