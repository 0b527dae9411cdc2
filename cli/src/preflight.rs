//! What this node can do, found out by trying.

use std::process::ExitCode;

use anyhow::{Context, Result};
use carrick_agent::Capability;
use carrick_lb::preflight::{Ability, Way};
use serde_json::json;

/// What `carrick preflight` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Says what is there; the exit code is 0 if nothing is missing.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let tried = tokio::task::spawn_blocking(rows).await;
    let tried = tried.context("an attempt panicked")?;
    print!(
        "{}",
        if args.json {
            as_json(&tried)?
        } else {
            as_text(&tried)
        }
    );
    let all = tried.iter().all(|row| row.missing.is_none());
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Something that may be there.
struct Row {
    name: String,
    purpose: &'static str,
    missing: Option<String>,
    /// Ways of which one is enough, each with what is in it.
    ways: Vec<Way>,
}

/// What endpoints and agents need, and what balancers can do, mode by mode.
fn rows() -> Vec<Row> {
    let nodes = carrick_agent::preflight().into_iter().map(node);
    let balancers = carrick_lb::preflight::preflight().into_iter().map(balancer);
    nodes.chain(balancers).collect()
}

fn node(capability: Capability) -> Row {
    Row {
        name: capability.name.to_owned(),
        purpose: capability.purpose,
        missing: capability.missing.map(|why| why.to_string()),
        ways: Vec::new(),
    }
}

fn balancer(ability: Ability) -> Row {
    let none = (!ability.is_there()).then(|| "no data plane can do it".to_owned());
    Row {
        name: format!("balancing, mode {}", ability.mode),
        purpose: ability.purpose,
        missing: none,
        ways: ability.ways,
    }
}

fn as_text(tried: &[Row]) -> String {
    let names = tried.iter().map(|row| row.name.len());
    let width = names.max().unwrap_or(0);
    let line = |text: String, row: &Row| {
        let Row {
            name,
            purpose,
            missing,
            ways,
        } = row;
        let first = match missing {
            None => format!("ok       {name:<width$}  {purpose}\n"),
            Some(why) => format!("missing  {name:<width$}  {purpose}: {why}\n"),
        };
        let ways = ways.iter().map(|way| {
            let missing = way.missing.as_deref();
            let (yes, why) =
                missing.map_or(("by", String::new()), |why| ("not by", format!(": {why}")));
            format!("           {yes} {}{why}\n", way.plane)
        });
        ways.fold(text + &first, |text, way| text + &way)
    };
    tried.iter().fold(String::new(), line)
}

fn as_json(tried: &[Row]) -> Result<String> {
    let rows = tried.iter().map(|row| {
        json!({
            "name": row.name,
            "purpose": row.purpose,
            "ok": row.missing.is_none(),
            "missing": row.missing,
            "ways": row.ways.iter().map(way).collect::<Vec<_>>(),
        })
    });
    Ok(serde_json::to_string_pretty(&rows.collect::<Vec<_>>())? + "\n")
}

fn way(way: &Way) -> serde_json::Value {
    json!({
        "plane": way.plane,
        "ok": way.missing.is_none(),
        "missing": way.missing,
    })
}
