//! pending
use std::process::ExitCode;
use anyhow::Result;
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
pub(crate) async fn run(_: Args) -> Result<ExitCode> { anyhow::bail!("pending") }
