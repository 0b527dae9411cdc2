use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use carrick_agent::{Kernel, Server};
use carrick_config::{Env, Reader, Variable, list, number};
use carrick_grpc::Url;
use carrick_lifecycle::{Lifecycle, Outcome, UnixSignals};
use carrick_types::Invalid;
use tracing::info;

use super::{common, settings, told, with_telemetry};

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
        name: "NSM_LOG_LEVEL",
        default: "INFO",
        meaning: "`TRACE`, `DEBUG`, `INFO`, `WARN` or `ERROR`; SIGUSR1 sets TRACE, SIGUSR2 sets it back.",
    },
    Variable {
        name: "TELEMETRY",
        default: "false",
        meaning: "Whether traces are sent.",
    },
    Variable {
        name: "NSM_OPEN_TELEMETRY_ENDPOINT",
        default: "otel-collector.observability.svc.cluster.local:4317",
        meaning: "Where traces are sent (OTLP over gRPC).",
    },
];

pub(crate) fn help() -> String {
    settings(VARIABLES)
}

fn read() -> Result<(PathBuf, Vec<u32>)> {
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
    r.finish(socket.zip(groups)).map_err(told)
}

pub(crate) async fn run() -> Result<ExitCode> {
    let (socket, groups) = read()?;
    with_telemetry(common("agent"), serve(socket, groups)).await
}

async fn serve(socket: PathBuf, groups: Vec<u32>) -> Result<Outcome> {
    let kernel = Kernel::new().context("cannot talk to the kernel")?;
    let server = Server::listen(&socket, groups, Arc::new(kernel))?;
    info!(socket = %socket.display(), "listening");
    let mut lifecycle = Lifecycle::new(Duration::from_secs(10));
    let calls = lifecycle.subsystem("calls", Duration::from_secs(8));
    let stop = calls.token();
    calls.spawn_fatal("agent", server.serve(stop.cancelled_owned()));
    let signals = UnixSignals::new().context("cannot receive signals")?;
    Ok(lifecycle.run(signals).await)
}
