//! What this node can do, found out by trying.

use std::process::ExitCode;

use anyhow::{Context, Result};
use carrick_agent::Capability;
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
    let tried = tokio::task::spawn_blocking(carrick_agent::preflight).await;
    let tried = tried.context("an attempt panicked")?;
    print!(
        "{}",
        if args.json {
            as_json(&tried)?
        } else {
            as_text(&tried)
        }
    );
    let all = tried.iter().all(Capability::is_there);
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn as_text(tried: &[Capability]) -> String {
    let width = tried
        .iter()
        .map(|capability| capability.name.len())
        .max()
        .unwrap_or(0);
    let line = |capability: &Capability| {
        let Capability {
            name,
            purpose,
            missing,
        } = capability;
        match missing {
            None => format!("ok       {name:<width$}  {purpose}\n"),
            Some(why) => format!("missing  {name:<width$}  {purpose}: {why}\n"),
        }
    };
    tried
        .iter()
        .map(line)
        .fold(String::new(), |text, line| text + &line)
}

fn as_json(tried: &[Capability]) -> Result<String> {
    let rows = tried.iter().map(|capability| {
        json!({
            "name": capability.name,
            "purpose": capability.purpose,
            "ok": capability.is_there(),
            "missing": capability.missing.as_ref().map(ToString::to_string),
        })
    });
    Ok(serde_json::to_string_pretty(&rows.collect::<Vec<_>>())? + "\n")
}
