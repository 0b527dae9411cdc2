//! Settings of an endpoint: from the environment under NSM's names, and
//! Carrick's own where NSM has none.

mod table;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use carrick_config::{Mistakes, Reader, Source};
use carrick_config::{address, boolean, duration, labels, list, number, prefixes, text};
use carrick_grpc::Url;
use carrick_telemetry::Address;
use carrick_types::{EndpointName, Invalid, Labels, Mtu, Prefix, ServiceName};

pub use table::VARIABLES;

/// A valid configuration of an endpoint.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the endpoint, in the registry and in paths.
    pub name: EndpointName,
    /// The network services it serves; peers are looked for under the first.
    pub services: Vec<ServiceName>,
    /// Labels of the endpoint.
    pub labels: Labels,
    /// Labels of its own connections to peers.
    pub request_labels: Labels,
    /// How it stands among the others.
    pub setting: Setting,
    /// Where it listens.
    pub listen_on: Vec<Url>,
    /// The address that is registered, where it is not the one listened on.
    pub advertise: Option<Url>,
    /// Registries of other domains, by the domain's name.
    pub domains: Vec<(String, Url)>,
    /// Whether plaintext is allowed.
    pub insecure: bool,
    /// Which policies there are, by masks of their paths.
    pub policies: Masks,
    /// Whether the network services are registered, too.
    pub register_service: bool,
    /// Whether the registration is withdrawn at an orderly end.
    pub unregister_itself: bool,
    /// Times.
    pub times: Times,
    /// Where addresses come from.
    pub addresses: Addresses,
    /// Name service for the clients.
    pub dns: Dns,
    /// The node.
    pub node: Node,
    /// Who makes the links.
    pub agent: AgentKind,
    /// Directory of the durable state; in memory only where there is none.
    pub state_dir: Option<PathBuf>,
    /// Where `/metrics`, `/readyz` and `/status` are served.
    pub admin: Option<Address>,
    /// Log level.
    pub log_level: String,
    /// Where traces go.
    pub telemetry: Option<String>,
    /// Most connections served at once.
    pub max_connections: usize,
}

/// How the endpoint stands among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// An NSM control plane exists; its manager is here.
    Mesh(Url),
    /// There is none: the endpoint is its own forwarder.
    StandAlone {
        /// The domain's registry, if another program serves it.
        registry: Option<Url>,
        /// Where the endpoint's own registry listens, if it brings one.
        serve_registry_on: Vec<Url>,
    },
}

/// Masks of policies, see [`carrick_policy::Policies::load`].
#[derive(Clone, Debug)]
pub struct Masks {
    /// About who requests and closes connections.
    pub server: Vec<String>,
    /// About who follows connections.
    pub monitor: Vec<String>,
    /// About what peers answer.
    pub client: Vec<String>,
    /// About what a registry answers.
    pub registry_client: Vec<String>,
    /// About who registers with the endpoint's own registry.
    pub registry_server: Vec<String>,
}

/// Times; all are positive.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Longest wait for a transport connection.
    pub dial: Duration,
    /// Longest wait for an answer to a Request or Close of our own.
    pub request: Duration,
    /// Longest life of a token.
    pub token: Duration,
    /// The endpoint ends by itself after this time without a connection; zero is never.
    pub idle: Duration,
    /// Between two probes of a peer's data path.
    pub liveness_interval: Duration,
    /// Longest wait for the answer to a probe.
    pub liveness_timeout: Duration,
    /// Whether peers' data paths are probed.
    pub liveness: bool,
    /// Longest time for an orderly end.
    pub grace: Duration,
}

/// Where addresses come from.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Prefixes of our own, in place of a server's.
    pub fixed: Vec<Prefix>,
    /// Prefix servers, one for each family.
    pub servers: Vec<Url>,
    /// The networks that all endpoints share; empty means half a prefix's length.
    pub networks: Vec<Prefix>,
    /// Routes that every client gets besides.
    pub routes: Vec<Prefix>,
    /// Prefixes that no client gets an address from.
    pub excluded: Vec<Prefix>,
    /// How long a freed address rests before another client gets it.
    pub rest: Duration,
}

/// Name service for the clients.
#[derive(Clone, Debug)]
pub struct Dns {
    /// Names that a client gets (Go templates over the Connection).
    pub templates: Vec<String>,
    /// Where the workload names are served.
    pub listen: NamesAt,
    /// Name servers handed out besides.
    pub name_servers: Vec<IpAddr>,
    /// Their search domains.
    pub zones: Vec<String>,
}

/// Where workload names are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamesAt {
    /// At one address of the process's own namespace. Peers are asked at [`NamesAt::PORT`].
    Address(SocketAddr),
    /// At this port of the endpoint's own addresses, where peers are asked, too.
    Own(u16),
}

