//! Settings of a client, from the environment under NSM's names.

use std::path::PathBuf;
use std::time::Duration;

use carrick_config::{
    LOG_LEVEL, METRICS_EXPORT_INTERVAL, Mistakes, OPEN_TELEMETRY_ENDPOINT, Observability,
    PPROF_ENABLED, PPROF_LISTEN_ON, Reader, SPIFFE_ENDPOINT_SOCKET, Source, TELEMETRY, Variable,
};
use carrick_config::{boolean, labels, list, optional_path, positive, text};
use carrick_grpc::{SecuritySettings, Url, workload_api};
use carrick_types::{ConnectionId, Invalid, Labels};

use crate::awareness::groups;
use crate::dns::{LocalDns, Switch};
use crate::service::Wanted;

/// The node's manager, where NSM's programs find it.
const MANAGER: &str = "unix:///var/lib/networkservicemesh/nsm.io.sock";

/// Every setting of a client. Names without `CARRICK_` are NSM's.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "NSM_NAME",
        default: "nsc",
        meaning: "Name of the client; its connections are `<name>-0`, `<name>-1`, …, so it must be unique at the endpoint or manager.",
    },
    Variable {
        name: "NSM_CONNECT_TO",
        default: MANAGER,
        meaning: "URL of the NSM manager or, stand-alone, of the node's endpoint.",
    },
    Variable {
        name: "NSM_NETWORK_SERVICES",
        default: "",
        meaning: "Services to request, with commas between them: `kernel://service[@domain]/interface?label=value&label=value`; without an interface it has a name made of the service's.",
    },
    Variable {
        name: "NSM_LABELS",
        default: "",
        meaning: "Labels of every connection, `key:value,key:value`.",
    },
    Variable {
        name: "NSM_MECHANISM",
        default: "kernel",
        meaning: "Mechanism of services that name none; only `kernel` is supported.",
    },
    Variable {
        name: "NSM_AWARENESS_GROUPS",
        default: "",
        meaning: "Services of which one may give what another has given: `[kernel://a/nsm-1,kernel://b/nsm-2],[…]`, each by service and interface. What services that share no group have given is excluded from each other's Requests, and an answer with such an address is refused.",
    },
    Variable {
        name: "NSM_LOCAL_DNS_SERVER_ENABLED",
        default: "true",
        meaning: "Whether a name server for this pod alone is run: it asks endpoints for the names that they serve and the former servers for the rest, and `resolv.conf` points to it while endpoints serve names. Not set: only where that file is the container's own (a mount), so that by hand a machine's is left alone, with a warning.",
    },
    Variable {
        name: "NSM_LOCAL_DNS_SERVER_ADDRESS",
        default: "127.0.0.1:53",
        meaning: "Where it listens, `address:port`.",
    },
    Variable {
        name: "CARRICK_RESOLV_CONF",
        default: "/etc/resolv.conf",
        meaning: "The file that tells programs where to ask for names; at the end, and at the next start after a crash, it is as before.",
    },
    Variable {
        name: "NSM_INSECURE",
        default: "false",
        meaning: "Whether plaintext is allowed, over TCP and in a mesh; loudly logged. Not together with `SPIFFE_ENDPOINT_SOCKET`.",
    },
    Variable {
        name: "NSM_DIAL_TIMEOUT",
        default: "5s",
        meaning: "Longest wait for a transport connection.",
    },
    Variable {
        name: "NSM_REQUEST_TIMEOUT",
        default: "15s",
        meaning: "Longest wait for the answer to one Request or Close.",
    },
    Variable {
        name: "NSM_MAX_TOKEN_LIFETIME",
        default: "10m",
        meaning: "Longest life of a path token; a client that vanishes is forgotten after it.",
    },
    Variable {
        name: "NSM_LIVENESS_CHECK_ENABLED",
        default: "true",
        meaning: "Whether the data path is probed by ICMP.",
    },
    Variable {
        name: "NSM_LIVENESS_CHECK_INTERVAL",
        default: "200ms",
        meaning: "Time between two probes.",
    },
    Variable {
        name: "NSM_LIVENESS_CHECK_TIMEOUT",
        default: "1s",
        meaning: "Longest wait for the answer to a probe.",
    },
    Variable {
        name: "NODE_NAME",
        default: "",
        meaning: "Name of the node, also label `nodeName`.",
    },
    Variable {
        name: "POD_NAME",
        default: "",
        meaning: "Label `podName`: the client's name in the network.",
    },
    Variable {
        name: "CLUSTER_NAME",
        default: "",
        meaning: "Label `clusterName`.",
    },
    Variable {
        name: "CARRICK_CLOSE_AT_EXIT",
        default: "true",
        meaning: "Whether an orderly end closes the connections; `false` leaves them for the next start to go on with.",
    },
    Variable {
        name: "CARRICK_SHUTDOWN_GRACE",
        default: "15s",
        meaning: "Longest time for an orderly end.",
    },
    Variable {
        name: "CARRICK_STATE_DIR",
        default: "",
        meaning: "Directory of the client's identity; empty: a new one at each start.",
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

/// A valid configuration of a client.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the client.
    pub name: String,
    /// Manager or endpoint.
    pub connect_to: Url,
    /// What is requested.
    pub services: Vec<Wanted>,
    /// Services that know of each other, group by group.
    pub awareness_groups: Vec<Vec<Wanted>>,
    /// The name server of this pod.
    pub local_dns: LocalDns,
    /// Labels of every connection, those of pod, node and cluster among them.
    pub labels: Labels,
    /// Name of the node; empty where it has none.
    pub node: String,
    /// How connections are secured.
    pub security: SecuritySettings,
    /// Longest wait for a transport connection.
    pub dial_timeout: Duration,
    /// Longest wait for an answer.
    pub request_timeout: Duration,
    /// Longest life of a token.
    pub token_lifetime: Duration,
    /// How the data path is probed, if it is.
    pub liveness: Option<LivenessTimes>,
    /// Whether an orderly end closes the connections.
    pub close_at_exit: bool,
    /// Longest time for an orderly end.
    pub grace: Duration,
    /// Directory of the identity.
    pub state_dir: Option<PathBuf>,
    /// Where the admin listener is.
    pub admin: Option<Url>,
    /// Logs, traces, metrics, profiles.
    pub observability: Observability,
}

