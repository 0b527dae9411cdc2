//! The programs: settings, logs, run, exit code.

pub(crate) mod agent;
#[cfg(test)]
mod dropin;
pub(crate) mod ipam;
pub(crate) mod nsc;
pub(crate) mod nse;
pub(crate) mod registry;

use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use carrick_config::{Env, Mistakes, Reader, Source, Variable, boolean};
use carrick_grpc::{Security, SecuritySettings, Url, workload_api};
use carrick_lifecycle::{Outcome, Subsystem};
use carrick_store::Store;
use carrick_telemetry::{Address, Options, Readiness, Telemetry};
use carrick_types::Invalid;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Longest time to send the last traces.
const FLUSH: Duration = Duration::from_secs(2);

/// Runs a program to its end.
pub(crate) fn runtime(program: impl Future<Output = Result<ExitCode>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let done = runtime
        .context("cannot start the runtime")
        .and_then(|runtime| {
            let done = runtime.block_on(program);
            // A task that blocks its thread must not keep the process.
            runtime.shutdown_timeout(Duration::from_millis(200));
            done
        });
    done.unwrap_or_else(|error| {
        eprintln!("carrick: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs a program with its logs and traces set up.
pub(crate) async fn with_telemetry(
    options: Options,
    program: impl Future<Output = Result<Outcome>>,
) -> Result<ExitCode> {
    let telemetry = Telemetry::install(&options).context("cannot set up logs and traces")?;
    let stop = CancellationToken::new();
    let signals = telemetry.level().follow_signals(stop.clone());
    let signals = tokio::spawn(signals);
    let outcome = program.await;
    stop.cancel();
    let _ = signals.await;
    let code = outcome.map(|outcome| {
        info!(cause = %outcome.cause, "ended");
        for left in &outcome.left {
            error!(left = ?left, "not ended in order");
        }
        ExitCode::from(outcome.exit_code())
    });
    telemetry
        .shutdown(FLUSH)
        .await
        .context("the last traces were not sent")?;
    code
}

/// Logs and traces of programs that have no table of settings.
pub(crate) fn common(name: &str) -> Options {
    let endpoint = Env.text("NSM_OPEN_TELEMETRY_ENDPOINT");
    let on = Env
        .text("TELEMETRY")
        .is_some_and(|text| boolean(&text).unwrap_or(false));
    Options {
        service: name.to_owned(),
        instance: Env.text("NSM_NAME").unwrap_or_else(|| name.to_owned()),
        log_level: Env.text("NSM_LOG_LEVEL").unwrap_or_default(),
        traces: endpoint.filter(|_| on),
        ..Options::default()
    }
}

/// The settings as they stand at the end of `--help`.
pub(crate) fn settings(variables: &[Variable]) -> String {
    let lines = variables.iter().map(|variable| {
        let default = match variable.default {
            "" => String::new(),
            default => format!(" [default: {default}]"),
        };
        format!("  {}{default}\n      {}", variable.name, variable.meaning)
    });
    format!(
        "Settings (environment):\n{}",
        lines.collect::<Vec<_>>().join("\n")
    )
}

/// Mistakes as they are told: all of them, without the chain's colons.
pub(crate) fn told(mistakes: Mistakes) -> anyhow::Error {
    anyhow::Error::new(mistakes)
}

/// Opens the durable state of a program, `<dir>/<name>.redb`, or one in memory.
pub(crate) fn store(dir: Option<&Path>, name: &str) -> Result<Store> {
    let store = match dir {
        Some(dir) => Store::open(&dir.join(format!("{}.redb", name.replace('/', "_")))),
        None => Store::in_memory(),
    };
    store.context("cannot use the durable state")
}

/// Where the admin listener of a program is: as its settings say, else beside
/// its state, where it has one.
pub(crate) fn admin_address(
    set: Option<Address>,
    state: Option<&Path>,
    name: &str,
) -> Option<Address> {
    let file = format!("{}.admin", name.replace('/', "_"));
    set.or_else(|| Some(Address::Unix(state?.join(file))))
}

/// An admin listener's address; empty is none.
pub(crate) fn optional_address(text: &str) -> Result<Option<Address>, Invalid> {
    let expected = "tcp://address:port or unix:///path";
    let parse = |text: &str| text.parse().map_err(|_| Invalid::new("", text, expected));
    Some(text)
        .filter(|text| !text.is_empty())
        .map(parse)
        .transpose()
}

/// Remembers a mistake for plaintext over TCP that was not asked for.
pub(crate) fn refuse_plaintext(reader: &mut Reader<'_>, variable: &str, urls: &[Url]) {
    if let Some(url) = urls.iter().find(|url| matches!(url, Url::Tcp { .. })) {
        reader.mistake(SecuritySettings::plaintext(variable, url));
    }
}

/// How connections are secured, of `NSM_INSECURE` and `SPIFFE_ENDPOINT_SOCKET`.
pub(crate) fn security(reader: &mut Reader<'_>) -> Option<SecuritySettings> {
    let insecure = reader.read("NSM_INSECURE", boolean);
    let endpoint = reader.read("SPIFFE_ENDPOINT_SOCKET", workload_api);
    let settings = SecuritySettings::new(insecure?, endpoint?);
    settings.map_err(|mistake| reader.mistake(mistake)).ok()
}

/// Without an identity a program cannot serve, where it should have one.
pub(crate) fn tell_identity(security: &Security, readiness: &Readiness, tasks: &Subsystem) {
    if security.source().is_none() {
        return;
    }
    let condition = readiness.condition("identity");
    let told = security.clone().tell_usable(move |usable| match usable {
        Ok(()) => condition.met(),
        Err(none) => condition.unmet(none),
    });
    let stop = tasks.token();
    tasks.spawn("identity", async move {
        stop.run_until_cancelled(told).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page is made of the tables that the programs read by: if this fails,
    /// write it anew with `CARRICK_WRITE_DOCS=1 cargo test -p carrick`.
    #[test]
    fn the_settings_are_documented_as_they_are_read() {
        let tables = [
            ("nse", carrick_nse::config::VARIABLES),
            ("nsc", carrick_nsc::VARIABLES),
            ("ipam", ipam::VARIABLES),
            ("registry", registry::VARIABLES),
            ("agent", agent::VARIABLES),
            ("lb vl3", crate::lb::vl3::VARIABLES),
        ];
        let mut page = String::from(INTRODUCTION);
        for (program, variables) in tables {
            let table = carrick_config::markdown(variables);
            page = page + "\n## carrick " + program + "\n\n" + &table;
        }
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        if Env.text("CARRICK_WRITE_DOCS").is_some() {
            std::fs::write(file, &page).unwrap();
        }
        assert!(
            std::fs::read_to_string(file).unwrap() == page,
            "docs/configuration.md is not up to date"
        );
    }

    /// A row of the features' page that names a test which is not there would be
    /// a claim that nobody checks.
    #[test]
    fn every_feature_is_shown_by_a_test_that_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let page = std::fs::read_to_string(root.join("docs/features.md")).unwrap();
        let mut sources = String::new();
        read_sources(&root, &mut sources);
        let rows = page.lines().filter(|line| line.starts_with("| "));
        let named = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
        let tests = named.filter(|name| name.matches('_').count() > 2 && !name.contains(' '));
        let missing: Vec<_> = tests
            .filter(|name| !name.starts_with("CARRICK_"))
            .filter(|name| !sources.contains(&format!("fn {name}(")))
            .filter(|name| !sources.contains(&format!("func {name}(")))
            .collect();
        assert!(
            missing.is_empty(),
            "docs/features.md names tests that are not there: {missing:?}"
        );
    }

    fn read_sources(dir: &Path, text: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                read_sources(&path, text);
            } else if name.ends_with(".rs") || name.ends_with(".go") {
                *text += &std::fs::read_to_string(&path).unwrap();
            }
        }
    }

    const INTRODUCTION: &str = "# Configuration

Settings come from the environment. Names without `CARRICK_` are those of NSM's programs, with their meaning. A variable that is set to nothing is
nothing, not its default. All mistakes are told at one start. Times have their unit (`200ms`, `15s`, `10m`); lists have commas.
";
}
