use std::process::ExitCode;

use anyhow::Result;
use carrick_config::Env;
use carrick_nsc::{Config, VARIABLES};

use super::{settings, told};

pub(crate) fn help() -> String {
    settings(VARIABLES)
}

pub(crate) async fn run() -> Result<ExitCode> {
    let config = Config::read(&Env).map_err(told)?;
    let outcome = carrick_nsc::run(config).await?;
    Ok(ExitCode::from(outcome.exit_code()))
}
