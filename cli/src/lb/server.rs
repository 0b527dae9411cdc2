//! The application server's side.

use std::process::ExitCode;

use anyhow::{Result, bail};

/// What `carrick lb server` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args) -> Result<ExitCode> {
    bail!("not yet")
}

pub(super) fn remove() -> Result<()> {
    Ok(())
}
