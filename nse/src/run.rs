//! From a configuration to a running endpoint, and its orderly end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use carrick_agent::{Agent, AgentMetrics, Change, Kernel, Metered, Netns, RemoteAgent};
use carrick_chain::elements::OnIdle;
use carrick_chain::{Endpoint, EndpointOptions, Handle, Tokens};
use carrick_grpc::{
    Channels, DialOptions, Es256Tokens, Health, Identity, Listener, Observer, Security,
    ServerOptions, SpiffeId, TokenOptions, Url, listen, routes, serve,
};
use carrick_ipam::{
    AddressOptions, Addresses, EndpointMetrics, LeaseOptions, Leases, PrefixClient, PrefixOptions,
    PrefixServer, Prefixes,
};
use carrick_lifecycle::{Lifecycle, Outcome, Signals, Subsystem};
use carrick_registry as registry;
use carrick_store::Store;
use carrick_telemetry::{Admin, Condition, Metrics, Readiness};
use carrick_types::{IpFamily, Mechanism, Mtu, ServiceName};
use carrick_vl3::dns::Records;
use carrick_vl3::elements::MtuElement;
use carrick_vl3::health::{self, Probing};
use carrick_vl3::peers::{Domain, Event, Peers};
use carrick_vl3::{Vl3, Vl3Options};
use futures::stream::{self, StreamExt};
use serde_json::json;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::config::{AgentKind, Setting};
use crate::journal::Answers;
use crate::parts::{Parts, Plane, router};
use crate::peering::{Ask, Dials, PeerDialer};
use crate::{Config, Error, metrics, names, serving, status};

/// The trust domain of identities that no SPIFFE Workload API gave.
const TRUST_DOMAIN: &str = "carrick";

/// How long an endpoint that a restarted registry does not name is held.
const REGISTRY_GRACE: Duration = Duration::from_secs(5);

/// The four parts of readiness: what it takes to serve.
struct Ready {
    all: Readiness,
    prefix: Condition,
    router: Condition,
    listening: Condition,
    registered: Condition,
}

impl Ready {
    fn new(readiness: &Readiness) -> Self {
        Self {
            all: readiness.clone(),
            prefix: readiness.condition("prefix"),
            router: readiness.condition("router"),
            listening: readiness.condition("listening"),
            registered: readiness.condition("registered"),
        }
    }
}

/// Runs an endpoint until a signal, and ends it in order.
///
/// # Errors
///
/// It cannot start; what was begun is given up.
pub async fn run(config: Config, signals: impl Signals) -> Result<Outcome, Error> {
    let config = Arc::new(config);
    if config.insecure {
        warn!("NSM_INSECURE is true: connections over TCP are neither encrypted nor authenticated");
    }
    let store = open_store(&config)?;
    let metrics = Metrics::new();
    let readiness = Readiness::new();
    let ready = Ready::new(&readiness);
    let (parts, prefix_client) = assemble(&config, &store, &metrics)?;
    metrics.section("store", |section| store.register(section));
    metrics::gauges(&metrics, &parts);
    let observer = metrics::requests(&metrics);
    let mut lifecycle = Lifecycle::new(config.times.grace);
    let stages = Stages::new(&mut lifecycle, config.times.grace);

    let embedded = serve_registry(&config, &store, &stages).await?;
    let on_idle = OnIdle::new(config.times.idle);
    let chain = serving::chain(&parts, on_idle.clone())?;
    let answers = Answers::open(&store);
    let options = EndpointOptions::new(config.name.as_str(), Arc::clone(&parts.tokens))
        .max_connections(config.max_connections)
        .journal(answers.clone())
        .handle(&parts.handle);
    // Without a forwarder a client's interface is ours to make, once.
    let options = match parts.plane {
        Some(_) => options.know_callers(),
        None => options,
    };
    let endpoint = Endpoint::new(options, chain);

    let prefix_client = prefix_client.map(Arc::new);
    admin(&parts, &metrics, &readiness, prefix_client.clone(), &stages).await?;
    let listeners = open_listeners(&config).await?;
    let url = advertised(&config, &listeners)?;
    let registry = own_registry(&parts, embedded)?;

    at_end(&parts, &endpoint, prefix_client, &stages);
    if let Some(on_idle) = on_idle {
        let trigger = stages.connections.trigger();
        stages.connections.spawn("idle", async move {
            on_idle.idle().await;
            trigger.shut_down("no client for NSM_IDLE_TIMEOUT");
        });
    }
    let failed = endpoint.clone();
    stages.connections.spawn("watch of the chain", {
        let (token, trigger) = (stages.connections.token(), stages.connections.trigger());
        async move {
            if token.run_until_cancelled(failed.failed()).await.is_some() {
                trigger.shut_down("an element of the chain panicked");
            }
        }
    });
    let start = Start {
        observer,
        parts,
        endpoint,
        answers,
        listeners,
        url,
        registry,
        ready,
    };
    let stages_of_start = stages.clone();
    stages
        .registration
        .spawn("start", async move { start.go(stages_of_start).await });
    Ok(lifecycle.run(signals).await)
}

