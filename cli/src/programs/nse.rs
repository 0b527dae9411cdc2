use std::process::ExitCode;

use anyhow::{Context, Result};
use carrick_config::Env;
use carrick_lifecycle::UnixSignals;
use carrick_nse::Config;
use carrick_nse::config::VARIABLES;
use carrick_telemetry::Options;

use super::{settings, told, with_telemetry};

/// What `carrick nse` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Check the settings and end: 0 if they are right, 1 if not. Touches nothing.
    #[arg(long)]
    verify: bool,
}

pub(crate) fn help() -> String {
    settings(VARIABLES)
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let config = Config::read(&Env).map_err(told)?;
    if args.verify {
        println!("{config:#?}");
        return Ok(ExitCode::SUCCESS);
    }
    let telemetry = Options::new("nse", config.name.as_str(), &config.observability);
    with_telemetry(telemetry, async {
        let signals = UnixSignals::new().context("cannot receive signals")?;
        Ok(carrick_nse::run(config, signals).await?)
    })
    .await
}
