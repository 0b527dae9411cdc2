use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use carrick_lb::config::{Backend, Balancer, Config, Hook};
use carrick_lb::control::{Control, Wanted, Worker};
use carrick_lb::dataplane::Dataplane as _;
use carrick_lb::journal::Link;
use carrick_lifecycle::{Lifecycle, Outcome, Subsystem, UnixSignals};
use carrick_telemetry::{Address, Admin, Condition, Metrics, Readiness};
use carrick_types::IfName;
use serde_json::{Value, json};
use tracing::{error, info, warn};

use super::plane::Plane;
use super::watch::Watch;
use super::{metrics, privileges};
use crate::programs::{common, with_telemetry};

/// What `carrick lb run` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The services (docs/load-balancer-config.md). Read again on SIGHUP and when it changes.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the file and end: 0 if it is right, 1 if not. Touches nothing.
    #[arg(long)]
    verify: bool,
    /// The data plane, instead of the file's.
    #[arg(long, value_enum)]
    dataplane: Option<Dataplane>,
    /// Where the packet program is attached, instead of the file's.
    #[arg(long, value_enum)]
    hook: Option<Where>,
    /// Interfaces by which packets arrive, instead of the file's.
    #[arg(long, value_name = "NAME")]
    interface: Vec<String>,
    /// The admin listener, instead of the file's: `unix:///path` or `tcp://address:port`.
    #[arg(long, value_name = "URL")]
    admin: Option<Address>,
    /// Leave the data plane in force at the end, for the next process to take over.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Dataplane {
    Auto,
    Ebpf,
    Nftables,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Where {
    Auto,
    Tc,
    Xdp,
}

/// Longest time that shutting down takes.
const CEILING: Duration = Duration::from_secs(10);

/// Longest time a new balancer waits for its peers' flows before it is ready.
const JOIN: Duration = Duration::from_secs(3);

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let config = read(&args)?;
    if args.verify {
        println!(
            "{}: {} service(s)",
            args.config.display(),
            config.wanted.services().count()
        );
        return Ok(ExitCode::SUCCESS);
    }
    privileges::require("carrick lb run")?;
    with_telemetry(common("lb"), balance(args, config)).await
}

/// The file, with what the command line says instead.
fn read(args: &Args) -> Result<Config> {
    let path = args.config.display();
    let text = std::fs::read_to_string(&args.config);
    let text = text.with_context(|| format!("cannot read {path}"))?;
    let mut config = Config::read(&text).with_context(|| format!("cannot use {path}"))?;
    let balancer = &mut config.balancer;
    if let Some(dataplane) = args.dataplane {
        balancer.backend = match dataplane {
            Dataplane::Auto => Backend::Auto,
            Dataplane::Ebpf => Backend::Ebpf,
            Dataplane::Nftables => Backend::Nftables,
        };
    }
    if let Some(hook) = args.hook {
        balancer.hook = match hook {
            Where::Auto => Hook::Auto,
            Where::Tc => Hook::Tc,
            Where::Xdp => Hook::Xdp,
        };
    }
    if !args.interface.is_empty() {
        let names = args.interface.iter().map(IfName::new);
        balancer.interfaces = names.collect::<Result<_, _>>()?;
    }
    Ok(config)
}

