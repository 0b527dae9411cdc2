use std::process::ExitCode;

use anyhow::{Context, Result};
use carrick_config::Env;
use carrick_lifecycle::UnixSignals;
use carrick_nsc::{Config, VARIABLES};

use super::{options, settings, told, with_telemetry};

pub(crate) fn help() -> String {
    settings(VARIABLES)
}

pub(crate) async fn run() -> Result<ExitCode> {
    let config = Config::read(&Env).map_err(told)?;
    let telemetry = options("nsc", &config.name, &config.log_level, config.telemetry.clone());
    with_telemetry(telemetry, async {
        let _signals = UnixSignals::new().context("cannot receive signals")?;
        anyhow::bail!("{config:?}")
    })
    .await
}