impl NamesAt {
    /// The port of names (RFC 1035 §4.2).
    pub const PORT: u16 = 53;

    /// The port at which peers are asked.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Address(_) => Self::PORT,
            Self::Own(port) => port,
        }
    }
}

/// The node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name; namespaces have a meaning within one node only.
    pub name: String,
    /// Underlay address for tunnels.
    pub tunnel_ip: Option<IpAddr>,
    /// Largest packet of the underlay.
    pub underlay_mtu: Mtu,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// Name of the router's namespace; `None` is the process's own.
    pub router: Option<String>,
}

/// Who makes the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentKind {
    /// This process, with the kernel.
    Kernel,
    /// Nobody here: an NSM forwarder does.
    None,
    /// An agent of its own, behind this unix socket.
    Remote(PathBuf),
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    ///
    /// All mistakes at once, each with the variable's name.
    pub fn read(source: &dyn Source) -> Result<Self, Mistakes> {
        let mut r = Reader::new(source, VARIABLES);
        let name = r.read("NSM_NAME", |text| EndpointName::new(text));
        let services = r.read(
            "NSM_SERVICE_NAMES",
            at_least_one(|text| ServiceName::new(text)),
        );
        let setting = read_setting(&mut r);
        let agent = read_agent(&mut r, setting.as_ref());
        let node = read_node(&mut r, setting.as_ref(), services.as_deref());
        let times = read_times(&mut r);
        let addresses = read_addresses(&mut r);
        let dns = read_dns(&mut r);
        let policies = read_masks(&mut r);
        let config = (|r: &mut Reader<'_>| {
            let config = Self {
                labels: r.read("NSM_LABELS", labels)?,
                request_labels: r.read("NSM_REQUEST_LABELS", labels)?,
                listen_on: r.read("NSM_LISTEN_ON", listen_on(name.as_ref()))?,
                advertise: r.read("CARRICK_ADVERTISE", optional_url)?,
                domains: r.read("CARRICK_DOMAINS", domains)?,
                insecure: r.read("NSM_INSECURE", boolean)?,
                register_service: r.read("NSM_REGISTER_SERVICE", boolean)?,
                unregister_itself: r.read("NSM_UNREGISTER_ITSELF", boolean)?,
                state_dir: r.read("CARRICK_STATE_DIR", carrick_config::optional_path)?,
                admin: r.read("CARRICK_ADMIN", admin)?,
                log_level: r.read("NSM_LOG_LEVEL", text)?,
                telemetry: read_telemetry(r)?.0,
                max_connections: r.read("CARRICK_MAX_CONNECTIONS", number(1..=1_000_000))?,
                name: name?,
                services: services?,
                setting: setting?,
                agent: agent?,
                node: node?,
                times: times?,
                addresses: addresses?,
                dns: dns?,
                policies: policies?,
            };
            config.check(r);
            Some(config.with_admin())
        })(&mut r);
        r.finish(config)
    }

    /// Beside the state, unless something else was said.
    fn with_admin(mut self) -> Self {
        let beside = || {
            let file = format!("{}.admin", self.name.as_str().replace('/', "_"));
            Some(Address::Unix(self.state_dir.as_ref()?.join(file)))
        };
        self.admin = self.admin.take().or_else(beside);
        self
    }

    /// What shows only when settings are seen together.
    fn check(&self, r: &mut Reader<'_>) {
        let outside = |prefix: &Prefix| {
            !self.addresses.networks.is_empty()
                && !self
                    .addresses
                    .networks
                    .iter()
                    .any(|network| network.covers(*prefix))
        };
        for prefix in self.addresses.fixed.iter().filter(|prefix| outside(prefix)) {
            r.mistake(Invalid::new(
                "CARRICK_PREFIXES",
                prefix,
                "inside CARRICK_NETWORKS",
            ));
        }
        if !self.insecure {
            self.refuse_plaintext(r);
        }
    }

    fn refuse_plaintext(&self, r: &mut Reader<'_>) {
        let (manager, registry, serve) = match &self.setting {
            Setting::Mesh(manager) => (Some(manager), None, &[][..]),
            Setting::StandAlone {
                registry,
                serve_registry_on,
            } => (None, registry.as_ref(), &serve_registry_on[..]),
        };
        let domains: Vec<&Url> = self.domains.iter().map(|(_, url)| url).collect();
        let named: [(&str, Vec<&Url>); 7] = [
            ("NSM_LISTEN_ON", self.listen_on.iter().collect()),
            ("CARRICK_ADVERTISE", self.advertise.iter().collect()),
            ("NSM_CONNECT_TO", manager.into_iter().collect()),
            ("CARRICK_REGISTRY_URL", registry.into_iter().collect()),
            ("CARRICK_REGISTRY_LISTEN_ON", serve.iter().collect()),
            ("CARRICK_DOMAINS", domains),
            (
                "NSM_PREFIX_SERVER_URL",
                self.addresses.servers.iter().collect(),
            ),
        ];
        for (variable, urls) in named {
            let mut tcp = urls
                .into_iter()
                .filter(|url| matches!(url, Url::Tcp { .. }));
            if let Some(url) = tcp.next() {
                r.mistake(Invalid::new(
                    variable,
                    url,
                    "allowed without NSM_INSECURE=true: mutual TLS is not configured, and plaintext over TCP must be asked for",
                ));
            }
        }
    }
}