impl Config {
    /// Where the admin listener is: as it was said, else beside the identity.
    pub(crate) fn admin_url(&self) -> Option<Url> {
        let beside = || {
            let file = format!("{}.admin", self.name.replace('/', "_"));
            Some(Url::Unix(self.state_dir.as_ref()?.join(file)))
        };
        self.admin.clone().or_else(beside)
    }
}

/// How the data path is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivenessTimes {
    /// Time between two probes.
    pub interval: Duration,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    ///
    /// All mistakes at once, each with the variable's name.
    pub fn read(source: &dyn Source) -> Result<Self, Mistakes> {
        let mut reader = Reader::new(source, VARIABLES);
        let r = &mut reader;
        let name = r.read("NSM_NAME", |text| ConnectionId::new(text).map(String::from));
        let connect_to = r.read("NSM_CONNECT_TO", str::parse);
        let services = read_services(r);
        let liveness = read_liveness(r);
        let labels = read_labels(r);
        let awareness_groups = read_groups(r, services.as_deref());
        let local_dns = read_local_dns(r);
        r.read("NSM_MECHANISM", |text| match text {
            "kernel" | "KERNEL" => Ok(()),
            _ => Err(Invalid::new("", text, "kernel")),
        });
        let security = read_security(r);
        let config = (|| {
            Some(Self {
                security: security?,
                dial_timeout: r.read("NSM_DIAL_TIMEOUT", positive)?,
                request_timeout: r.read("NSM_REQUEST_TIMEOUT", positive)?,
                token_lifetime: r.read("NSM_MAX_TOKEN_LIFETIME", positive)?,
                close_at_exit: r.read("CARRICK_CLOSE_AT_EXIT", boolean)?,
                grace: r.read("CARRICK_SHUTDOWN_GRACE", positive)?,
                state_dir: r.read("CARRICK_STATE_DIR", optional_path)?,
                admin: r.read("CARRICK_ADMIN", optional_url)?,
                observability: Observability::read(r)?,
                node: r.read("NODE_NAME", text)?,
                name: name?,
                connect_to: connect_to?,
                services: services?,
                labels: labels?,
                liveness: liveness?,
                awareness_groups: awareness_groups?,
                local_dns: local_dns?,
            })
        })();
        if let Some(config) = &config
            && config.security == SecuritySettings::UnixOnly
        {
            refuse_plaintext(&mut reader, &config.connect_to);
        }
        reader.finish(config)
    }
}