/// The subsystems, in the order in which they end.
#[derive(Clone)]
struct Stages {
    registration: Subsystem,
    connections: Subsystem,
    server: Subsystem,
    network: Subsystem,
    prefixes: Subsystem,
    router: Subsystem,
    registry: Subsystem,
    admin: Subsystem,
}

impl Stages {
    fn new(lifecycle: &mut Lifecycle, grace: Duration) -> Self {
        let mut stage = |name, share: u32| lifecycle.subsystem(name, grace * share / 20);
        Self {
            registration: stage("registration", 3),
            connections: stage("connections", 8),
            server: stage("server", 6),
            network: stage("network", 2),
            prefixes: stage("prefixes", 3),
            router: stage("router", 4),
            registry: stage("registry", 3),
            admin: stage("admin", 2),
        }
    }
}

fn open_store(config: &Config) -> Result<Store, Error> {
    let file = |dir: &PathBuf| dir.join(format!("{}.redb", file_name(config.name.as_str())));
    Ok(match &config.state_dir {
        Some(dir) => Store::open(&file(dir))?,
        None => Store::in_memory()?,
    })
}

/// A name as part of a file's name.
fn file_name(name: &str) -> String {
    name.replace('/', "_")
}

fn assemble(
    config: &Arc<Config>,
    store: &Store,
    metrics: &Metrics,
) -> Result<(Parts, Option<PrefixClient>), Error> {
    let security = Security::insecure();
    let identity = Arc::new(match &config.state_dir {
        Some(dir) => {
            let file = dir.join(format!("{}.key", file_name(config.name.as_str())));
            Identity::load_or_create(&file)?
        }
        None => Identity::generate(),
    });
    let subject = SpiffeId::new(TRUST_DOMAIN, config.name.as_str())?;
    let lifetime = TokenOptions {
        max_lifetime: config.times.token,
    };
    let tokens: Arc<dyn Tokens> = Arc::new(Es256Tokens::new(&identity, subject, &lifetime));
    let channels = Channels::new(security, dial_options(config));

    let counted = EndpointMetrics::default();
    metrics.section("ipam", |section| counted.register(section));
    let (prefixes, prefix_client) = lease_prefixes(config, store, &channels, &counted)?;
    let vl3 = Vl3::new(Vl3Options {
        networks: config.addresses.networks.clone(),
        verify: Box::new(|token, key| carrick_grpc::verify(token, key, SystemTime::now()).is_ok()),
        ..Vl3Options::new(config.name.clone())
    });
    metrics.unprefixed(|registry| vl3.metrics().register(registry));
    let leases = Leases::open(
        store,
        LeaseOptions {
            rest: config.addresses.rest,
            metrics: counted,
            ..LeaseOptions::default()
        },
    )?;
    let peers = vl3.clone();
    let addresses = Addresses::new(
        leases.clone(),
        prefixes.clone(),
        AddressOptions {
            is_peer: Arc::new(move |connection| serving::is_peer(&peers, connection)),
            networks: config.addresses.networks.clone(),
            routes: config.addresses.routes.clone(),
            ..AddressOptions::default()
        },
    );
    let (handle, dials) = (Handle::default(), Dials::default());
    let ask = Ask {
        handle: handle.clone(),
        dials: dials.clone(),
    };
    let plane = agent(config, metrics)?.map(|agent| Plane::new(agent, config));
    let parts = Parts {
        config: Arc::clone(config),
        plane,
        vl3,
        prefixes,
        leases,
        addresses,
        records: Records::default(),
        mtu: MtuElement::new(Mtu::JUMBO, Arc::new(ask)),
        handle,
        tokens,
        identity,
        channels,
        dials,
    };
    Ok((parts, prefix_client))
}