fn read_setting(r: &mut Reader<'_>) -> Option<Setting> {
    let connect_to = r.read("NSM_CONNECT_TO", optional_url);
    let registry = r.read("CARRICK_REGISTRY_URL", optional_url);
    let serve = r.read("CARRICK_REGISTRY_LISTEN_ON", list(url));
    match (connect_to?, registry?) {
        (Some(_), Some(registry)) => {
            let either = "set together with NSM_CONNECT_TO: a manager brings its registry";
            r.mistake(Invalid::new("CARRICK_REGISTRY_URL", registry, either));
            None
        }
        (Some(manager), None) => Some(Setting::Mesh(manager)),
        (None, registry) => Some(Setting::StandAlone {
            registry,
            serve_registry_on: serve?,
        }),
    }
}

fn read_agent(r: &mut Reader<'_>, setting: Option<&Setting>) -> Option<AgentKind> {
    let kind = r.read("CARRICK_AGENT", |text| match text {
        "" => Ok(None),
        "kernel" => Ok(Some(AgentKind::Kernel)),
        "none" => Ok(Some(AgentKind::None)),
        other => match url(other) {
            Ok(Url::Unix(path)) if path.is_absolute() => Ok(Some(AgentKind::Remote(path))),
            _ => Err(Invalid::new("", other, "kernel, none or unix:///path")),
        },
    })?;
    kind.or_else(|| match setting? {
        Setting::Mesh(_) => Some(AgentKind::None),
        Setting::StandAlone { .. } => Some(AgentKind::Kernel),
    })
}

fn read_node(
    r: &mut Reader<'_>,
    setting: Option<&Setting>,
    services: Option<&[ServiceName]>,
) -> Option<Node> {
    let router = r.read("CARRICK_ROUTER", text);
    let node = Node {
        name: r.read("NODE_NAME", text)?,
        tunnel_ip: r.read("CARRICK_TUNNEL_IP", address)?,
        underlay_mtu: r.read("CARRICK_UNDERLAY_MTU", mtu)?,
        vxlan_port: r.read("CARRICK_VXLAN_PORT", number(1..=65_535))?,
        router: match (router?.as_str(), setting?) {
            ("own", _) | ("", Setting::Mesh(_)) => None,
            ("", Setting::StandAlone { .. }) => {
                Some(format!("carrick-{}", services?.first()?.target()))
            }
            (name, _) => Some(name.to_owned()),
        },
    };
    let plain = |name: &str| !name.contains('/') && name != "." && name != ".." && name.len() < 200;
    match &node.router {
        Some(name) if !plain(name) => {
            r.mistake(Invalid::new("CARRICK_ROUTER", name, "a file name, or own"));
            None
        }
        _ => Some(Node {
            name: node_name(node.name),
            ..node
        }),
    }
}

