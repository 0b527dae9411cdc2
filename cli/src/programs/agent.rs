use std::process::ExitCode;

use anyhow::Result;

pub(crate) fn help() -> String {
    String::new()
}

pub(crate) async fn run() -> Result<ExitCode> {
    anyhow::bail!("pending")
}
