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
    let spiffe = ("SPIFFE_ENDPOINT_SOCKET", "unix:///run/agent.sock");
    let config = read(&[manager, spiffe, OWN_PREFIX]).unwrap();
    assert!(matches!(config.setting, Setting::Mesh(_)));
    assert_eq!((config.agent, config.node.router), (AgentKind::None, None));
}

/// Guards `Config::refuse_plaintext`.
#[test]
fn in_a_mesh_there_is_mutual_tls_or_plaintext_is_asked_for() {
    let manager = ("NSM_CONNECT_TO", "unix:///run/nsm.sock");
    let spiffe = ("SPIFFE_ENDPOINT_SOCKET", "unix:///run/agent.sock");
    let insecure = ("NSM_INSECURE", "true");
    let refused = read(&[manager, OWN_PREFIX]).unwrap_err().to_string();
    for name in ["SPIFFE_ENDPOINT_SOCKET", "NSM_INSECURE=true"] {
        assert!(refused.contains(name), "{refused}");
    }
    read(&[manager, OWN_PREFIX, insecure]).unwrap();
    let tcp = ("NSM_LISTEN_ON", "tcp://127.0.0.1:5000");
    let secured = read(&[manager, OWN_PREFIX, spiffe, tcp]).unwrap();
    assert!(matches!(secured.security, SecuritySettings::Mutual(_)));
    let both = read(&[manager, OWN_PREFIX, spiffe, insecure]).unwrap_err();
    assert!(both.to_string().contains("set together"), "{both}");
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

#[test]
fn who_is_started_as_an_nsm_endpoint_is_part_of_the_mesh() {
    let spiffe = ("SPIFFE_ENDPOINT_SOCKET", "unix:///run/spire/agent.sock");
    let setting = |settings: &[(&'static str, &'static str)]| {
        let mut all = vec![OWN_PREFIX];
        all.extend_from_slice(settings);
        read(&all).unwrap().setting
    };
    let manager = "unix:///var/lib/networkservicemesh/nsm.io.sock";
    assert_eq!(setting(&[spiffe]), Setting::Mesh(manager.parse().unwrap()));
    let given = setting(&[spiffe, ("NSM_CONNECT_TO", "unix:///other")]);
    assert_eq!(given, Setting::Mesh("unix:///other".parse().unwrap()));
    for alone in [
        &[][..],
        &[("SPIFFE_ENDPOINT_SOCKET", "")],
        &[spiffe, ("NSM_CONNECT_TO", "")],
        &[spiffe, ("CARRICK_REGISTRY_URL", "unix:///run/r.sock")],
        &[spiffe, ("CARRICK_REGISTRY_LISTEN_ON", "unix:///run/r.sock")],
    ] {
        let setting = setting(alone);
        assert!(matches!(setting, Setting::StandAlone { .. }), "{alone:?}");
    }
}

#[test]
fn the_name_of_a_socket_file_is_one_in_a_fresh_directory_of_a_mesh() {
    let dir = |settings: &[(&'static str, &'static str)]| {
        let mut all = vec![OWN_PREFIX, ("NSM_NAME", "nse/1"), ("NSM_INSECURE", "true")];
        all.extend_from_slice(settings);
        let config = read(&all).unwrap();
        match &config.listen_on[..] {
            [Url::Unix(path)] => {
                assert_eq!(path.file_name(), Some("listen.on.sock".as_ref()));
                (path.parent().unwrap().to_owned(), config.socket_dir)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(dir(&[]), ("/run/carrick/nse_1".into(), None));
    let mesh = [("NSM_CONNECT_TO", "unix:///run/nsm.sock")];
    let ((first, own), (second, _)) = (dir(&mesh), dir(&mesh));
    assert_ne!(first, second);
    assert_eq!(own, Some(first.clone()));
    assert!(first.to_string_lossy().contains("/nse_1-"), "{first:?}");
}

#[test]
fn node_pod_and_cluster_are_labels_unless_they_are_given() {
    let config = read(&[
        OWN_PREFIX,
        ("NODE_NAME", "n1"),
        ("POD_NAME", "nse-1"),
        ("CLUSTER_NAME", "west"),
        ("NSM_REQUEST_LABELS", "podName:other,app:vl3"),
    ]);
    let labels = config.unwrap().request_labels;
    let expected = [
        ("nodeName", "n1"),
        ("podName", "other"),
        ("clusterName", "west"),
        ("app", "vl3"),
    ];
    assert_eq!(labels, expected.into_iter().collect());
}

#[test]
fn templates_of_names_are_read_with_the_other_settings() {
    let templates = "{{ index .Labels \"podName\" }}.{{ target .NetworkService }}.{{ domain .NetworkService }}.,{{ .Labels.app }}.vl3.";
    let config = read(&[OWN_PREFIX, ("NSM_DNS_TEMPLATES", templates)]);
    assert_eq!(config.unwrap().dns.templates.len(), 2);
    let wrong = ("NSM_DNS_TEMPLATES", "{{ upper .NetworkService }}.");
    let mistakes = read(&[OWN_PREFIX, wrong, ("NSM_DIAL_TIMEOUT", "5")]).unwrap_err();
    let told = mistakes.to_string();
    assert!(told.contains("NSM_DNS_TEMPLATES"), "{told}");
    assert!(told.contains("upper"), "{told}");
    assert_eq!(mistakes.0.len(), 2);
}