/// Go servers end connections that ask for a sign of life too often.
fn dial_options(config: &Config) -> DialOptions {
    let usual = DialOptions {
        connect_timeout: config.times.dial,
        ..DialOptions::default()
    };
    match config.setting {
        Setting::Mesh(_) => DialOptions {
            http2_keep_alive: None,
            ..usual
        },
        Setting::StandAlone { .. } => usual,
    }
}

fn lease_prefixes(
    config: &Config,
    store: &Store,
    channels: &Channels,
    metrics: &EndpointMetrics,
) -> Result<(Prefixes, Option<PrefixClient>), Error> {
    if !config.addresses.fixed.is_empty() {
        return Ok((
            Prefixes::fixed(config.addresses.fixed.iter().copied())?,
            None,
        ));
    }
    let urls = &config.addresses.servers;
    let servers = urls.iter().enumerate().map(|(position, url)| {
        let (name, channel) = (url.to_string(), channels.channel(url)?);
        let family = wanted_family(urls, position);
        Ok(PrefixServer {
            name,
            channel,
            family,
        })
    });
    let servers = servers.collect::<Result<_, carrick_grpc::DialError>>()?;
    let options = PrefixOptions {
        excluded: config.addresses.excluded.clone(),
        metrics: metrics.clone(),
        ..PrefixOptions::new(config.name.as_str(), servers)
    };
    let (prefixes, client) = Prefixes::lease(options, store)?;
    Ok((prefixes, Some(client)))
}

/// A server that is named twice is asked for both families, IPv4 first; of
/// one that is named once any prefix is welcome.
fn wanted_family(urls: &[Url], position: usize) -> Option<IpFamily> {
    let (before, url, behind) = (&urls[..position], &urls[position], &urls[position + 1..]);
    if before.contains(url) {
        Some(IpFamily::V6)
    } else {
        behind.contains(url).then_some(IpFamily::V4)
    }
}

fn agent(config: &Config, metrics: &Metrics) -> Result<Option<Arc<dyn Agent>>, Error> {
    let counted = AgentMetrics::default();
    metrics.section("agent", |section| counted.register(section));
    Ok(match &config.agent {
        AgentKind::None => None,
        AgentKind::Kernel => {
            let kernel = Kernel::new().map_err(|e| Error::Agent(e.into()))?;
            Some(Arc::new(Metered::new(kernel, counted)))
        }
        AgentKind::Remote(path) => {
            let remote = RemoteAgent::new(path).map_err(|e| Error::Agent(e.into()))?;
            Some(Arc::new(Metered::new(remote, counted)))
        }
    })
}

/// The endpoint's own registry, where nobody else serves the domain's.
async fn serve_registry(
    config: &Config,
    store: &Store,
    stages: &Stages,
) -> Result<Option<Url>, Error> {
    let Setting::StandAlone {
        registry: None,
        serve_registry_on,
    } = &config.setting
    else {
        return Ok(None);
    };
    let own = Url::unix(format!(
        "/run/carrick/{}.registry.sock",
        file_name(config.name.as_str())
    ));
    let options = registry::ServerOptions {
        store: Some(store.clone()),
        ..Default::default()
    };
    let server = Arc::new(registry::Server::start(options)?);
    for url in serve_registry_on.iter().chain([&own]) {
        let listener = listen(url, &Security::insecure()).await?;
        info!(url = %listener.url(), "serving the domain's registry");
        let (routes, stop) = (server.routes(), stages.registry.token());
        stages.registry.spawn_fatal("registry", async move {
            serve(listener, routes, &ServerOptions::default(), stop).await
        });
    }
    stages
        .registry
        .at_shutdown("registry's records", async move {
            server.shutdown(Duration::from_secs(2)).await;
            Ok::<_, std::io::Error>(())
        });
    Ok(Some(own))
}

fn own_registry(parts: &Parts, embedded: Option<Url>) -> Result<registry::Client, Error> {
    let url = match (&parts.config.setting, embedded) {
        (Setting::Mesh(manager), _) => manager.clone(),
        (
            Setting::StandAlone {
                registry: Some(url),
                ..
            },
            _,
        ) => url.clone(),
        (_, Some(url)) => url,
        (Setting::StandAlone { registry: None, .. }, None) => {
            unreachable!("without a registry the endpoint serves its own")
        }
    };
    Ok(registry_at(parts, &url)?)
}

