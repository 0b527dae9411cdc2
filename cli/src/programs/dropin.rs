//! The settings of NSM's programs, written out as they are there, against ours.

use std::collections::BTreeMap;

use super::ipam;

/// A setting of one of NSM's programs: its name, its default there, and another
/// value, which must make a difference.
type Row = (&'static str, &'static str, &'static str);

const ENDPOINT: &str = "otel-collector.observability.svc.cluster.local:4317";
const POLICIES: &str =
    "etc/nsm/opa/common/.*.rego,etc/nsm/opa/registry/.*.rego,etc/nsm/opa/client/.*.rego";
const MANAGER: &str = "unix:///var/lib/networkservicemesh/nsm.io.sock";
const NAMES: &str = "{{ index .Labels \"podName\" }}.{{ .NetworkService }}.";

/// Of every program.
const COMMON: &[Row] = &[
    ("NSM_LOG_LEVEL", "INFO", "DEBUG"),
    ("NSM_OPEN_TELEMETRY_ENDPOINT", ENDPOINT, "here:4317"),
    ("NSM_METRICS_EXPORT_INTERVAL", "10s", "30s"),
    ("NSM_PPROF_ENABLED", "false", "true"),
    ("NSM_PPROF_LISTEN_ON", "localhost:6060", "localhost:7070"),
    ("TELEMETRY", "false", "true"),
];

/// cmd-nse-vl3-vpp.
const NSE: &[Row] = &[
    ("NSM_NAME", "vL3-server", "other"),
    ("NSM_DIAL_TIMEOUT", "5s", "1s"),
    ("NSM_REQUEST_TIMEOUT", "15s", "1s"),
    ("NSM_LISTEN_ON", "listen.on.sock", "other.sock"),
    ("NSM_CONNECT_TO", MANAGER, "unix:///other.sock"),
    ("NSM_MAX_TOKEN_LIFETIME", "10m", "1m"),
    ("NSM_SERVICE_NAMES", "vL3", "a,b"),
    ("NSM_LABELS", "", "app:vl3"),
    ("NSM_REQUEST_LABELS", "", "app:vl3"),
    ("NSM_IDLE_TIMEOUT", "0", "1m"),
    ("NSM_REGISTER_SERVICE", "true", "false"),
    ("NSM_UNREGISTER_ITSELF", "true", "false"),
    (
        "NSM_PREFIX_SERVER_URL",
        "vl3-ipam:5006",
        "tcp://a:5006,b:5006",
    ),
    (
        "NSM_DNS_TEMPLATES",
        NAMES,
        "{{ .Labels.app }}.a.,{{ target .NetworkService }}.b.",
    ),
    ("NSM_LIVENESS_CHECK_ENABLED", "true", "false"),
    ("NSM_LIVENESS_CHECK_INTERVAL", "1200ms", "2s"),
    ("NSM_LIVENESS_CHECK_TIMEOUT", "1s", "2s"),
    ("NODE_NAME", "", "n1"),
    ("POD_NAME", "", "p1"),
    ("CLUSTER_NAME", "", "west"),
];

/// cmd-nsc.
const NSC: &[Row] = &[
    ("NSM_NAME", "nsc", "other"),
    ("NSM_CONNECT_TO", MANAGER, "unix:///other.sock"),
    ("NSM_DIAL_TIMEOUT", "5s", "1s"),
    ("NSM_REQUEST_TIMEOUT", "15s", "1s"),
    ("NSM_MAX_TOKEN_LIFETIME", "10m", "1m"),
    ("NSM_LABELS", "", "app:web"),
    ("NSM_MECHANISM", "kernel", "memif"),
    ("NSM_NETWORK_SERVICES", "", "kernel://other@west/nsm-2?a=b"),
    ("NSM_AWARENESS_GROUPS", "", "[kernel://vl3/nsm-1]"),
    ("NSM_LOCAL_DNS_SERVER_ENABLED", "true", "false"),
    (
        "NSM_LOCAL_DNS_SERVER_ADDRESS",
        "127.0.0.1:53",
        "127.0.0.2:53",
    ),
    ("NSM_LIVENESS_CHECK_ENABLED", "true", "false"),
    ("NSM_LIVENESS_CHECK_INTERVAL", "200ms", "2s"),
    ("NSM_LIVENESS_CHECK_TIMEOUT", "1s", "2s"),
    ("NODE_NAME", "", "n1"),
    ("POD_NAME", "", "p1"),
    ("CLUSTER_NAME", "", "west"),
];

/// cmd-ipam-vl3.
const IPAM: &[Row] = &[
    ("NSM_LISTEN_ON", "unix:///listen.on.socket", "tcp://:5006"),
    ("NSM_PREFIX", "169.254.0.0/16", "172.16.0.0/16"),
    ("NSM_CLIENT_PREFIX_LEN", "24", "28"),
];

/// Defaults that are others by intent: program, setting, ours. Why stands in
/// `docs/conformance.md`.
const OTHERS: &[(&str, &str, &str)] = &[
    ("nse", "NSM_CONNECT_TO", ""),
    ("nse", "NSM_LIVENESS_CHECK_INTERVAL", "300ms"),
    ("nse", "NSM_LIVENESS_CHECK_TIMEOUT", "400ms"),
];

/// A program, NSM's settings of it, and what it needs to be started at all.
struct Program {
    name: &'static str,
    rows: &'static [Row],
    ours: &'static [carrick_config::Variable],
    needs: &'static [(&'static str, &'static str)],
    read: fn(&BTreeMap<String, String>) -> String,
}

const PROGRAMS: [Program; 3] = [
    Program {
        name: "nse",
        rows: NSE,
        ours: carrick_nse::config::VARIABLES,
        needs: &[("NSM_INSECURE", "true")],
        read: |settings| outcome(carrick_nse::Config::read(settings)),
    },
    Program {
        name: "nsc",
        rows: NSC,
        ours: carrick_nsc::VARIABLES,
        needs: &[
            ("NSM_INSECURE", "true"),
            ("NSM_NETWORK_SERVICES", "kernel://vl3/nsm-1"),
        ],
        read: |settings| outcome(carrick_nsc::Config::read(settings)),
    },
    Program {
        name: "ipam",
        rows: IPAM,
        ours: ipam::VARIABLES,
        needs: &[("NSM_INSECURE", "true")],
        read: |settings| outcome(ipam::read(settings)),
    },
];

/// The configuration as it is dumped, or what is wrong with the settings.
fn outcome<T: std::fmt::Debug>(read: Result<T, carrick_config::Mistakes>) -> String {
    read.map_or_else(|wrong| wrong.to_string(), |config| format!("{config:?}"))
}

impl Program {
    fn rows(&self) -> impl Iterator<Item = &'static Row> {
        self.rows.iter().chain(COMMON)
    }

    /// With what must be on for each setting to have its effect.
    fn outcome(&self, name: &str, value: Option<&str>) -> String {
        let on = [("TELEMETRY", "true"), ("NSM_PPROF_ENABLED", "true")];
        let switches = on.iter().filter(|(switch, _)| *switch != name);
        let mut settings: BTreeMap<String, String> = switches
            .chain(self.needs)
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        if let Some(value) = value {
            settings.insert(name.to_owned(), value.to_owned());
        }
        (self.read)(&settings)
    }
}

