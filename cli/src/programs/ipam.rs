use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use carrick_config::{
    Env, LOG_LEVEL, METRICS_EXPORT_INTERVAL, Mistakes, OPEN_TELEMETRY_ENDPOINT, Observability,
    PPROF_ENABLED, PPROF_LISTEN_ON, Reader, SPIFFE_ENDPOINT_SOCKET, Source, TELEMETRY, Variable,
    duration, list, number, optional_path, prefix, prefixes,
};
use carrick_grpc::{Health, Security, SecuritySettings, TokenOptions, Url, listen, serve};
use carrick_ipam::inspect::{Report, inspect};
use carrick_ipam::server::{Network, Server, ServerOptions};
use carrick_lifecycle::{Lifecycle, Outcome, UnixSignals};
use carrick_telemetry::{Address, Admin, Metrics, Options, Outlets, Readiness};
use carrick_types::{Invalid, Prefix};
use serde::Serialize;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{settings, told, with_telemetry};

pub(crate) const VARIABLES: &[Variable] = &[
    Variable {
        name: "NSM_LISTEN_ON",
        default: "unix:///listen.on.socket",
        meaning: "Where to listen, URLs with commas between them.",
    },
    Variable {
        name: "NSM_PREFIX",
        default: "169.254.0.0/16",
        meaning: "The network that is divided; several, e.g. one for each address family, with commas between them.",
    },
    Variable {
        name: "NSM_CLIENT_PREFIX_LEN",
        default: "24",
        meaning: "Length of an endpoint's prefix in bits; one for each network, or one for all.",
    },
    Variable {
        name: "NSM_INSECURE",
        default: "false",
        meaning: "Whether plaintext over TCP is allowed; loudly logged. Not together with `SPIFFE_ENDPOINT_SOCKET`.",
    },
    Variable {
        name: "CARRICK_LEASE",
        default: "10m",
        meaning: "How long an endpoint's prefix is kept without a sign of the endpoint.",
    },
    Variable {
        name: "CARRICK_ANONYMOUS_GRACE",
        default: "0",
        meaning: "The same for endpoints that do not say who they are, such as NSM's; 0 frees with the stream, as NSM's server does.",
    },
    Variable {
        name: "CARRICK_EXCLUDED_PREFIXES",
        default: "",
        meaning: "Prefixes that are never leased.",
    },
    Variable {
        name: "CARRICK_STATE_DIR",
        default: "/var/lib/carrick",
        meaning: "Directory of the durable state (`ipam.redb`). Empty: in memory only.",
    },
    Variable {
        name: "CARRICK_ADMIN",
        default: "",
        meaning: "Where `/metrics`, `/healthz`, `/readyz` and `/status` are served, a URL. Empty: `ipam.admin` in `CARRICK_STATE_DIR`; without one, nowhere.",
    },
    SPIFFE_ENDPOINT_SOCKET,
    LOG_LEVEL,
    TELEMETRY,
    OPEN_TELEMETRY_ENDPOINT,
    METRICS_EXPORT_INTERVAL,
    PPROF_ENABLED,
    PPROF_LISTEN_ON,
];

/// What `carrick ipam` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what a store says about prefixes and addresses (also an endpoint's).
    List {
        /// The store, e.g. /var/lib/carrick/ipam.redb; of a program that does not run.
        store: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Settings of a prefix server.
#[derive(Debug)]
pub(super) struct Config {
    security: SecuritySettings,
    listen_on: Vec<Url>,
    networks: Vec<Network>,
    lease: Duration,
    anonymous_grace: Duration,
    excluded: Vec<Prefix>,
    state_dir: Option<PathBuf>,
    admin: Option<Address>,
    observability: Observability,
}

pub(crate) fn help() -> String {
    settings(VARIABLES)
}

/// Reads the settings, or tells all mistakes at once.
pub(super) fn read(source: &dyn Source) -> Result<Config, Mistakes> {
    let mut r = Reader::new(source, VARIABLES);
    let listen_on = r.read("NSM_LISTEN_ON", list(str::parse::<Url>));
    let security = super::security(&mut r);
    if let (Some(urls), Some(SecuritySettings::UnixOnly)) = (&listen_on, &security) {
        super::refuse_plaintext(&mut r, "NSM_LISTEN_ON", urls);
    }
    let networks = networks(&mut r);
    let config = (|r: &mut Reader<'_>| {
        Some(Config {
            lease: r.read("CARRICK_LEASE", duration)?,
            anonymous_grace: r.read("CARRICK_ANONYMOUS_GRACE", duration)?,
            excluded: r.read("CARRICK_EXCLUDED_PREFIXES", list(prefix))?,
            state_dir: r.read("CARRICK_STATE_DIR", optional_path)?,
            admin: r.read("CARRICK_ADMIN", super::optional_address)?,
            observability: Observability::read(r)?,
            listen_on: listen_on?,
            security: security?,
            networks: networks?,
        })
    })(&mut r);
    r.finish(config)
}

/// The networks with the length of an endpoint's prefix in each.
fn networks(r: &mut Reader<'_>) -> Option<Vec<Network>> {
    let prefixes = r.read("NSM_PREFIX", masked_prefixes)?;
    let lengths = r.read(
        "NSM_CLIENT_PREFIX_LEN",
        list(|text| number(1..=127_u8)(text)),
    )?;
    if prefixes.is_empty() || !(lengths.len() == 1 || lengths.len() == prefixes.len()) {
        let expected = "one length, or one for each prefix of NSM_PREFIX";
        r.mistake(Invalid::new(
            "NSM_CLIENT_PREFIX_LEN",
            lengths.len(),
            expected,
        ));
        return None;
    }
    let mut networks = Vec::new();
    for (prefix, length) in prefixes.into_iter().zip(lengths.into_iter().cycle()) {
        match Network::new(prefix, length) {
            Ok(network) => networks.push(network),
            Err(mistake) => r.mistake(mistake.within("NSM_CLIENT_PREFIX_LEN")),
        }
    }
    Some(networks)
}

