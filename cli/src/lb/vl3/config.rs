//! Settings, under the names of NSM's `cmd-lb-vl3-vpp`.

use std::num::NonZeroU16;

use carrick_config::{Mistakes, Reader, Source, Variable, labels, list, number};
use carrick_grpc::Url;
use carrick_lb::service::Protocol;
use carrick_telemetry::Address;
use carrick_types::{Invalid, Labels};

use crate::programs::optional_address;

/// What is read besides the settings of `carrick nsc`.
pub(crate) const VARIABLES: &[Variable] = &[
    Variable {
        name: NAME,
        default: "cmd-lb-vl3-vpp",
        meaning: "Name of the balancer; its connections are `<name>-0`, `<name>-1`, ….",
    },
    Variable {
        name: NETWORK_SERVICES,
        default: "",
        meaning: "Networks in which it balances, with commas between them: `kernel://service[@domain]/interface?label=value`. `memif://` is taken as `kernel://`, as there is no VPP. The VIP is the address that the connection is given, one of each family.",
    },
    Variable {
        name: PORT,
        default: "0",
        meaning: "Port of the VIP, 1 to 65535; must be set.",
    },
    Variable {
        name: TARGET_PORT,
        default: "0",
        meaning: "Port of the servers; 0 is `NSM_PORT`.",
    },
    Variable {
        name: PROTOCOL,
        default: "TCP",
        meaning: "`TCP`, `UDP` or `SCTP`.",
    },
    Variable {
        name: SELECTOR,
        default: "",
        meaning: "Clients of the network with all these labels are servers, `key:value,key:value`; without one nobody is.",
    },
    Variable {
        name: REGISTRY_URL,
        default: "",
        meaning: "Registry in which the endpoints of the network are found. Empty: `NSM_CONNECT_TO`, where NSM's manager serves it.",
    },
    Variable {
        name: ADMIN,
        default: "",
        meaning: "Where `/metrics`, `/healthz`, `/readyz` and `/status` are served, a URL. Empty: `/run/carrick/<name>.admin`.",
    },
];

const NAME: &str = "NSM_NAME";
const NETWORK_SERVICES: &str = "NSM_NETWORK_SERVICES";
const PORT: &str = "NSM_PORT";
const TARGET_PORT: &str = "NSM_TARGET_PORT";
const PROTOCOL: &str = "NSM_PROTOCOL";
const SELECTOR: &str = "NSM_SELECTOR";
const REGISTRY_URL: &str = "CARRICK_REGISTRY_URL";
const ADMIN: &str = "CARRICK_ADMIN";

/// Valid settings of a balancer in a network.
#[derive(Debug)]
pub(super) struct Config {
    /// Those of the client that it is.
    pub(super) client: carrick_nsc::Config,
    pub(super) port: NonZeroU16,
    pub(super) target_port: NonZeroU16,
    pub(super) protocol: Protocol,
    pub(super) selector: Labels,
    pub(super) registry: Url,
    pub(super) admin: Option<Address>,
}

impl Config {
    /// Reads the settings; all mistakes at once.
    pub(super) fn read(source: &dyn Source) -> Result<Self, Mistakes> {
        let client = carrick_nsc::Config::read(&Client(source));
        let mut reader = Reader::new(source, VARIABLES);
        let r = &mut reader;
        let port = r.read(PORT, number(0..=u16::MAX)).map(NonZeroU16::new);
        if port == Some(None) {
            r.mistake(Invalid::new(PORT, 0, "the port of the VIP, 1 to 65535"));
        }
        let target_port = r.read(TARGET_PORT, number(0..=u16::MAX));
        let protocol = r.read(PROTOCOL, protocol);
        let selector = r.read(SELECTOR, labels);
        let registry = r.read(REGISTRY_URL, |text| match text {
            "" => Ok(None),
            text => text.parse::<Url>().map(Some),
        });
        let admin = r.read(ADMIN, optional_address);
        let (client, mut mistakes) = match client {
            Ok(client) => (Some(client), Vec::new()),
            Err(Mistakes(mistakes)) => (None, mistakes),
        };
        let own = reader.finish(Some(()));
        if let Err(Mistakes(more)) = own {
            mistakes.extend(more);
        }
        let config = (|| {
            let client = client?;
            let port = port??;
            Some(Self {
                registry: registry?.unwrap_or_else(|| client.connect_to.clone()),
                client,
                port,
                target_port: NonZeroU16::new(target_port?).unwrap_or(port),
                protocol: protocol?,
                selector: selector?,
                admin: admin?,
            })
        })();
        match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            _ => Err(Mistakes(mistakes)),
        }
    }
}

