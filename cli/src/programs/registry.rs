use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use carrick_config::{
    Env, LOG_LEVEL, METRICS_EXPORT_INTERVAL, OPEN_TELEMETRY_ENDPOINT, Observability, PPROF_ENABLED,
    PPROF_LISTEN_ON, Reader, SPIFFE_ENDPOINT_SOCKET, TELEMETRY, Variable, duration, list,
    optional_path, text,
};
use carrick_grpc::{
    Health, Security, SecuritySettings, ServerOptions, TokenOptions, Url, listen, serve,
};
use carrick_lifecycle::{Lifecycle, Outcome, UnixSignals};
use carrick_registry::{EndpointQuery, Server, ServiceQuery};
use carrick_telemetry::{Address, Admin, Metrics, Options, Outlets, Readiness};
use carrick_types::Invalid;
use serde_json::json;
use tracing::{info, warn};

use super::{settings, told, with_telemetry};

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
        meaning: "Whether plaintext over TCP is allowed; loudly logged. Not together with `SPIFFE_ENDPOINT_SOCKET`.",
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
    SPIFFE_ENDPOINT_SOCKET,
    LOG_LEVEL,
    TELEMETRY,
    OPEN_TELEMETRY_ENDPOINT,
    METRICS_EXPORT_INTERVAL,
    PPROF_ENABLED,
    PPROF_LISTEN_ON,
];

struct Config {
    security: SecuritySettings,
    name: String,
    listen_on: Vec<Url>,
    expire: Duration,
    state_dir: Option<PathBuf>,
    admin: Option<Address>,
    observability: Observability,
}

pub(crate) fn help() -> String {
    settings(VARIABLES)
}

fn read() -> Result<Config> {
    let mut r = Reader::new(&Env, VARIABLES);
    let listen_on = r.read("NSM_LISTEN_ON", list(str::parse::<Url>));
    let security = super::security(&mut r);
    if let (Some(urls), Some(SecuritySettings::UnixOnly)) = (&listen_on, &security) {
        super::refuse_plaintext(&mut r, "NSM_LISTEN_ON", urls);
    }
    let config = (|r: &mut Reader<'_>| {
        Some(Config {
            name: r.read("NSM_NAME", text)?,
            expire: r.read("NSM_EXPIRE_PERIOD", duration)?,
            state_dir: r.read("CARRICK_STATE_DIR", optional_path)?,
            admin: r.read("CARRICK_ADMIN", super::optional_address)?,
            observability: Observability::read(r)?,
            listen_on: listen_on?,
            security: security?,
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
    let options = Options::new("registry", &config.name, &config.observability);
    with_telemetry(options, serve_registry(config)).await
}

async fn serve_registry(config: Config) -> Result<Outcome> {
    let store = super::store(config.state_dir.as_deref(), &config.name)?;
    let limits = carrick_registry::Limits {
        period: config.expire,
        ..Default::default()
    };
    let security = Security::new(&config.security, &TokenOptions::default());
    let options = carrick_registry::ServerOptions {
        store: Some(store.clone()),
        tokens: security.tokens(),
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
    super::tell_identity(&security, &readiness, &grpc);
    let metrics = Metrics::new();
    metrics.section("registry", |section| server.register(section));
    metrics.section("store", |section| store.register(section));
    metrics.section("tls", |section| security.register(section));
    let outlets = Outlets::new("registry", &config.name, &config.observability);
    let told = outlets.run(metrics.clone(), admin.token());
    admin.spawn("metrics and profiles", told);
    let state = config.state_dir.as_deref();
    let admin_address = super::admin_address(config.admin.clone(), state, &config.name);
    if let Some(address) = &admin_address {
        let (services, endpoints) = (Arc::clone(&server), Arc::clone(&server));
        let secured = security.clone();
        let bound = Admin::new(metrics, readiness)
            .with_status("security", move || json!(secured.status()))
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
        let listener = listen(url, &security).await?;
        if security.is_insecure() && matches!(url, Url::Tcp { .. }) {
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