/// Prefixes; bits behind their length are cut off, as NSM's server does it.
fn masked_prefixes(text: &str) -> Result<Vec<Prefix>, Invalid> {
    let masked = list(|text| {
        // An address alone is a mistake, as there.
        if text.contains('/') {
            text.parse()
        } else {
            prefix(text)
        }
    })(text)?;
    let written: Vec<_> = masked.iter().map(Prefix::to_string).collect();
    prefixes(&written.join(","))
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    if let Some(Command::List { store, json }) = args.command {
        let report = inspect(&store)?;
        print!(
            "{}",
            if json {
                serde_json::to_string_pretty(&report)? + "\n"
            } else {
                table(&report)
            }
        );
        return Ok(ExitCode::SUCCESS);
    }
    let config = read(&Env).map_err(told)?;
    let options = Options::new("ipam", "ipam", &config.observability);
    with_telemetry(options, serve_prefixes(config)).await
}

async fn serve_prefixes(config: Config) -> Result<Outcome> {
    let store = super::store(config.state_dir.as_deref(), "ipam")?;
    let mut lifecycle = Lifecycle::new(Duration::from_secs(10));
    let grpc = lifecycle.subsystem("server", Duration::from_secs(6));
    let admin = lifecycle.subsystem("admin", Duration::from_secs(1));
    let options = ServerOptions {
        anonymous_grace: config.anonymous_grace,
        excluded: config.excluded,
        lease: config.lease,
        shutdown: grpc.token(),
        ..ServerOptions::new(config.networks)
    };
    let (metrics, counted) = (Metrics::new(), options.metrics.clone());
    metrics.section("ipam", |section| counted.register(section));
    metrics.section("store", |section| store.register(section));
    let outlets = Outlets::new("ipam", "ipam", &config.observability);
    let told = outlets.run(metrics.clone(), admin.token());
    admin.spawn("metrics and profiles", told);
    let server = Server::open(&store, options).context("cannot start the prefix server")?;
    let readiness = Readiness::new();
    let listening = readiness.condition("listening");
    let security = Security::new(&config.security, &TokenOptions::default());
    super::tell_identity(&security, &readiness, &grpc);
    metrics.section("tls", |section| security.register(section));
    let admin_address = super::admin_address(config.admin, config.state_dir.as_deref(), "ipam");
    if let Some(address) = &admin_address {
        let shown = server.clone();
        let secured = security.clone();
        let bound = Admin::new(metrics, readiness)
            .with_status("security", move || json!(secured.status()))
            .with_status("prefixes", move || json!(shown.status()))
            .bind(address)
            .await
            .context("cannot open the admin listener")?;
        admin.spawn_fatal("admin listener", bound.serve(admin.token()));
    }
    let health = Health::new(&["ipam.IPAM", "ippool.Allocator"]).await;
    for url in &config.listen_on {
        let listener = listen(url, &security).await?;
        if security.is_insecure() && matches!(url, Url::Tcp { .. }) {
            warn!(%url, "NSM_INSECURE is true: neither encrypted nor authenticated");
        }
        info!(url = %listener.url(), "listening");
        let routes = health
            .routes()
            .add_service(server.ipam())
            .add_service(server.allocator());
        let stop = grpc.token();
        grpc.spawn_fatal("gRPC server", async move {
            serve(
                listener,
                routes,
                &carrick_grpc::ServerOptions::default(),
                stop,
            )
            .await
        });
    }
    let (sweeper, stop) = (server.clone(), grpc.token());
    grpc.spawn("leases that ended", async move {
        stop.run_until_cancelled(sweeper.run(Duration::from_secs(10)))
            .await;
    });
    health.set_ready(true).await;
    listening.met();
    let signals = UnixSignals::new().context("cannot receive signals")?;
    Ok(lifecycle.run(signals).await)
}

/// A store's report for people.
fn table(report: &Report) -> String {
    let sections = [
        ("granted prefixes", lines(&report.grants)),
        ("own prefixes", lines(&report.prefixes)),
        ("leased addresses", lines(&report.leases)),
        ("former clients", lines(&report.history)),
    ];
    let full = sections.into_iter().filter(|(_, lines)| !lines.is_empty());
    let text = full.fold(String::new(), |text, (title, lines)| {
        text + &format!("{title} ({})\n  {}\n", lines.len(), lines.join("\n  "))
    });
    if text.is_empty() {
        "nothing is stored\n".into()
    } else {
        text
    }
}

/// Entries as `key=value`, without what is empty.
fn lines<T: Serialize>(entries: &[T]) -> Vec<String> {
    let line = |entry: &T| {
        let value = serde_json::to_value(entry).unwrap_or_default();
        let fields = value.as_object().into_iter().flatten();
        let fields = fields.filter_map(|(key, value)| match value {
            Value::Null => None,
            Value::Array(items) if items.is_empty() => None,
            Value::String(text) => Some(format!("{key}={text}")),
            other => Some(format!("{key}={other}")),
        });
        fields.collect::<Vec<_>>().join("  ")
    };
    entries.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_may_be_written_with_the_bits_that_do_not_count() {
        let network = masked_prefixes("172.16.0.5/16,2001:db8::/64").unwrap();
        assert_eq!(network[0].to_string(), "172.16.0.0/16");
        for bad in ["172.16.0.5", "10.0.0.0/8,10.1.0.0/16"] {
            masked_prefixes(bad).unwrap_err();
        }
    }
}
