//! A balancer in a routed network: `carrick lb vl3`, in place of NSM's
//! `cmd-lb-vl3-vpp`.
//!
//! It is a client of the network; the address it is given is the VIP. Clients
//! of the network that have the labels of the selector are the servers.

mod config;
mod follow;

use std::future::pending;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use carrick_agent::Kernel;
use carrick_config::Env;
use carrick_grpc::{Channels, DialOptions};
use carrick_lb::config::{Backend, Balancer};
use carrick_lb::control::{Wanted, Worker};
use carrick_lb::dataplane::Local;
use carrick_lb::members::Members;
use carrick_lb::service::{Mode, Ports, Protocols, Server, Service, Snat, Vip};
use carrick_lifecycle::{Lifecycle, Outcome, Signal, UnixSignals};
use carrick_nsc::{ConnectionStatus, Nsc, Status};
use carrick_telemetry::{Admin, Condition, Metrics, Readiness};
use carrick_types::{IpNet, ServiceName};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, warn};

use self::config::Config;
use self::follow::{Access, News, Told, follow};
use super::plane::Plane;
use super::run::{apply, beside, end, listen, start, status};
use super::{metrics, privileges};
use crate::programs::{common, settings, told, with_telemetry};

pub(crate) use config::VARIABLES;

/// News of endpoints that wait to be applied.
const QUEUE: usize = 256;

/// Until what could not be applied is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Longest time that the client takes to close, then the rest to go.
const CEILING: Duration = Duration::from_secs(20);

pub(crate) fn help() -> String {
    settings(VARIABLES) + "\n\nAnd those of `carrick nsc`."
}

pub(crate) async fn run() -> Result<ExitCode> {
    let config = Config::read(&Env).map_err(told)?;
    privileges::require("carrick lb vl3")?;
    forward();
    with_telemetry(common(&config.client.name), balance(config)).await
}

async fn balance(config: Config) -> Result<Outcome> {
    let signals = UnixSignals::new().context("cannot receive signals")?;
    let (metrics, readiness) = (Metrics::new(), Readiness::new());
    let served = readiness.condition("servers");
    served.unmet("no network was joined yet");
    let mut lifecycle = Lifecycle::new(CEILING);
    // The order of shutdown: the VIP first goes out of the network.
    let client = lifecycle.subsystem("client", CEILING);
    let control = lifecycle.subsystem("control", Duration::from_secs(2));
    let plane = lifecycle.subsystem("data plane", Duration::from_secs(5));
    let admin = lifecycle.subsystem("admin", Duration::from_secs(2));

    let worker = Arc::new(open(&config).await?);
    metrics::register(&metrics, &worker);
    let nsc = Nsc::new(config.client.clone())?;
    let board = nsc.watch();
    serve(&config, &worker, &board, metrics, readiness, &admin).await?;

    let (signal, signals_of) = mpsc::channel(1);
    let agent = Arc::new(Kernel::new().context("cannot probe")?);
    let (running, stop) = (tokio::spawn(nsc.run(agent, signals_of)), client.trigger());
    client.at_shutdown("connections", async move {
        // An end that came by itself needs no signal.
        let _ = signal.send(Signal::Terminate).await;
        running.await.map(drop)
    });
    let gone = board.clone();
    client.spawn("client", async move {
        closed(gone).await;
        stop.shut_down("the client ended");
    });
    let drive = Drive::new(&config, Arc::clone(&worker), board, served)?;
    let stopped = control.token();
    control.spawn("control", async move {
        stopped.run_until_cancelled(drive.run()).await;
    });
    end(&plane, worker, false);
    Ok(lifecycle.run(signals).await)
}

/// Lets packets for servers through. Where that is not ours to set, the data
/// plane says what is missing as soon as there is a service.
fn forward() {
    for sysctl in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        let file = Path::new("/proc/sys/net").join(sysctl);
        let on = std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == "1");
        if !on && let Err(error) = std::fs::write(&file, "1") {
            warn!(%error, file = %file.display(), "cannot turn on forwarding");
        }
    }
}

/// Opens the data plane: nftables, since the interface of the network may be
/// another one after the client has healed.
async fn open(config: &Config) -> Result<Worker<Plane>> {
    let balancer = Balancer {
        name: config.client.name.clone(),
        backend: Backend::Nftables,
        ..Balancer::default()
    };
    start(&balancer).await
}

/// When the client has ended, of which nobody else keeps the sender.
async fn closed(mut status: watch::Receiver<Status>) {
    while status.changed().await.is_ok() {}
}

async fn serve(
    config: &Config,
    worker: &Arc<Worker<Plane>>,
    board: &watch::Receiver<Status>,
    metrics: Metrics,
    readiness: Readiness,
    stage: &carrick_lifecycle::Subsystem,
) -> Result<()> {
    let name = config.client.name.clone();
    let address = match &config.admin {
        Some(address) => address.clone(),
        None => beside(&name)?,
    };
    let (of, board, ready) = (Arc::downgrade(worker), board.clone(), readiness.clone());
    let admin = Admin::new(metrics, readiness)
        .with_status("name", move || json!(name))
        .with_status("ready", move || json!(ready.is_ready()))
        .with_status("connections", move || json!(board.borrow().connections))
        .with_status("balancer", move || status(&of));
    listen(admin, &address, stage).await
}

