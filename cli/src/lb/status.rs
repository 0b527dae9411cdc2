use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use crate::status::{ask, ask_all};

/// What `carrick lb status` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The balancer's admin listener: `unix:///path` or `tcp://address:port`. Without
    /// it every balancer is shown that has a socket, `<name>.admin`, in /run/carrick.
    #[arg(long, value_name = "URL")]
    admin: Option<carrick_telemetry::Address>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let found = match &args.admin {
        Some(address) => vec![(address.to_string(), ask(&address.to_string()).await?)],
        None => ask_all().await?,
    };
    let balancers: Vec<_> = found
        .into_iter()
        .filter(|(_, status)| status["balancer"].is_object())
        .collect();
    anyhow::ensure!(
        !balancers.is_empty(),
        "no load balancer answers; name its admin listener with --admin"
    );
    if args.json {
        let all: serde_json::Map<String, Value> = balancers.into_iter().collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        for (address, status) in balancers {
            print!("{}", text(&address, &status));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text(address: &str, status: &Value) -> String {
    let balancer = &status["balancer"];
    let mut text = String::new();
    let ready = if status["ready"] == true {
        "ready"
    } else {
        "not ready"
    };
    let _ = writeln!(
        text,
        "{} ({address}), {}, {ready}",
        shown(&status["name"]),
        shown(&balancer["dataplane"])
    );
    for service in rows(&balancer["services"]) {
        let (name, policy, mode) = (&service["name"], &service["policy"], &service["mode"]);
        let _ = writeln!(
            text,
            "\nservice {}: {}, {}",
            shown(name),
            shown(policy),
            shown(mode)
        );
        let columns = [
            "prefix",
            "protocols",
            "ports",
            "new_flows",
            "packets",
            "bytes",
        ];
        text += &table("VIP", &rows(&service["vips"]), &columns);
        let columns = [
            "id",
            "address",
            "state",
            "weight",
            "slots",
            "flows",
            "new_flows",
            "packets",
            "bytes",
        ];
        text += &table("server", &rows(&service["servers"]), &columns);
    }
    let reasons = balancer["reasons"].as_object();
    if let Some(reasons) = reasons.filter(|reasons| !reasons.is_empty()) {
        text += "\npackets by reason\n";
        for (reason, count) in reasons {
            let _ = writeln!(text, "  {count:>12}  {reason}");
        }
    }
    if let Some(error) = balancer["error"].as_str() {
        let _ = writeln!(text, "\n{error}");
    }
    text
}

fn rows(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn shown(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Rows below their headings; the first heading is `name`'s.
fn table(name: &str, rows: &[Value], columns: &[&str]) -> String {
    let heading = columns.iter().enumerate().map(|(n, column)| match n {
        0 => name.to_owned(),
        _ => column.replace('_', " "),
    });
    let mut lines = vec![heading.collect::<Vec<_>>()];
    lines.extend(
        rows.iter()
            .map(|row| columns.iter().map(|c| shown(&row[*c])).collect()),
    );
    let width = |n: usize| {
        lines
            .iter()
            .map(|line| line[n].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn vips_servers_and_reasons_are_shown() {
        let status = json!({
            "name": "front", "ready": true,
            "balancer": {
                "dataplane": "ebpf",
                "services": [{
                    "name": "web", "policy": "maglev", "mode": "ipip",
                    "vips": [{"prefix": "10.0.0.1/32", "protocols": "tcp", "ports": "80",
                              "new_flows": 3, "packets": 12, "bytes": 900}],
                    "servers": [{"id": "a", "address": "192.0.2.1", "state": "draining", "weight": 0,
                                 "slots": 0, "flows": 2, "new_flows": 3, "packets": 12, "bytes": 900}],
                }],
                "reasons": {"not_vip": 7},
            },
        });
        let text = text("unix:///run/carrick/front.admin", &status);
        for expected in [
            "front",
            "ebpf",
            "web: maglev, ipip",
            "10.0.0.1/32",
            "draining",
            "7  not_vip",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
