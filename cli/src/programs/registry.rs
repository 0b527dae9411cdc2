use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use carrick_config::{
    Env, LOG_LEVEL, OPEN_TELEMETRY_ENDPOINT, Reader, TELEMETRY, Variable, boolean, duration, list,
    optional_path, text,
};
use carrick_grpc::{Health, Security, ServerOptions, Url, listen, serve};
use carrick_lifecycle::{Lifecycle, Outcome, UnixSignals};
use carrick_policy::{Policies, Refusals};
use carrick_registry::{EndpointQuery, Server, ServiceQuery};
use carrick_telemetry::{Address, Admin, Metrics, Readiness};
use carrick_types::Invalid;
use serde_json::json;
use tracing::{info, warn};

use super::{common, settings, told, with_telemetry};

pub(crate) const VARIABLES: &[Variable] = &[
    Variable {
        name: "NSM_NAME",
        default: "registry",
        meaning: "Name of the registry, also of its file.",
    },
    Variable {
        name: "NSM_LISTEN_ON",
        default: "unix:///run/carrick/registry.sock",
        meaning: "Where to listen, URLs with commas between them.",
    },
    Variable {
        name: "NSM_INSECURE",
        default: "false",
        meaning: "Whether plaintext over TCP is allowed; loudly logged.",
    },
    Variable {
        name: "NSM_REGISTRY_SERVER_POLICIES",
        default: Policies::REGISTRY_SERVER,
        meaning: "Policies about who registers: paths of files or regular expressions for them, with commas between them. NSM's own are built in; a file with the path of one replaces it. Empty: none. Asked over TLS only.",
    },
    Variable {
        name: "NSM_EXPIRE_PERIOD",
        default: "1m",
        meaning: "How long an endpoint is kept that is not registered again.",
    },
    Variable {
        name: "CARRICK_STATE_DIR",
        default: "/var/lib/carrick",
        meaning: "Directory of the durable state. Empty: in memory only.",
    },
    Variable {
        name: "CARRICK_ADMIN",
        default: "",
        meaning: "Where `/metrics`, `/healthz`, `/readyz` and `/status` are served, a URL. Empty: `<name>.admin` in `CARRICK_STATE_DIR`; without one, nowhere.",
    },
    LOG_LEVEL,
    TELEMETRY,
    OPEN_TELEMETRY_ENDPOINT,
];

struct Config {
    insecure: bool,
    name: String,
    listen_on: Vec<Url>,
    expire: Duration,
    policies: Vec<String>,
    state_dir: Option<PathBuf>,
    admin: Option<Address>,
}

pub(crate) fn help() -> String {
    settings(VARIABLES)
}

fn read() -> Result<Config> {
    let mut r = Reader::new(&Env, VARIABLES);
    let listen_on = r.read("NSM_LISTEN_ON", list(str::parse::<Url>));
    let insecure = r.read("NSM_INSECURE", boolean);
    if let (Some(urls), Some(false)) = (&listen_on, insecure) {
        super::refuse_plaintext(&mut r, "NSM_LISTEN_ON", urls);
    }
    let config = (|r: &mut Reader<'_>| {
        Some(Config {
            name: r.read("NSM_NAME", text)?,
            expire: r.read("NSM_EXPIRE_PERIOD", duration)?,
            policies: r.read("NSM_REGISTRY_SERVER_POLICIES", list(text))?,
            state_dir: r.read("CARRICK_STATE_DIR", optional_path)?,
            admin: r.read("CARRICK_ADMIN", super::optional_address)?,
            listen_on: listen_on?,
            insecure: insecure?,
        })
    })(&mut r);
    if config
        .as_ref()
        .is_some_and(|config| config.listen_on.is_empty())
    {
        r.mistake(Invalid::new("NSM_LISTEN_ON", "", "at least one URL"));
    }
    r.finish(config).map_err(told)
}

pub(crate) async fn run() -> Result<ExitCode> {
    let config = read()?;
    with_telemetry(common("registry"), serve_registry(config)).await
}

async fn serve_registry(config: Config) -> Result<Outcome> {
    let store = super::store(config.state_dir.as_deref(), &config.name)?;
    let limits = carrick_registry::Limits {
        period: config.expire,
        ..Default::default()
    };
    let (metrics, refusals) = (Metrics::new(), Refusals::default());
    metrics.section("policy", |section| refusals.register(section));
    let policies = Policies::load(&config.policies, Path::new(""));
    let policies = policies.context("cannot use the policies (NSM_REGISTRY_SERVER_POLICIES)")?;
    let options = carrick_registry::ServerOptions {
        store: Some(store.clone()),
        policies: policies.counted(&refusals),
        limits,
        ..Default::default()
    };
    let server = Arc::new(Server::start(options).context("cannot read the stored registry")?);
    let mut lifecycle = Lifecycle::new(Duration::from_secs(10));
    let grpc = lifecycle.subsystem("server", Duration::from_secs(6));
    let records = lifecycle.subsystem("records", Duration::from_secs(2));
    let admin = lifecycle.subsystem("admin", Duration::from_secs(1));

    let readiness = Readiness::new();
    let listening = readiness.condition("listening");
    metrics.section("registry", |section| server.register(section));
    metrics.section("store", |section| store.register(section));
    let state = config.state_dir.as_deref();
    let admin_address = super::admin_address(config.admin.clone(), state, &config.name);
    if let Some(address) = &admin_address {
        let (services, endpoints) = (Arc::clone(&server), Arc::clone(&server));
        let bound = Admin::new(metrics, readiness)
            .with_status("network_services", move || {
                json!(services.services(&ServiceQuery::default()))
            })
            .with_status("network_service_endpoints", move || {
                json!(endpoints.endpoints(&EndpointQuery::default()))
            })
            .bind(address)
            .await
            .context("cannot open the admin listener")?;
        let stop = admin.token();
        admin.spawn_fatal("admin listener", bound.serve(stop));
    }
    let health = Health::new(Server::SERVICES).await;
    for url in &config.listen_on {
        let listener = listen(url, &Security::plaintext(config.insecure)).await?;
        if matches!(url, Url::Tcp { .. }) {
            warn!(%url, "NSM_INSECURE is true: neither encrypted nor authenticated");
        }
        info!(url = %listener.url(), "listening");
        let (routes, stop) = (server.beside(health.routes()), grpc.token());
        grpc.spawn_fatal("gRPC server", async move {
            serve(listener, routes, &ServerOptions::default(), stop).await
        });
    }
    listening.met();
    health.set_ready(true).await;
    records.at_shutdown("records", async move {
        let written = server.shutdown(Duration::from_secs(2)).await;
        written
            .then_some(())
            .ok_or_else(|| std::io::Error::other("not everything was written"))
    });
    let signals = UnixSignals::new().context("cannot receive signals")?;
    Ok(lifecycle.run(signals).await)
}
