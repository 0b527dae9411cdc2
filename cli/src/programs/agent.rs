use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use carrick_agent::{AgentMetrics, Kernel, Metered, Server};
use carrick_config::{
    Env, LOG_LEVEL, METRICS_EXPORT_INTERVAL, OPEN_TELEMETRY_ENDPOINT, Observability, PPROF_ENABLED,
    PPROF_LISTEN_ON, Reader, TELEMETRY, Variable, list, number,
};
use carrick_grpc::Url;
use carrick_lifecycle::{Lifecycle, Outcome, UnixSignals};
use carrick_telemetry::{Address, Admin, Metrics, Options, Outlets, Readiness};
use carrick_types::Invalid;
use serde_json::json;
use tracing::info;

use super::{settings, told, with_telemetry};

pub(crate) const VARIABLES: &[Variable] = &[
    Variable {
        name: "NSM_LISTEN_ON",
        default: "unix:///run/carrick/agent.sock",
        meaning: "The unix socket to listen on; endpoints name it in `CARRICK_AGENT`.",
    },
    Variable {
        name: "CARRICK_AGENT_GROUPS",
        default: "",
        meaning: "Numbers of the groups whose members may give orders, besides the agent's own user; with commas between them.",
    },
    Variable {
        name: "CARRICK_ADMIN",
        default: "",
        meaning: "Where `/metrics`, `/healthz`, `/readyz` and `/status` are served, a URL. Empty: nowhere.",
    },
    LOG_LEVEL,
    TELEMETRY,
    OPEN_TELEMETRY_ENDPOINT,
    METRICS_EXPORT_INTERVAL,
    PPROF_ENABLED,
    PPROF_LISTEN_ON,
];

pub(crate) fn help() -> String {
    settings(VARIABLES)
}

struct Config {
    socket: PathBuf,
    groups: Vec<u32>,
    admin: Option<Address>,
    observability: Observability,
}

fn read() -> Result<Config> {
    let mut r = Reader::new(&Env, VARIABLES);
    let socket = r.read("NSM_LISTEN_ON", |text| match text.parse() {
        Ok(Url::Unix(path)) if path.is_absolute() => Ok(path),
        _ => Err(Invalid::new(
            "",
            text,
            "a unix socket such as unix:///run/carrick/agent.sock",
        )),
    });
    let groups = r.read(
        "CARRICK_AGENT_GROUPS",
        list(|text| number(0..=u32::MAX)(text)),
    );
    let admin = r.read("CARRICK_ADMIN", super::optional_address);
    let observability = Observability::read(&mut r);
    let config = (|| {
        Some(Config {
            socket: socket?,
            groups: groups?,
            admin: admin?,
            observability: observability?,
        })
    })();
    r.finish(config).map_err(told)
}

pub(crate) async fn run() -> Result<ExitCode> {
    let config = read()?;
    let options = Options::new("agent", "agent", &config.observability);
    with_telemetry(options, serve(config)).await
}

async fn serve(config: Config) -> Result<Outcome> {
    let counted = AgentMetrics::default();
    let kernel = Kernel::new().context("cannot talk to the kernel")?;
    let agent = Arc::new(Metered::new(kernel, counted.clone()));
    let server = Server::listen(&config.socket, config.groups, agent)?;
    info!(socket = %config.socket.display(), "listening");
    let mut lifecycle = Lifecycle::new(Duration::from_secs(10));
    let calls = lifecycle.subsystem("calls", Duration::from_secs(8));
    let admin = lifecycle.subsystem("admin", Duration::from_secs(1));
    let metrics = Metrics::new();
    metrics.section("agent", |section| counted.register(section));
    let outlets = Outlets::new("agent", "agent", &config.observability);
    let told = outlets.run(metrics.clone(), admin.token());
    admin.spawn("metrics and profiles", told);
    if let Some(address) = &config.admin {
        // It serves from the moment its socket is there.
        let bound = Admin::new(metrics, Readiness::new())
            .with_status("socket", move || json!(config.socket))
            .bind(address)
            .await
            .context("cannot open the admin listener")?;
        admin.spawn_fatal("admin listener", bound.serve(admin.token()));
    }
    let stop = calls.token();
    calls.spawn_fatal("agent", server.serve(stop.cancelled_owned()));
    let signals = UnixSignals::new().context("cannot receive signals")?;
    Ok(lifecycle.run(signals).await)
}
