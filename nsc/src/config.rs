//! Settings of a client, from the environment under NSM's names.

use std::path::PathBuf;
use std::time::Duration;

use carrick_config::{
    LOG_LEVEL, Mistakes, OPEN_TELEMETRY_ENDPOINT, Reader, Source, TELEMETRY, Variable,
};
use carrick_config::{boolean, duration, labels, list, optional_path, text};
use carrick_grpc::Url;
use carrick_policy::Policies;
use carrick_types::{ConnectionId, Invalid, Labels};

use crate::service::Wanted;

/// Every setting of a client. Names without `CARRICK_` are NSM's.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "NSM_NAME",
        default: "nsc",
        meaning: "Name of the client; its connections are `<name>-0`, `<name>-1`, …, so it must be unique at the endpoint or manager.",
    },
    Variable {
        name: "NSM_CONNECT_TO",
        default: "unix:///var/lib/networkservicemesh/nsm.io.sock",
        meaning: "URL of the NSM manager or, stand-alone, of the node's endpoint.",
    },
    Variable {
        name: "NSM_NETWORK_SERVICES",
        default: "",
        meaning: "Services to request, with commas between them: `kernel://service[@domain]/interface?label=value&label=value`.",
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
        name: "NSM_INSECURE",
        default: "false",
        meaning: "Whether plaintext over TCP is allowed; loudly logged.",
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
        name: "CARRICK_CLIENT_POLICIES",
        default: Policies::CLIENT,
        meaning: "Policies about what the next hop answers: paths of files or regular expressions for them, with commas between them. NSM's own are built in; a file with the path of one replaces it. Empty: none. Asked over TLS only.",
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
    LOG_LEVEL,
    TELEMETRY,
    OPEN_TELEMETRY_ENDPOINT,
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
    /// Labels of every connection, those of pod, node and cluster among them.
    pub labels: Labels,
    /// Name of the node; empty where it has none.
    pub node: String,
    /// Whether plaintext is allowed.
    pub insecure: bool,
    /// Masks of the policies about what the next hop answers.
    pub policies: Vec<String>,
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
    /// Log level.
    pub log_level: String,
    /// Where traces go.
    pub telemetry: Option<String>,
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
        r.read("NSM_MECHANISM", |text| match text {
            "kernel" | "KERNEL" => Ok(()),
            _ => Err(Invalid::new("", text, "kernel")),
        });
        let config = (|| {
            Some(Self {
                insecure: r.read("NSM_INSECURE", boolean)?,
                policies: r.read("CARRICK_CLIENT_POLICIES", list(text))?,
                dial_timeout: r.read("NSM_DIAL_TIMEOUT", positive)?,
                request_timeout: r.read("NSM_REQUEST_TIMEOUT", positive)?,
                token_lifetime: r.read("NSM_MAX_TOKEN_LIFETIME", positive)?,
                close_at_exit: r.read("CARRICK_CLOSE_AT_EXIT", boolean)?,
                grace: r.read("CARRICK_SHUTDOWN_GRACE", positive)?,
                state_dir: r.read("CARRICK_STATE_DIR", optional_path)?,
                admin: r.read("CARRICK_ADMIN", optional_url)?,
                log_level: r.read("NSM_LOG_LEVEL", text)?,
                telemetry: read_telemetry(r)?,
                node: r.read("NODE_NAME", text)?,
                name: name?,
                connect_to: connect_to?,
                services: services?,
                labels: labels?,
                liveness: liveness?,
            })
        })();
        if let Some(config) = &config
            && !config.insecure
            && matches!(config.connect_to, Url::Tcp { .. })
        {
            let allowed = "allowed without NSM_INSECURE=true: mutual TLS is not configured, and plaintext over TCP must be asked for";
            reader.mistake(Invalid::new("NSM_CONNECT_TO", &config.connect_to, allowed));
        }
        reader.finish(config)
    }
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

/// Traces are sent only where `TELEMETRY` says so (NSM `opentelemetry.IsEnabled`).
#[expect(
    clippy::option_option,
    reason = "a mistake is not the same as no traces"
)]
fn read_telemetry(r: &mut Reader<'_>) -> Option<Option<String>> {
    let on = r.read("TELEMETRY", boolean)?;
    let endpoint = r.read("NSM_OPEN_TELEMETRY_ENDPOINT", text)?;
    Some(on.then_some(endpoint))
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

fn optional_url(text: &str) -> Result<Option<Url>, Invalid> {
    Some(text)
        .filter(|text| !text.is_empty())
        .map(str::parse)
        .transpose()
}

fn positive(text: &str) -> Result<Duration, Invalid> {
    let time = duration(text)?;
    if time.is_zero() {
        return Err(Invalid::new("", text, "a time longer than zero"));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(settings: &[(&'static str, &'static str)]) -> Result<Config, Mistakes> {
        let source: BTreeMap<&str, &str> = settings.iter().copied().collect();
        Config::read(&source)
    }

    #[test]
    fn a_client_wants_at_least_one_service() {
        let error = read(&[]).unwrap_err().to_string();
        assert!(error.contains("NSM_NETWORK_SERVICES"), "{error}");
        assert!(read(&[("NSM_NETWORK_SERVICES", "kernel://vl3/nsm-1")]).is_ok());
    }

    #[test]
    fn two_services_cannot_share_an_interface() {
        assert!(read(&[("NSM_NETWORK_SERVICES", "kernel://a/nsm-1,kernel://b/nsm-1")]).is_err());
        let config = read(&[("NSM_NETWORK_SERVICES", "kernel://a/nsm-1,kernel://b/nsm-2")]);
        assert_eq!(config.unwrap().services.len(), 2);
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