fn registry_at(parts: &Parts, url: &Url) -> Result<registry::Client, carrick_grpc::DialError> {
    let options = registry::ClientOptions {
        tokens: Some(Arc::clone(&parts.tokens)),
        timeout: parts.config.times.request,
        // A registry that keeps nothing knows nobody for a moment after its restart.
        grace: REGISTRY_GRACE,
        ..registry::ClientOptions::default()
    };
    Ok(registry::Client::new(parts.channels.channel(url)?, options))
}

async fn admin(
    parts: &Parts,
    metrics: &Metrics,
    readiness: &Readiness,
    prefix_client: Option<Arc<PrefixClient>>,
    stages: &Stages,
) -> Result<(), Error> {
    let Some(address) = &parts.config.admin else {
        return Ok(());
    };
    let name = parts.config.name.to_string();
    let services: Vec<String> = parts
        .config
        .services
        .iter()
        .map(ServiceName::to_string)
        .collect();
    let (ready, of) = (readiness.clone(), parts.clone());
    let status = |show: fn(&Parts) -> serde_json::Value| {
        let parts = of.clone();
        move || show(&parts)
    };
    let node = parts.config.node.name.clone();
    let bound = Admin::new(metrics.clone(), readiness.clone())
        .with_status("name", move || json!(name))
        .with_status("network_services", move || json!(services))
        .with_status("node", move || json!(node))
        .with_status("ready", move || json!(ready.is_ready()))
        .with_status("prefixes", status(|parts| json!(parts.prefixes.current())))
        .with_status("connections", status(Parts::connections_status))
        .with_status("leases", status(Parts::leases_status))
        .with_status(
            "peers",
            status(|parts| status::json(parts.peers_status().into_iter())),
        )
        .with_status("routes", status(Parts::routes_status))
        .with_status("prefix_servers", move || {
            json!(prefix_client.as_ref().map(|client| client.status()))
        })
        .bind(address)
        .await
        .map_err(Error::Admin)?;
    info!(address = %bound.address(), "serving /metrics, /healthz, /readyz and /status");
    let stop = stages.admin.token();
    stages.admin.spawn("admin listener", async move {
        if let Err(error) = bound.serve(stop).await {
            error!(
                error = &error as &dyn std::error::Error,
                "the admin listener ended"
            );
        }
    });
    Ok(())
}

async fn open_listeners(config: &Config) -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    for url in &config.listen_on {
        listeners.push(listen(url, &Security::insecure()).await?);
    }
    Ok(listeners)
}

/// The URL under which others reach the endpoint.
fn advertised(config: &Config, listeners: &[Listener]) -> Result<Url, Error> {
    if let Some(url) = &config.advertise {
        return Ok(url.clone());
    }
    let tcp = listeners
        .iter()
        .find(|listener| matches!(listener.url(), Url::Tcp { .. }));
    let url = tcp
        .or(listeners.first())
        .map(|listener| listener.url().clone());
    match url {
        Some(Url::Tcp { host, port }) if matches!(host.as_str(), "" | "0.0.0.0" | "::") => {
            let host = config.node.tunnel_ip.ok_or_else(|| {
                let expected =
                    "the URL by which others reach this endpoint, as it listens on every address";
                carrick_types::Invalid::new("CARRICK_ADVERTISE", "", expected)
            })?;
            Ok(Url::tcp(host.to_string(), port))
        }
        Some(url) => Ok(url),
        None => unreachable!("a configuration has at least one address to listen on"),
    }
}

/// What is done at the end, stage by stage.
fn at_end(
    parts: &Parts,
    endpoint: &Endpoint,
    prefix_client: Option<Arc<PrefixClient>>,
    stages: &Stages,
) {
    let leave = parts.config.unregister_itself;
    let (dials, endpoint) = (parts.dials.clone(), endpoint.clone());
    let grace = stages.connections.deadline().mul_f32(0.9);
    stages.connections.at_shutdown("connections", async move {
        let served = async {
            if leave {
                endpoint.shutdown(grace).await
            } else {
                endpoint.stop(grace).await
            }
        };
        let (served, dialled) = tokio::join!(served, dials.end(leave, grace));
        let all = served && dialled;
        all.then_some(())
            .ok_or_else(|| std::io::Error::other("connections are left open"))
    });
    if let Some(client) = prefix_client {
        let grace = stages.prefixes.deadline().mul_f32(0.9);
        stages.prefixes.at_shutdown("prefixes", async move {
            let ended = client.shutdown(leave, grace).await;
            ended
                .then_some(())
                .ok_or_else(|| std::io::Error::other("a prefix server was not told"))
        });
    }
    if let Some(plane) = parts.plane.clone().filter(|_| leave) {
        stages.router.at_shutdown("router", async move {
            let netns = plane.site.router.clone();
            plane
                .agent
                .apply(vec![Change::DeleteRouter { netns }])
                .await
        });
    }
}

