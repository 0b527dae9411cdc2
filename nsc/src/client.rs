use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use carrick_agent::{Agent, Kernel};
use carrick_chain::{Chain, Client, ClientOptions};
use carrick_grpc::{DialOptions, RemoteEndpoint, Security, Url, dial_passing};
use carrick_lifecycle::{Lifecycle, Outcome, Signals, Subsystem, UnixSignals};
use carrick_link::own_netns;
use carrick_policy::{Policies, Refusals};
use carrick_telemetry::{Address, Admin, Metrics, Options, Readiness, Telemetry};
use carrick_types::Connection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::error::causes;
use crate::kept::{Kept, Shared};
use crate::liveness::DataPath;
use crate::metrics::Counters;
use crate::wanted::connections;
use crate::{Config, ConnectionStatus, Error, Status};

/// Probes without an answer in a row after which a data path is dead.
const MISSES: u32 = 3;

/// Time for the admin listener to answer what it was asked, and for the last
/// traces to leave.
const LAST: Duration = Duration::from_secs(2);

/// Runs a client as a process: sets up logs and traces, keeps the connections
/// until SIGINT or SIGTERM, and ends in order. What the process should exit
/// with is [`Outcome::exit_code`]; what was left is logged.
///
/// # Errors
///
/// See [`Error`]; nothing was asked for yet.
pub async fn run(config: Config) -> Result<Outcome, Error> {
    let telemetry = Telemetry::install(&Options {
        service: "nsc".to_owned(),
        instance: config.name.clone(),
        log_level: config.log_level.clone(),
        traces: config.telemetry.clone(),
        ..Options::default()
    })
    .map_err(Error::Telemetry)?;
    let signals = UnixSignals::new().map_err(Error::Signals)?;
    let stop = CancellationToken::new();
    let level = telemetry.level();
    let follow = stop.clone();
    tokio::spawn(async move {
        if let Err(error) = level.follow_signals(follow).await {
            warn!(error = causes(&error), "the log level stays as it is");
        }
    });
    let ended = run_until(config, signals).await;
    stop.cancel();
    if let Err(error) = telemetry.shutdown(LAST).await {
        warn!(error = causes(&error), "traces are lost");
    }
    ended
}

async fn run_until(config: Config, signals: UnixSignals) -> Result<Outcome, Error> {
    let agent = Kernel::new().map_err(Error::Agent)?;
    let outcome = Nsc::new(config)?.run(Arc::new(agent), signals).await?;
    info!(cause = %outcome.cause, "ended");
    for left in &outcome.left {
        error!(left = causes(left), "something is left");
    }
    Ok(outcome)
}

/// A client that does not run yet; [`run`] runs one as a process.
#[derive(Debug)]
pub struct Nsc {
    config: Config,
    wanted: Vec<Connection>,
    admin: Option<Address>,
    board: Arc<watch::Sender<Status>>,
}

impl Nsc {
    /// A client with these settings, in this process's network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] and [`Error::AdminAddress`].
    pub fn new(config: Config) -> Result<Self, Error> {
        let wanted = connections(&config, &own_netns()).map_err(Error::Name)?;
        let admin = config.admin_url().map(|url| url.to_string().parse());
        let now = SystemTime::now();
        let lines = wanted.iter().zip(&config.services);
        let status = Status {
            name: config.name.clone(),
            connections: lines
                .map(|(wanted, service)| ConnectionStatus::new(wanted, &service.interface, now))
                .collect(),
        };
        Ok(Self {
            config,
            wanted,
            admin: admin.transpose()?,
            board: Arc::new(watch::Sender::new(status)),
        })
    }

