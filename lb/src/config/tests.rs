use std::time::Duration;

use super::*;
use crate::service::{Mode, Policy};

const PAGE: &str = include_str!("../../../docs/load-balancer-config.md");

fn problems(text: &str) -> Vec<String> {
    match Config::read(text) {
        Err(Error::Wrong(problems)) => problems.0.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

/// The YAML blocks of the page.
fn examples() -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut inside = false;
    for line in PAGE.lines() {
        match line.trim() {
            "```yaml" => {
                inside = true;
                blocks.push(String::new());
            }
            "```" => inside = false,
            _ if inside => {
                let block = blocks.last_mut().unwrap();
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

#[test]
fn every_example_of_the_page_is_a_configuration() {
    let examples = examples();
    assert!(examples.len() >= 3);
    for example in examples {
        if let Err(error) = Config::read(&example) {
            panic!("{error}\nin\n{example}");
        }
    }
}

#[test]
fn every_setting_stands_in_the_page() {
    let tables: [&[&str]; 5] = [
        &[
            "balancer", "services", "journal", "listen", "peers", "interval",
        ],
        &[
            "name",
            "dataplane",
            "hook",
            "interfaces",
            "address4",
            "address6",
            "flows",
            "flow-rate",
            "mtu",
            "admin",
        ],
        &[
            "vips",
            "policy",
            "mode",
            "servers",
            "on-empty",
            "affinity",
            "idle",
            "prefix",
            "protocols",
            "ports",
        ],
        &[
            "id", "address", "port", "mac", "weight", "vni", "key", "size", "above", "percent",
        ],
        &[
            "snat",
            "snat-addresses",
            "dscp",
            "tcp-opening",
            "tcp-closing",
        ],
    ];
    for key in tables.iter().flat_map(|keys| keys.iter()) {
        assert!(
            PAGE.contains(&format!("`{key}`")),
            "{key} is not in the page"
        );
    }
}

#[test]
fn an_empty_file_wants_nothing() {
    let config = Config::read("").unwrap();
    assert_eq!(config.wanted.services().count(), 0);
    assert_eq!(config.balancer, Balancer::default());
}

#[test]
fn a_whole_service_is_read() {
    let config = Config::read(
        "
services:
  - name: web
    vips:
      - prefix: 10.0.0.0/24
        protocols: [tcp, udp]
        ports: [80, 8000-8099]
      - 2001:db8::1
    policy: { name: maglev, size: 10007 }
    mode: { name: gue, port: 7000 }
    on-empty: drop
    affinity: 30s
    idle: { udp: 1m }
    servers:
      - { id: a, address: 192.0.2.1, weight: 3 }
      - { id: b, address: 192.0.2.2, weight: 0 }
",
    )
    .unwrap();
    let service = config.wanted.services().next().unwrap();
    assert_eq!(
        service.vips[0].to_string(),
        "10.0.0.0/24 tcp,udp 80,8000-8099"
    );
    assert_eq!(service.vips[1].to_string(), "2001:db8::1/128 any all");
    assert!(matches!(service.policy, Policy::Maglev { size } if size.get() == 10_007));
    assert_eq!(service.mode, Mode::Gue { port: 7000 });
    assert_eq!(service.affinity, Some(Duration::from_secs(30)));
    assert_eq!(service.idle.udp, Duration::from_secs(60));
    assert_eq!((service.servers.len(), service.active().count()), (2, 1));
}

#[test]
fn all_mistakes_are_told_with_field_value_and_what_would_be_right() {
    let told = problems(
        "
balancer:
  interfaces: [an-interface-with-a-long-name]
  dataplane: dpdk
services:
  - name: web
    vips:
      - { prefix: 10.0.0.300, ports: [0] }
      - prefix: 10.0.0.1
    policy: { name: maglev, size: 65536 }
    mode: { name: ipip, port: 80 }
    affinity: 10
    server: []
    servers:
      - { id: a, address: nowhere, weight: 70000 }
      - { address: 192.0.2.2 }
",
    );
    for expected in [
        r#"balancer.interfaces[0]: "an-interface-with-a-long-name" is not the name of an interface"#,
        r#"balancer.dataplane: "dpdk" is not one of auto, ebpf, nftables"#,
        r#"services.web.vips[0].prefix: "10.0.0.300" is not an address or a prefix"#,
        r#"services.web.vips[0].ports[0]: "0" is not a port of 1 to 65535"#,
        r#"services.web.policy.size: "65536" is not a prime of 3 to 1048573, such as 65537"#,
        r#"services.web.mode.port: "80" is not used by ipip"#,
        r#"services.web.affinity: "10" is not a time with its unit"#,
        r#"services[0].server: "server" is not a setting; there are affinity"#,
        r#"services.web.servers.a.address: "nowhere" is not an IP address"#,
        r#"services.web.servers.a.weight: "70000" is not a number of 0 to 65535"#,
        r#"services.web.servers[1].id: "a table" is not a name"#,
    ] {
        assert!(
            told.iter().any(|one| one.starts_with(expected)),
            "{expected}\n{told:#?}"
        );
    }
}

#[test]
fn a_file_that_is_no_yaml_or_no_table_is_told() {
    assert!(matches!(
        Config::read("services: [").unwrap_err(),
        Error::Yaml(_)
    ));
    assert!(problems("- a")[0].starts_with("the file"));
    assert!(problems("services: 7")[0].contains("services: \"7\" is not a list"));
}

#[test]
fn a_service_that_is_named_twice_is_told() {
    let told = problems(
        "
services:
  - { name: a, vips: [10.0.0.1] }
  - { name: a, vips: [10.0.0.2] }
",
    );
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn services_in_conflict_are_refused_with_both_names() {
    let error = Config::read(
        "
services:
  - { name: a, vips: [10.0.0.1] }
  - { name: b, vips: [10.0.0.1] }
",
    )
    .unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("service a") && source.contains("services.b"),
        "{source}"
    );
}