/// What happens once everything is assembled; each step waits for what it needs.
struct Start {
    observer: Observer,
    parts: Parts,
    endpoint: Endpoint,
    answers: Answers,
    listeners: Vec<Listener>,
    url: Url,
    registry: registry::Client,
    ready: Ready,
}

impl Start {
    async fn go(self, stages: Stages) {
        let stopping = stages.registration.token();
        let Self {
            observer,
            parts,
            endpoint,
            answers,
            listeners,
            url,
            registry,
            ready,
        } = self;
        let Some(true) = stopping
            .run_until_cancelled(parts.prefixes.wait_ready())
            .await
        else {
            return;
        };
        parts.vl3.set_prefixes(&parts.prefixes.current());
        ready.prefix.met();
        info!(prefixes = ?parts.prefixes.current(), "serving");
        let restore = async {
            if let Some(plane) = &parts.plane {
                plane.put_router(&parts).await;
            }
            restore(&parts, &endpoint, &answers).await;
        };
        if stopping.run_until_cancelled(restore).await.is_none() {
            return;
        }
        ready.router.met();
        serve_all(&parts, &endpoint, listeners, observer, &ready, &stages).await;
        stages.network.spawn(
            "prefix changes",
            follow_prefixes(parts.clone(), stages.network.token()),
        );
        names::serve(&parts, &stages.network);
        let registration = register(&parts, &registry, &url);
        network(&parts, &registry, &registration, &stages);
        let mut state = registration.state();
        loop {
            let now = state.borrow_and_update().clone();
            match &now {
                registry::RegistrationState::Registered { registered_at, .. } => {
                    ready.registered.met();
                    let since = registered_at.unwrap_or_else(SystemTime::now);
                    parts.vl3.handle(Event::Registered(since));
                }
                registry::RegistrationState::Lost(error) => ready.registered.unmet(error),
                registry::RegistrationState::Pending => {}
            }
            match stopping.run_until_cancelled(state.changed()).await {
                Some(Ok(())) => {}
                _ => break,
            }
        }
        ready.registered.unmet("the endpoint is leaving");
        if parts.config.unregister_itself {
            let deadline = Instant::now() + stages.registration.deadline().mul_f32(0.8);
            if let Err(error) = registration.unregister(deadline).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "not unregistered; the entry will expire"
                );
            }
        }
    }
}

/// Takes up what a former process served, then removes what nobody claims.
pub(crate) async fn restore(parts: &Parts, endpoint: &Endpoint, answers: &Answers) {
    let stored = match answers.all() {
        Ok(stored) => stored,
        Err(error) => {
            error!(
                error = &error as &dyn std::error::Error,
                "cannot read what was served before; clients will have to come again"
            );
            Vec::new()
        }
    };
    let count = stored.len();
    stream::iter(stored)
        .for_each_concurrent(64, |answer| async {
            parts.vl3.restore(&answer);
            let id = answer.id.clone();
            if let Err(error) = endpoint.restore(answer).await {
                warn!(connection.id = %id, error = &error as &dyn std::error::Error, "not taken up again; its client will have to come again");
            }
        })
        .await;
    if count > 0 {
        info!(connections = count, "went on with what was served before");
    }
    if let Some(plane) = &parts.plane {
        plane.sweep_clients(parts).await;
    }
}

async fn serve_all(
    parts: &Parts,
    endpoint: &Endpoint,
    listeners: Vec<Listener>,
    observer: Observer,
    ready: &Ready,
    stages: &Stages,
) {
    let options = ServerOptions {
        observer,
        ..ServerOptions::default()
    };
    let health = Health::new(Health::ENDPOINT).await;
    for listener in listeners {
        info!(url = %listener.url(), name = %parts.config.name, "listening");
        let stop = stages.server.token();
        let (routes, options) = (routes(endpoint, &options, &health, &stop), options.clone());
        stages.server.spawn_fatal("gRPC server", async move {
            serve(listener, routes, &options, stop).await
        });
    }
    let (readiness, stop) = (ready.all.clone(), stages.server.token());
    stages.server.spawn("health", async move {
        stop.run_until_cancelled(tell(readiness, health)).await;
    });
    ready.listening.met();
}