/// Over TCP, and to a node's manager, which others dial, too. Any other unix
/// socket is a stand-alone endpoint's, whose file mode decides.
fn refuse_plaintext(r: &mut Reader<'_>, connect_to: &Url) {
    let mistake = match connect_to {
        Url::Tcp { .. } => SecuritySettings::plaintext,
        url if url.to_string() == MANAGER => SecuritySettings::unprotected,
        _ => return,
    };
    r.mistake(mistake("NSM_CONNECT_TO", connect_to));
}

fn read_security(r: &mut Reader<'_>) -> Option<SecuritySettings> {
    let insecure = r.read("NSM_INSECURE", boolean);
    let endpoint = r.read("SPIFFE_ENDPOINT_SOCKET", workload_api);
    let settings = SecuritySettings::new(insecure?, endpoint?);
    settings.map_err(|mistake| r.mistake(mistake)).ok()
}

#[expect(
    clippy::option_option,
    reason = "a mistake is not the same as no probing"
)]
fn read_liveness(r: &mut Reader<'_>) -> Option<Option<LivenessTimes>> {
    let enabled = r.read("NSM_LIVENESS_CHECK_ENABLED", boolean)?;
    let times = LivenessTimes {
        interval: r.read("NSM_LIVENESS_CHECK_INTERVAL", positive)?,
        timeout: r.read("NSM_LIVENESS_CHECK_TIMEOUT", positive)?,
    };
    Some(enabled.then_some(times))
}

/// The given labels and those of NSM's `clientinfo`.
fn read_labels(r: &mut Reader<'_>) -> Option<Labels> {
    let mut all = r.read("NSM_LABELS", labels)?;
    let info = [
        ("NODE_NAME", "nodeName"),
        ("POD_NAME", "podName"),
        ("CLUSTER_NAME", "clusterName"),
    ];
    for (variable, label) in info {
        let value = r.read(variable, text)?;
        if !value.is_empty() {
            all.0.entry(label.to_owned()).or_insert(value);
        }
    }
    Some(all)
}

/// What is missing only shows at the end: a default is never a mistake.
fn read_services(r: &mut Reader<'_>) -> Option<Vec<Wanted>> {
    const NAME: &str = "NSM_NETWORK_SERVICES";
    let services = r.read(NAME, list(str::parse::<Wanted>))?;
    let mut interfaces: Vec<_> = services.iter().map(|service| &service.interface).collect();
    interfaces.sort();
    if services.is_empty() {
        let expected = "at least one service, such as kernel://vl3/nsm-1";
        r.mistake(Invalid::new(NAME, "", expected));
    } else if let Some(pair) = interfaces.windows(2).find(|pair| pair[0] == pair[1]) {
        let expected = "the interface of one service only: each needs its own";
        r.mistake(Invalid::new(NAME, pair[0], expected));
    }
    Some(services)
}

/// A group that names what is not requested would have no effect.
fn read_groups(r: &mut Reader<'_>, services: Option<&[Wanted]>) -> Option<Vec<Vec<Wanted>>> {
    const NAME: &str = "NSM_AWARENESS_GROUPS";
    let groups = r.read(NAME, groups)?;
    for member in groups.iter().flatten() {
        let is_requested = |services: &[Wanted]| services.iter().any(|s| s.is_same(member));
        if !services.is_none_or(is_requested) {
            let text = format!("{}/{}", member.service, member.interface);
            let expected = "a service and interface of NSM_NETWORK_SERVICES";
            r.mistake(Invalid::new(NAME, text, expected));
        }
    }
    Some(groups)
}

fn read_local_dns(r: &mut Reader<'_>) -> Option<LocalDns> {
    const ENABLED: &str = "NSM_LOCAL_DNS_SERVER_ENABLED";
    let enabled = r.read(ENABLED, boolean)?;
    let listen = r.read("NSM_LOCAL_DNS_SERVER_ADDRESS", |text| {
        text.parse()
            .map_err(|_| Invalid::new("", text, "address:port, such as 127.0.0.1:53"))
    })?;
    let resolv_conf = r.read("CARRICK_RESOLV_CONF", text)?;
    let switch = match (enabled, r.given(ENABLED)) {
        (false, _) => Switch::Off,
        (true, Some(_)) => Switch::On,
        (true, None) => Switch::OwnFile,
    };
    Some(LocalDns {
        switch,
        listen,
        resolv_conf: resolv_conf.into(),
    })
}