    /// How its connections are, now and later.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.board.subscribe()
    }

    /// Keeps the connections until a signal, then ends in order: no longer
    /// ready, connections closed (or left, `CARRICK_CLOSE_AT_EXIT`), admin
    /// listener. The data path is probed through `agent`.
    ///
    /// # Errors
    ///
    /// See [`Error`]; nothing was asked for yet.
    pub async fn run(self, agent: Arc<dyn Agent>, signals: impl Signals) -> Result<Outcome, Error> {
        let (metrics, readiness) = (Metrics::new(), Readiness::new());
        let shared = Arc::new(self.shared(agent, &metrics)?);
        let mut lifecycle = Lifecycle::new(self.config.grace);
        // The order of these is the order of shutdown.
        let ready = lifecycle.subsystem("readiness", LAST);
        let connections = lifecycle.subsystem("connections", self.config.grace);
        let admin = lifecycle.subsystem("admin", LAST);

        let kept: Vec<Kept> = self.kept(&shared, &readiness).collect();
        serve_until_shutdown(&ready, &readiness);
        self.open_admin(&admin, metrics, readiness).await?;
        for kept in kept {
            connections.spawn_fatal("connection", kept.run(connections.token()));
        }
        Ok(lifecycle.run(signals).await)
    }

    fn shared(&self, agent: Arc<dyn Agent>, metrics: &Metrics) -> Result<Shared, Error> {
        let config = &self.config;
        let (security, tokens) = config.access()?;
        warn_of_plaintext(config, &security);
        let options = DialOptions {
            connect_timeout: config.dial_timeout,
            // NSM's manager is a grpc-go server with the default enforcement,
            // which takes regular PINGs for an attack. A peer that hangs is
            // found by the timeout of a Request and by probes.
            http2_keep_alive: None,
            ..DialOptions::default()
        };
        let channel = dial_passing(&config.connect_to, &security, &options)?;
        let refusals = Refusals::default();
        metrics.section("policy", |section| refusals.register(section));
        let policies = Policies::load(&config.policies, Path::new(""))?.counted(&refusals);
        let remote = RemoteEndpoint::new(channel, Arc::clone(&tokens)).judged(policies);
        let mut options =
            ClientOptions::new(&config.name, tokens).request_timeout(config.request_timeout);
        if let Some(times) = config.liveness {
            options = options
                .liveness(DataPath::new(agent, times.timeout))
                .liveness_every(times.interval, times.timeout, MISSES);
        }
        Ok(Shared {
            client: Client::new(options, Chain::default(), remote.clone()),
            remote,
            request_timeout: config.request_timeout,
            // The rest is for what comes after.
            close_within: config.close_at_exit.then(|| config.grace.mul_f64(0.8)),
            counters: Counters::register(metrics),
            board: Arc::clone(&self.board),
        })
    }

    fn kept(&self, shared: &Arc<Shared>, readiness: &Readiness) -> impl Iterator<Item = Kept> {
        let wanted = self.wanted.iter().enumerate();
        wanted.map(|(number, wanted)| Kept {
            shared: Arc::clone(shared),
            wanted: wanted.clone(),
            number,
            // A handful, and they live as long as the process.
            is_up: readiness.condition(wanted.id.to_string().leak()),
        })
    }

    async fn open_admin(
        &self,
        subsystem: &Subsystem,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Result<(), Error> {
        let Some(address) = &self.admin else {
            return Ok(());
        };
        let name = self.config.name.clone();
        let board = Arc::clone(&self.board);
        // The two stand side by side in the answer, which so is a `Status`.
        let bound = Admin::new(metrics, readiness)
            .with_status("name", move || name.clone().into())
            .with_status("connections", move || {
                serde_json::to_value(&board.borrow().connections).unwrap_or_default()
            })
            .bind(address)
            .await
            .map_err(Error::Admin)?;
        info!(address = %bound.address(), "admin listener is open");
        subsystem.spawn_fatal("listener", bound.serve(subsystem.token()));
        Ok(())
    }
}

/// A process that ends is not ready, whatever its connections still are.
fn serve_until_shutdown(subsystem: &Subsystem, readiness: &Readiness) {
    let serving = readiness.condition("serving");
    serving.met();
    subsystem.at_shutdown("not ready", async move {
        serving.unmet("shutting down");
        Ok::<_, std::convert::Infallible>(())
    });
}

fn warn_of_plaintext(config: &Config, security: &Security) {
    if security.is_insecure() && matches!(config.connect_to, Url::Tcp { .. }) {
        warn!(
            next_hop = %config.connect_to,
            "INSECURE: connections to the next hop are plaintext, and neither side proves who it \
             is; use this on trusted networks only"
        );
    }
}