async fn balance(args: Args, config: Config) -> Result<Outcome> {
    let signals = UnixSignals::new().context("cannot receive signals")?;
    let watch = Watch::new(&args.config).context("cannot receive SIGHUP")?;
    let readiness = Readiness::new();
    let services = readiness.condition("services");
    let metrics = Metrics::new();
    let mut lifecycle = Lifecycle::new(CEILING);
    // The admin listener outlives the rest, so that the end can be watched.
    let reload = lifecycle.subsystem("reload", Duration::from_secs(2));
    let plane = lifecycle.subsystem("data plane", Duration::from_secs(5));
    let admin = lifecycle.subsystem("admin", Duration::from_secs(2));

    let worker = Arc::new(start(&config.balancer).await?);
    metrics::register(&metrics, &worker);
    serve(&args, &config, &worker, metrics, readiness.clone(), &admin).await?;
    let found = found(&worker).await?;
    if let Err(error) = apply(&worker, config.wanted.clone()).await {
        // What an earlier process installed still balances; it stays.
        end(&plane, worker, args.keep || found);
        lifecycle.drain_in_order(signals).await;
        return Err(error);
    }
    services.met();
    if config.balancer.journal.is_some() {
        let (worker, joined) = (Arc::clone(&worker), readiness.condition("journal"));
        let stop = reload.token();
        reload.spawn("join", async move {
            tokio::select! {
                () = join(&worker, &joined) => {}
                () = stop.cancelled() => {}
            }
        });
    }
    let of = Arc::clone(&worker);
    let stop = reload.token();
    let keep = args.keep;
    reload.spawn("reload", async move {
        tokio::select! {
            () = follow(watch, args, of, services) => {}
            () = stop.cancelled() => {}
        }
    });
    end(&plane, worker, keep);
    Ok(lifecycle.run(signals).await)
}

/// Opens the data plane and the journal, on the thread that will own them.
pub(super) async fn start(balancer: &Balancer) -> Result<Worker<Plane>> {
    let balancer = balancer.clone();
    let run = SystemTime::now().duration_since(UNIX_EPOCH);
    let run = run.map_or(1, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    });
    let make = move || -> Result<_> {
        let plane = Plane::open(&balancer).context("cannot use the data plane")?;
        let control = Control::adopt(plane).context("cannot take over the data plane")?;
        let link = balancer.journal.as_ref().map(|journal| {
            let link = Link::open(journal, run, Instant::now())?;
            Ok::<_, carrick_lb::journal::Error>((link, journal.interval))
        });
        Ok((control, link.transpose()?))
    };
    tokio::task::spawn_blocking(move || Worker::start(make)).await?
}

/// Whether an earlier process left services in the data plane.
async fn found(worker: &Arc<Worker<Plane>>) -> Result<bool> {
    let worker = Arc::clone(worker);
    let installed = move || worker.call(|driven| driven.control.dataplane().installed());
    let installed = tokio::task::spawn_blocking(installed).await???;
    let found = !installed.services.is_empty();
    if found {
        let (services, servers) = (installed.services.len(), installed.servers.len());
        info!(services, servers, "taking over what is in force");
    }
    Ok(found)
}

/// Brings the data plane to what is wanted.
pub(super) async fn apply(worker: &Arc<Worker<Plane>>, wanted: Wanted) -> Result<()> {
    let (worker, services) = (Arc::clone(worker), wanted.services().count());
    let applied = tokio::task::spawn_blocking(move || {
        let begin = Instant::now();
        let applied = worker.call(move |driven| driven.control.replace(wanted));
        applied.map(|applied| applied.map(|applied| (applied, begin.elapsed())))
    });
    let (applied, took) = applied.await??.context("cannot apply the services")?;
    info!(
        services,
        writes = applied.writes,
        flows_forgotten = applied.flows_forgotten,
        ?took,
        "services applied"
    );
    Ok(())
}

/// Reads the file again whenever that is due.
async fn follow(mut watch: Watch, args: Args, worker: Arc<Worker<Plane>>, ready: Condition) {
    loop {
        let cause = watch.changed().await;
        info!(cause, "reading the services again");
        let done = match read(&args) {
            Ok(config) => apply(&worker, config.wanted).await,
            Err(error) => Err(error),
        };
        // What is in force goes on, so the balancer stays ready.
        match done {
            Ok(()) => ready.met(),
            Err(error) => error!("the services stay as they are: {error:#}"),
        }
    }
}