fn protocol(text: &str) -> Result<Protocol, Invalid> {
    match text.to_ascii_uppercase().as_str() {
        "SCTP" => Ok(Protocol::Sctp),
        "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        _ => Err(Invalid::new("", text, "TCP, UDP or SCTP")),
    }
}

/// The settings as the client in it reads them.
struct Client<'a>(&'a dyn Source);

impl Source for Client<'_> {
    fn text(&self, name: &str) -> Option<String> {
        let told = self.0.text(name);
        match name {
            NAME => told.or_else(|| Some(VARIABLES[0].default.to_owned())),
            NETWORK_SERVICES => told.map(|text| kernel(&text)),
            // The balancer has its own, with the client's connections in it.
            ADMIN => None,
            // As cmd-lb-vl3-vpp: it neither probes nor resolves.
            "NSM_LIVENESS_CHECK_ENABLED" | "NSM_LOCAL_DNS_SERVER_ENABLED" => {
                told.or_else(|| Some("false".to_owned()))
            }
            _ => told,
        }
    }
}

/// Networks by the kernel's mechanism that were asked for by VPP's.
fn kernel(services: &str) -> String {
    let one = |service: &str| {
        Ok(match service.strip_prefix("memif://") {
            Some(rest) => format!("kernel://{rest}"),
            None => service.to_owned(),
        })
    };
    list(one)(services).unwrap_or_default().join(",")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(settings: &[(&'static str, &'static str)]) -> Result<Config, Mistakes> {
        let source: BTreeMap<&str, &str> = settings.iter().copied().collect();
        Config::read(&source)
    }

    const LEAST: [(&str, &str); 3] = [
        ("NSM_INSECURE", "true"),
        (NETWORK_SERVICES, "memif://vl3@west/nsm-1"),
        (PORT, "8080"),
    ];

    #[test]
    fn the_settings_of_the_vpp_balancer_are_understood() {
        let config = read(&LEAST).unwrap();
        assert_eq!(config.client.name, "cmd-lb-vl3-vpp");
        assert_eq!(config.client.services[0].service.as_str(), "vl3@west");
        assert_eq!(config.target_port, config.port);
        assert_eq!(config.protocol, Protocol::Tcp);
        assert!(config.selector.0.is_empty());
        assert_eq!(config.registry, config.client.connect_to);
        assert!(config.client.liveness.is_none());

        let more = [
            (NAME, "lb-1"),
            (TARGET_PORT, "80"),
            (PROTOCOL, "UDP"),
            (SELECTOR, "app:web,tier:1"),
            (REGISTRY_URL, "unix:///run/registry.sock"),
        ];
        let config = read(&[&LEAST[..], &more].concat()).unwrap();
        assert_eq!(config.client.name, "lb-1");
        assert_eq!(config.target_port.get(), 80);
        assert_eq!(config.protocol, Protocol::Udp);
        assert_eq!(config.selector.value("tier"), Some("1"));
        assert_ne!(config.registry, config.client.connect_to);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let wrong = [(PROTOCOL, "ICMP"), (SELECTOR, "web"), (TARGET_PORT, "x")];
        let told = read(&wrong).unwrap_err().to_string();
        for name in [NETWORK_SERVICES, PORT, PROTOCOL, SELECTOR, TARGET_PORT] {
            assert!(told.contains(name), "{name}: {told}");
        }
    }
}
