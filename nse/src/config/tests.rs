use std::collections::BTreeMap;

use super::*;

/// Instead of a prefix server, which is dialled by TCP unless something else is said.
const OWN_PREFIX: (&str, &str) = ("CARRICK_PREFIXES", "10.0.1.0/24");

fn read(settings: &[(&'static str, &'static str)]) -> Result<Config, Mistakes> {
    let source: BTreeMap<&str, &str> = settings.iter().copied().collect();
    Config::read(&source)
}

#[test]
fn nothing_set_is_a_stand_alone_endpoint() {
    let config = read(&[("NSM_INSECURE", "true")]).unwrap();
    assert_eq!(config.name.as_str(), "vL3-server");
    assert!(matches!(
        config.setting,
        Setting::StandAlone { registry: None, .. }
    ));
    assert_eq!(config.agent, AgentKind::Kernel);
    assert_eq!(config.node.router.as_deref(), Some("carrick-vL3"));
}

#[test]
fn a_manager_makes_it_part_of_a_mesh() {
    let manager = ("NSM_CONNECT_TO", "unix:///run/nsm.sock");
    let config = read(&[manager, OWN_PREFIX]).unwrap();
    assert!(matches!(config.setting, Setting::Mesh(_)));
    assert_eq!((config.agent, config.node.router), (AgentKind::None, None));
}

#[test]
fn names_are_served_at_an_address_or_a_port_and_peers_are_asked_there() {
    let at = |text| {
        Some(
            read(&[OWN_PREFIX, ("CARRICK_DNS_LISTEN", text)])
                .ok()?
                .dns
                .listen,
        )
    };
    assert_eq!(at(""), Some(NamesAt::Own(53)));
    assert_eq!(at(":5353"), Some(NamesAt::Own(5353)));
    let address = NamesAt::Address("127.0.0.1:5353".parse().unwrap());
    assert_eq!(at("127.0.0.1:5353"), Some(address));
    assert_eq!((address.port(), NamesAt::Own(5353).port()), (53, 5353));
    for wrong in [":0", ":", ":port", "127.0.0.1", "5353"] {
        assert_eq!(at(wrong), None, "{wrong}");
    }
}

#[test]
fn every_mistake_is_told_at_once_under_its_name() {
    let mistakes = read(&[
        ("NSM_DIAL_TIMEOUT", "5"),
        ("CARRICK_PREFIXES", "10.0.0.0/16,10.0.1.0/24"),
        ("CARRICK_ROUTER", "../../etc"),
        ("NSM_LABELS", "app"),
        ("CARRICK_DOMAINS", "west:nowhere"),
    ])
    .unwrap_err();
    let fields: Vec<_> = mistakes
        .0
        .iter()
        .map(|mistake| mistake.field.as_str())
        .collect();
    for field in ["NSM_DIAL_TIMEOUT", "CARRICK_PREFIXES", "CARRICK_ROUTER"] {
        assert!(fields.contains(&field), "{field} in {fields:?}");
    }
}

#[test]
fn plaintext_over_tcp_must_be_asked_for() {
    let insecure = ("NSM_INSECURE", "true");
    for (variable, value) in [
        ("NSM_LISTEN_ON", "tcp://127.0.0.1:5000"),
        ("CARRICK_ADVERTISE", "tcp://127.0.0.1:5000"),
        ("NSM_CONNECT_TO", "tcp://127.0.0.1:5001"),
        ("CARRICK_REGISTRY_URL", "tcp://127.0.0.1:5002"),
        ("CARRICK_REGISTRY_LISTEN_ON", "tcp://127.0.0.1:5002"),
        ("CARRICK_DOMAINS", "west:tcp://127.0.0.1:5003"),
    ] {
        let error = read(&[(variable, value), OWN_PREFIX])
            .unwrap_err()
            .to_string();
        assert!(error.contains(variable), "{error}");
        assert!(error.contains("NSM_INSECURE"), "{error}");
        read(&[(variable, value), OWN_PREFIX, insecure]).unwrap();
    }
    let error = read(&[]).unwrap_err().to_string();
    assert!(error.contains("NSM_PREFIX_SERVER_URL"), "{error}");
    read(&[OWN_PREFIX]).unwrap();
}

#[test]
fn prefixes_of_its_own_lie_in_the_network() {
    let error = read(&[
        ("CARRICK_PREFIXES", "10.1.0.0/24"),
        ("CARRICK_NETWORKS", "10.2.0.0/16"),
    ]);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("inside CARRICK_NETWORKS")
    );
}