/// Ready when the peers have told their flows, or are not there.
async fn join(worker: &Arc<Worker<Plane>>, ready: &Condition) {
    let begin = Instant::now();
    loop {
        let joined = tokio::task::block_in_place(|| {
            worker.call(|driven| driven.link.as_ref().map(Link::joined))
        });
        let Ok(Some((joined, peers))) = joined else {
            return;
        };
        if joined == peers {
            info!(peers, "all balancers have told their flows");
            break;
        }
        if begin.elapsed() >= JOIN {
            warn!(joined, peers, "ready without the flows of all balancers");
            break;
        }
        ready.unmet(format!(
            "{joined} of {peers} balancers have told their flows"
        ));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ready.met();
}

/// What happens to the data plane at the end.
pub(super) fn end(plane: &Subsystem, worker: Arc<Worker<Plane>>, keep: bool) {
    plane.at_shutdown("data plane", async move {
        tokio::task::spawn_blocking(move || {
            let Some(worker) = Arc::into_inner(worker) else {
                // A request to the admin listener holds it for another moment.
                return Ok(());
            };
            if keep {
                info!("the data plane stays in force");
                return worker.end(drop).map_err(anyhow::Error::from);
            }
            worker
                .end(Plane::remove)?
                .context("cannot remove the data plane")
        })
        .await
        .map_err(anyhow::Error::from)
        .and_then(|done| done)
        .map_err(|error| std::io::Error::other(format!("{error:#}")))
    });
}

async fn serve(
    args: &Args,
    config: &Config,
    worker: &Arc<Worker<Plane>>,
    metrics: Metrics,
    readiness: Readiness,
    stage: &Subsystem,
) -> Result<()> {
    let address = address(args, config)?;
    let (name, of, ready) = (
        config.balancer.name.clone(),
        Arc::downgrade(worker),
        readiness.clone(),
    );
    let admin = Admin::new(metrics, readiness)
        .with_status("name", move || json!(name))
        .with_status("ready", move || json!(ready.is_ready()))
        .with_status("balancer", move || status(&of));
    listen(admin, &address, stage).await
}

/// Opens the admin listener, which ends with its stage.
pub(super) async fn listen(admin: Admin, address: &Address, stage: &Subsystem) -> Result<()> {
    let bound = admin
        .bind(address)
        .await
        .with_context(|| format!("cannot serve {address}"))?;
    info!(address = %bound.address(), "serving /metrics, /healthz, /readyz and /status");
    let stop = stage.token();
    stage.spawn("admin listener", async move {
        if let Err(error) = bound.serve(stop).await {
            error!(
                error = &error as &dyn std::error::Error,
                "the admin listener ended"
            );
        }
    });
    Ok(())
}

/// Where status asks: as told, else beside the sockets of other programs.
fn address(args: &Args, config: &Config) -> Result<Address> {
    if let Some(address) = &args.admin {
        return Ok(address.clone());
    }
    if let Some(text) = &config.balancer.admin {
        return Ok(text.parse()?);
    }
    beside(&config.balancer.name)
}

/// The admin socket of a balancer, beside those of other programs.
pub(super) fn beside(name: &str) -> Result<Address> {
    let dir = Path::new("/run/carrick");
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(Address::Unix(dir.join(format!("{name}.admin"))))
}

/// The status of the balancer; nothing once it has ended.
pub(super) fn status(worker: &Weak<Worker<Plane>>) -> Value {
    worker.upgrade().map_or(Value::Null, |worker| ask(&worker))
}

/// The status of the balancer, from the thread that owns it.
fn ask(worker: &Worker<Plane>) -> Value {
    let asked = tokio::task::block_in_place(|| {
        worker.call(|driven| {
            let status = driven.control.status().map_err(|error| error.to_string());
            let journal = driven.link.as_ref().map(|link| {
                let (joined, peers) = link.joined();
                json!({
                    "peers": peers,
                    "joined": joined,
                    "records": link.tally(),
                    "trouble": driven.trouble,
                })
            });
            (status, journal)
        })
    });
    match asked {
        Ok((Ok(status), journal)) => {
            let mut all = json!(status);
            all["journal"] = json!(journal);
            all
        }
        Ok((Err(error), _)) => json!({ "error": error }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}
