use std::process::ExitCode;

use anyhow::Result;

pub(crate) const VARIABLES: &[carrick_config::Variable] = &[];

pub(crate) fn help() -> String {
    super::settings(VARIABLES)
}

pub(crate) async fn run() -> Result<ExitCode> {
    anyhow::bail!("pending")
}
