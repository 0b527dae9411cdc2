//! What is asked for. Pure.

use carrick_agent::Netns;
use carrick_link::url_of_netns;
use carrick_types::{Connection, ConnectionId, Invalid, Mechanism, MechanismClass, MechanismType};

use crate::{Config, Wanted};

/// What a client in the namespace `netns` asks for, in the order of its
/// settings; the ids are `<name>-<number>` (NSM `cmd-nsc`).
pub(crate) fn connections(config: &Config, netns: &Netns) -> Result<Vec<Connection>, Invalid> {
    let services = config.services.iter().enumerate();
    services
        .map(|(number, service)| connection(config, number, service, netns))
        .collect()
}

fn connection(
    config: &Config,
    number: usize,
    wanted: &Wanted,
    netns: &Netns,
) -> Result<Connection, Invalid> {
    let id = ConnectionId::new(format!("{}-{number}", config.name))?;
    let mut connection = Connection::new(id, wanted.service.clone());
    connection.labels = config.labels.clone();
    connection.labels.0.extend(wanted.labels.0.clone());
    connection.preferences.push(kernel(config, wanted, netns));
    Ok(connection)
}

/// An interface in this process's network namespace (NSM `kernel`).
fn kernel(config: &Config, wanted: &Wanted, netns: &Netns) -> Mechanism {
    let mechanism = Mechanism::new(MechanismClass::Local, MechanismType::Kernel)
        .with(Mechanism::INODE_URL, url_of_netns(netns))
        .with(Mechanism::NAME, &wanted.interface);
    if config.node.is_empty() {
        return mechanism;
    }
    mechanism.with(Mechanism::NODE_NAME, &config.node)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn config(settings: &[(&'static str, &'static str)]) -> Config {
        let insecure = ("NSM_INSECURE", "true");
        let settings = settings.iter().chain([&insecure]);
        let source: BTreeMap<&str, &str> = settings.copied().collect();
        Config::read(&source).unwrap()
    }

    #[test]
    fn each_service_has_its_id_interface_and_labels() {
        let config = config(&[
            ("NSM_NAME", "web"),
            (
                "NSM_NETWORK_SERVICES",
                "kernel://a/nsm-1,kernel://b@west/nsm-2?app=db",
            ),
            ("NSM_LABELS", "app:web,zone:1"),
            ("NODE_NAME", "n1"),
        ]);
        let [first, second] =
            &connections(&config, &Netns::Path("/proc/7/ns/net".into())).unwrap()[..]
        else {
            panic!("two services are two connections");
        };
        assert_eq!((first.id.as_str(), second.id.as_str()), ("web-0", "web-1"));
        assert_eq!(second.network_service.as_str(), "b@west");
        assert_eq!(first.labels.value("app"), Some("web"));
        assert_eq!(second.labels.value("app"), Some("db"));
        assert_eq!(second.labels.value("zone"), Some("1"));
        let offer = &second.preferences[0];
        assert_eq!(offer.parameter("inodeURL"), Some("file:///proc/7/ns/net"));
        assert_eq!(offer.parameter("name"), Some("nsm-2"));
        assert_eq!(offer.parameter("nodeName"), Some("n1"));
    }

    #[test]
    fn a_client_without_a_node_names_none() {
        let config = config(&[("NSM_NETWORK_SERVICES", "a/nsm-1")]);
        let connections = connections(&config, &Netns::Path("/proc/7/ns/net".into())).unwrap();
        assert_eq!(connections[0].preferences[0].parameter("nodeName"), None);
    }
}