/// Without a given name a node is known by its boot: two nodes never share it.
fn node_name(given: String) -> String {
    if !given.is_empty() {
        return given;
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("boot-{}", boot.trim())
}

fn read_times(r: &mut Reader<'_>) -> Option<Times> {
    Some(Times {
        dial: r.read("NSM_DIAL_TIMEOUT", positive)?,
        request: r.read("NSM_REQUEST_TIMEOUT", positive)?,
        token: r.read("NSM_MAX_TOKEN_LIFETIME", positive)?,
        idle: r.read("NSM_IDLE_TIMEOUT", duration)?,
        liveness: r.read("NSM_LIVENESS_CHECK_ENABLED", boolean)?,
        liveness_interval: r.read("NSM_LIVENESS_CHECK_INTERVAL", positive)?,
        liveness_timeout: r.read("NSM_LIVENESS_CHECK_TIMEOUT", positive)?,
        grace: r.read("CARRICK_SHUTDOWN_GRACE", positive)?,
    })
}

fn read_addresses(r: &mut Reader<'_>) -> Option<Addresses> {
    let fixed = r.read("CARRICK_PREFIXES", prefixes)?;
    let servers = r.read("NSM_PREFIX_SERVER_URL", list(url))?;
    Some(Addresses {
        servers: if fixed.is_empty() {
            servers
        } else {
            Vec::new()
        },
        fixed,
        networks: r.read("CARRICK_NETWORKS", prefixes)?,
        routes: r.read("CARRICK_ROUTES", list(carrick_config::prefix))?,
        excluded: r.read("CARRICK_EXCLUDED_PREFIXES", list(carrick_config::prefix))?,
        rest: r.read("CARRICK_ADDRESS_REST", duration)?,
    })
}

fn read_dns(r: &mut Reader<'_>) -> Option<Dns> {
    let some_address =
        |text: &str| address(text)?.ok_or_else(|| Invalid::new("", text, "an IP address"));
    Some(Dns {
        templates: r.read("NSM_DNS_TEMPLATES", list(text))?,
        listen: r.read("CARRICK_DNS_LISTEN", names_at)?,
        name_servers: r.read("CARRICK_NAME_SERVERS", list(some_address))?,
        zones: r.read("CARRICK_DNS_ZONES", list(text))?,
    })
}

fn read_masks(r: &mut Reader<'_>) -> Option<Masks> {
    Some(Masks {
        server: r.read("CARRICK_SERVER_POLICIES", list(text))?,
        monitor: r.read("CARRICK_MONITOR_POLICIES", list(text))?,
        client: r.read("CARRICK_CLIENT_POLICIES", list(text))?,
        registry_client: r.read("NSM_REGISTRY_CLIENT_POLICIES", list(text))?,
        registry_server: r.read("NSM_REGISTRY_SERVER_POLICIES", list(text))?,
    })
}

/// Where traces go, if anywhere.
struct Traces(Option<String>);

/// Traces are sent only where `TELEMETRY` says so (NSM `opentelemetry.IsEnabled`).
fn read_telemetry(r: &mut Reader<'_>) -> Option<Traces> {
    let on = r.read("TELEMETRY", boolean)?;
    let endpoint = r.read("NSM_OPEN_TELEMETRY_ENDPOINT", text)?;
    Some(Traces(on.then_some(endpoint)))
}

fn url(text: &str) -> Result<Url, Invalid> {
    text.parse()
}

fn optional_url(text: &str) -> Result<Option<Url>, Invalid> {
    Some(text)
        .filter(|text| !text.is_empty())
        .map(url)
        .transpose()
}

fn admin(text: &str) -> Result<Option<Address>, Invalid> {
    let expected = "tcp://address:port or unix:///path";
    let parse = |text: &str| text.parse().map_err(|_| Invalid::new("", text, expected));
    Some(text)
        .filter(|text| !text.is_empty())
        .map(parse)
        .transpose()
}

fn names_at(text: &str) -> Result<NamesAt, Invalid> {
    let expected = "address:port, such as 127.0.0.1:53, or :port";
    let invalid = || Invalid::new("", text, expected);
    match text.strip_prefix(':') {
        _ if text.is_empty() => Ok(NamesAt::Own(NamesAt::PORT)),
        Some(port) => match port.parse() {
            Ok(port) if port != 0 => Ok(NamesAt::Own(port)),
            _ => Err(invalid()),
        },
        None => text.parse().map(NamesAt::Address).map_err(|_| invalid()),
    }
}

fn mtu(text: &str) -> Result<Mtu, Invalid> {
    let bytes = text
        .parse()
        .map_err(|_| Invalid::new("", text, "1280 to 65535 bytes"))?;
    Mtu::new(bytes)
}

fn positive(text: &str) -> Result<Duration, Invalid> {
    let time = duration(text)?;
    if time.is_zero() {
        return Err(Invalid::new("", text, "a time longer than zero"));
    }
    Ok(time)
}

fn at_least_one<T>(
    item: impl Fn(&str) -> Result<T, Invalid>,
) -> impl Fn(&str) -> Result<Vec<T>, Invalid> {
    move |text| {
        let items = list(&item)(text)?;
        if items.is_empty() {
            return Err(Invalid::new("", text, "a list with at least one item"));
        }
        Ok(items)
    }
}

/// Where to listen: URLs, or (NSM's form) the name of a socket file, which then
/// stands in the endpoint's directory below `/run/carrick`.
fn listen_on(name: Option<&EndpointName>) -> impl Fn(&str) -> Result<Vec<Url>, Invalid> {
    let directory = format!("/run/carrick/{}", name.map_or("nse", EndpointName::as_str));
    move |text| {
        let item = |text: &str| {
            if text.contains("://") || text.contains(':') {
                url(text)
            } else if text.contains('/') {
                Err(Invalid::new("", text, "a URL or the name of a socket file"))
            } else {
                Ok(Url::Unix(PathBuf::from(&directory).join(text)))
            }
        };
        at_least_one(item)(text)
    }
}

/// `name:url` pairs with commas between them.
fn domains(text: &str) -> Result<Vec<(String, Url)>, Invalid> {
    let pairs = labels(text)?;
    pairs
        .0
        .into_iter()
        .map(|(name, registry)| Ok((name, url(&registry)?)))
        .collect()
}

#[cfg(test)]
mod tests;