fn optional_url(text: &str) -> Result<Option<Url>, Invalid> {
    Some(text)
        .filter(|text| !text.is_empty())
        .map(str::parse)
        .transpose()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(settings: &[(&'static str, &'static str)]) -> Result<Config, Mistakes> {
        let endpoint = ("NSM_CONNECT_TO", "unix:///run/carrick/nse.sock");
        let settings = std::iter::once(&endpoint).chain(settings);
        let source: BTreeMap<&str, &str> = settings.copied().collect();
        Config::read(&source)
    }

    #[test]
    fn a_client_wants_at_least_one_service() {
        let error = read(&[]).unwrap_err().to_string();
        assert!(error.contains("NSM_NETWORK_SERVICES"), "{error}");
        assert!(read(&[("NSM_NETWORK_SERVICES", "kernel://vl3/nsm-1")]).is_ok());
    }

    /// Guards `refuse_plaintext`.
    #[test]
    fn the_nodes_manager_is_dialled_with_mutual_tls_or_as_was_asked_for() {
        let wanted = ("NSM_NETWORK_SERVICES", "kernel://vl3/nsm-1");
        let manager = ("NSM_CONNECT_TO", MANAGER);
        let refused = read(&[wanted, manager]).unwrap_err().to_string();
        for name in ["SPIFFE_ENDPOINT_SOCKET", "NSM_INSECURE=true"] {
            assert!(refused.contains(name), "{refused}");
        }
        let spiffe = ("SPIFFE_ENDPOINT_SOCKET", "unix:///run/agent.sock");
        read(&[wanted, manager, spiffe]).unwrap();
        read(&[wanted, manager, ("NSM_INSECURE", "true")]).unwrap();
    }

    #[test]
    fn two_services_cannot_share_an_interface() {
        assert!(read(&[("NSM_NETWORK_SERVICES", "kernel://a/nsm-1,kernel://b/nsm-1")]).is_err());
        let config = read(&[("NSM_NETWORK_SERVICES", "kernel://a/nsm-1,kernel://b/nsm-2")]);
        assert_eq!(config.unwrap().services.len(), 2);
    }

    #[test]
    fn awareness_groups_are_of_what_is_requested() {
        let services = (
            "NSM_NETWORK_SERVICES",
            "kernel://a/nsm-1?app=web,kernel://b/nsm-2",
        );
        let groups = (
            "NSM_AWARENESS_GROUPS",
            "[kernel://a/nsm-1,kernel://b/nsm-2]",
        );
        let config = read(&[services, groups]).unwrap();
        assert_eq!(config.awareness_groups[0].len(), 2);
        let other = (
            "NSM_AWARENESS_GROUPS",
            "[kernel://a/nsm-1,kernel://c/nsm-3]",
        );
        let error = read(&[services, other]).unwrap_err().to_string();
        assert!(error.contains("c/nsm-3"), "{error}");
    }

    #[test]
    fn a_name_server_is_run_as_said_and_unsaid_where_the_file_is_the_containers_own() {
        let switch = |settings: &[(&'static str, &'static str)]| {
            let mut all = vec![("NSM_NETWORK_SERVICES", "vl3/nsm-1")];
            all.extend_from_slice(settings);
            read(&all).unwrap().local_dns.switch
        };
        let enabled = |value| switch(&[("NSM_LOCAL_DNS_SERVER_ENABLED", value)]);
        assert_eq!(switch(&[]), Switch::OwnFile);
        assert_eq!(enabled("true"), Switch::On);
        assert_eq!(enabled("false"), Switch::Off);
    }

    #[test]
    fn the_pod_is_known_by_its_labels() {
        let config = read(&[
            ("NSM_NETWORK_SERVICES", "kernel://vl3/nsm-1"),
            ("POD_NAME", "web-1"),
            ("NSM_LABELS", "app:web"),
        ]);
        let labels = config.unwrap().labels;
        assert_eq!(
            (labels.value("podName"), labels.value("app")),
            (Some("web-1"), Some("web"))
        );
    }
}