/// What `/readyz` says, gRPC's health says too.
async fn tell(readiness: Readiness, health: Health) {
    loop {
        readiness.wait_ready().await;
        health.set_ready(true).await;
        readiness.wait_not_ready().await;
        health.set_ready(false).await;
    }
}

fn register(parts: &Parts, registry: &registry::Client, url: &Url) -> registry::Registration {
    let config = &parts.config;
    let mut labels = config.labels.clone();
    let own = [
        (
            registry::Endpoint::KEY_LABEL,
            parts.identity.public_key_text(),
        ),
        (Mechanism::NODE_NAME, config.node.name.clone()),
    ];
    for (key, value) in own {
        labels.0.insert(key.to_owned(), value);
    }
    let mut endpoint = registry::Endpoint::new(config.name.clone(), config.services.clone());
    endpoint.labels = config
        .services
        .iter()
        .map(|name| (name.clone(), labels.clone()))
        .collect();
    endpoint.url = Some(url.to_string());
    let services = config.services.iter().cloned().map(registry::Service::new);
    let services = services.filter(|_| config.register_service).collect();
    registry.keep_registered(endpoint, services, registry::RegistrationOptions::default())
}

/// Finds the other endpoints, links to them and probes the links.
fn network(
    parts: &Parts,
    own: &registry::Client,
    _registration: &registry::Registration,
    stages: &Stages,
) {
    let service = &parts.config.services[0];
    let mut domains = vec![crate::discovery::follow(
        &parts.vl3,
        own,
        Domain::own(),
        service.clone(),
    )];
    for (name, url) in &parts.config.domains {
        match registry_at(parts, url) {
            Ok(client) => domains.push(crate::discovery::follow(
                &parts.vl3,
                &client,
                Domain::named(name),
                service.clone(),
            )),
            Err(error) => {
                error!(
                    domain = name,
                    error = &error as &dyn std::error::Error,
                    "the domain's registry cannot be dialled"
                );
            }
        }
    }
    let dialer = Arc::new(PeerDialer::new(parts.clone()));
    let peers = Peers::new(parts.vl3.clone(), dialer);
    let stop = stages.registration.token();
    stages.registration.spawn(
        "peers",
        peers.run(stream::select_all(domains).boxed(), stop),
    );
    let Some(plane) = parts.plane.clone() else {
        return;
    };
    if parts.config.times.liveness {
        let (vl3, agent, netns) = (
            parts.vl3.clone(),
            plane.agent.clone(),
            router(&parts.config),
        );
        let probing = Probing {
            interval: parts.config.times.liveness_interval,
            timeout: parts.config.times.liveness_timeout,
        };
        let probes = health::run(vl3, agent, netns, probing, stages.network.token());
        stages.network.spawn("probes of peers", probes);
    }
    let stop = stages.network.token();
    stages
        .network
        .spawn("adoption of links to peers", async move {
            stop.run_until_cancelled(plane.sweep_peers()).await;
        });
}

/// Follows the prefixes: the router's addresses, the clients' and the peers' routes.
async fn follow_prefixes(parts: Parts, stop: tokio_util::sync::CancellationToken) {
    let mut changed = parts.prefixes.changed();
    while let Some(Ok(())) = stop.run_until_cancelled(changed.changed()).await {
        let prefixes = parts.prefixes.current();
        info!(?prefixes, "the prefixes changed");
        parts.vl3.set_prefixes(&prefixes);
        if let Some(plane) = &parts.plane
            && stop
                .run_until_cancelled(plane.put_router(&parts))
                .await
                .is_none()
        {
            return;
        }
        let ask = Ask {
            handle: parts.handle.clone(),
            dials: parts.dials.clone(),
        };
        let which = |connection: &carrick_types::Connection| {
            // Peers route each prefix, clients only the network.
            serving::is_peer(&parts.vl3, connection) || parts.addresses.is_stale(connection)
        };
        ask.handle.ask_refresh(&which, &|connection| {
            connection.state = carrick_types::State::RefreshRequested;
        });
        ask.dials.refresh(&|_| true);
    }
}

/// The namespace of the router, also where this process makes no links.
pub(crate) fn netns(parts: &Parts) -> Netns {
    router(&parts.config)
}