/// Brings what endpoints and client tell to the data plane.
struct Drive {
    config: Shape,
    access: Access,
    worker: Arc<Worker<Plane>>,
    status: watch::Receiver<Status>,
    served: Condition,
    networks: Vec<Network>,
    news: mpsc::Receiver<(usize, Told)>,
    sender: mpsc::Sender<(usize, Told)>,
}

/// What a balanced service looks like, but for its VIP and servers.
struct Shape {
    protocols: Protocols,
    ports: Ports,
}

/// A network that it balances in.
struct Network {
    service: ServiceName,
    members: Members,
}

impl Drive {
    fn new(
        config: &Config,
        worker: Arc<Worker<Plane>>,
        status: watch::Receiver<Status>,
        served: Condition,
    ) -> Result<Self> {
        let (sender, news) = mpsc::channel(QUEUE);
        let (security, tokens) = config.client.access()?;
        let options = DialOptions {
            connect_timeout: config.client.dial_timeout,
            ..DialOptions::default()
        };
        let channels = Channels::new(security, options);
        let registry = carrick_registry::ClientOptions {
            tokens: Some(Arc::clone(&tokens)),
            timeout: config.client.request_timeout,
            ..carrick_registry::ClientOptions::default()
        };
        let registry = carrick_registry::Client::new(channels.channel(&config.registry)?, registry);
        let network = |wanted: &carrick_nsc::Wanted| Network {
            service: wanted.service.clone(),
            members: Members::new(config.selector.clone(), Some(config.target_port)),
        };
        Ok(Self {
            config: Shape {
                protocols: Protocols::of(&[config.protocol]),
                ports: Ports::single(config.port.get())?,
            },
            access: Access {
                registry,
                channels,
                tokens,
            },
            worker,
            status,
            served,
            networks: config.client.services.iter().map(network).collect(),
            news,
            sender,
        })
    }

    async fn run(mut self) {
        let all = self.networks.iter().enumerate();
        let _following: Vec<_> = all
            .map(|(number, network)| {
                let news = News::new(number, self.sender.clone());
                let task = follow(self.access.clone(), network.service.clone(), news);
                AbortOnDropHandle::new(tokio::spawn(task))
            })
            .collect();
        let mut applied = None;
        loop {
            let wanted = Some(self.services());
            if wanted != applied {
                let done = self.apply(wanted.clone().unwrap_or_default()).await;
                applied = wanted.filter(|_| done);
            }
            let again = applied.is_none().then(|| Instant::now() + AGAIN);
            if !self.wait(again).await {
                return;
            }
        }
    }

    /// Waits for anything that may change the services, `again` at the latest,
    /// and takes all of it that is there; `false` once the client has ended.
    async fn wait(&mut self, again: Option<Instant>) -> bool {
        let now = Instant::now();
        let due = self.networks.iter().filter_map(|it| it.members.due(now));
        let due = due.chain(again).min();
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            Some((number, told)) = self.news.recv() => self.tell(number, told),
            changed = self.status.changed() => return changed.is_ok(),
            () = due => {}
        }
        while let Ok((number, told)) = self.news.try_recv() {
            self.tell(number, told);
        }
        true
    }

    fn tell(&mut self, number: usize, told: Told) {
        told.tell(&mut self.networks[number].members, Instant::now());
    }

    /// The services as they shall be: those of each network that was joined.
    fn services(&mut self) -> Vec<Service> {
        let now = Instant::now();
        let status = self.status.borrow_and_update();
        let joined = status.connections.iter().zip(&self.networks);
        joined
            .flat_map(|(connection, network)| self.config.services(connection, network, now))
            .collect()
    }

    async fn apply(&self, services: Vec<Service>) -> bool {
        let active: usize = services.iter().map(|it| it.active().count()).sum();
        let done = apply(&self.worker, Wanted::new(Local::default(), services)).await;
        match &done {
            Ok(()) if active == 0 => self.served.unmet("no server"),
            Ok(()) => self.served.met(),
            // What is in force goes on.
            Err(error) => error!("the servers stay as they are: {error:#}"),
        }
        done.is_ok()
    }
}

impl Shape {
    /// A service of each family that the connection has an address of: the
    /// address is the VIP, and the source of what servers see, so that answers
    /// come back here (NSM `vl3lb`).
    fn services(
        &self,
        connection: &ConnectionStatus,
        network: &Network,
        now: Instant,
    ) -> impl Iterator<Item = Service> {
        let own: Vec<IpAddr> = connection.src_addrs.iter().map(IpNet::addr).collect();
        let servers = network.members.servers(&own, now);
        let first = |v4| own.iter().copied().find(|it| it.is_ipv4() == v4);
        let vips = [("", first(true)), ("-ipv6", first(false))];
        vips.into_iter().filter_map(move |(family, vip)| {
            let name = format!("{}{family}", connection.id);
            self.service(&name, vip?, &servers)
        })
    }

    fn service(&self, name: &str, vip: IpAddr, servers: &[Server]) -> Option<Service> {
        let same = |server: &&Server| server.address.is_ipv4() == vip.is_ipv4();
        Some(Service {
            vips: vec![Vip {
                prefix: vip.into(),
                protocols: self.protocols,
                ports: self.ports.clone(),
            }],
            servers: servers.iter().filter(same).cloned().collect(),
            mode: Mode::Nat {
                snat: Snat::Always(vec![vip]),
            },
            ..Service::new(ServiceName::new(name).ok()?)
        })
    }
}