#[test]
fn every_setting_of_nsms_programs_has_its_name_and_default() {
    let page = include_str!("../../../docs/conformance.md");
    for program in &PROGRAMS {
        for &(name, default, _) in program.rows() {
            let ours = program.ours.iter().find(|variable| variable.name == name);
            let ours = ours.unwrap_or_else(|| panic!("{} has no {name}", program.name));
            let other = OTHERS
                .iter()
                .find(|(of, setting, _)| (*of, *setting) == (program.name, name));
            let expected = other.map_or(default, |(_, _, other)| other);
            assert_eq!(ours.default, expected, "{name} of {}", program.name);
            if other.is_some() {
                let row = format!("| {} | `{name}` |", program.name);
                assert!(page.contains(&row), "docs/conformance.md has no {row}");
            }
        }
    }
}

#[test]
fn every_setting_of_nsms_programs_has_an_effect() {
    for program in &PROGRAMS {
        for &(name, _, value) in program.rows() {
            let usual = program.outcome(name, None);
            let changed = program.outcome(name, Some(value));
            assert_ne!(usual, changed, "{name} of {}", program.name);
            let refused = name == "NSM_MECHANISM";
            assert_eq!(changed.contains("mistake"), refused, "{name}: {changed}");
        }
    }
}

#[test]
fn what_is_not_set_is_as_if_it_were_set_to_its_default() {
    for program in &PROGRAMS {
        for variable in program.ours {
            let needed = program.needs.iter().any(|(name, _)| *name == variable.name);
            // Whether it was said decides whose file may be changed.
            let is_said = variable.name == "NSM_LOCAL_DNS_SERVER_ENABLED";
            if needed || is_said {
                continue;
            }
            let unset = program.outcome(variable.name, None);
            let set = program.outcome(variable.name, Some(variable.default));
            assert_eq!(unset, set, "{} of {}", variable.name, program.name);
        }
    }
}

#[test]
fn an_endpoint_that_is_started_as_nsms_looks_for_the_manager_where_nsms_does() {
    let nse = &PROGRAMS[0];
    // As NSM's charts start it: with nothing but identities.
    let socket = "unix:///run/spire/agent.sock".to_owned();
    let started = (nse.read)(&BTreeMap::from([(
        "SPIFFE_ENDPOINT_SOCKET".to_owned(),
        socket,
    )]));
    assert!(started.contains("Mesh"), "{started}");
    assert!(
        started.contains("/var/lib/networkservicemesh/nsm.io.sock"),
        "{started}"
    );
}

/// The variable is made known together with its meaning, which see.
#[test]
fn the_policies_of_the_registry_client_have_their_default_where_they_are_known() {
    let known = carrick_nse::config::VARIABLES.iter();
    let mut known = known.filter(|variable| variable.name == "NSM_REGISTRY_CLIENT_POLICIES");
    assert!(known.all(|variable| variable.default == POLICIES));
}
