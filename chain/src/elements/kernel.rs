use carrick_types::{Connection, IfName, Mechanism};

use crate::BoxError;

/// Fills in the endpoint's end of a kernel mechanism where a forwarder makes
/// the interfaces (NSM `mechanisms/kernel`): our network namespace, and a name
/// for the interface unless it has one. A given name is cut to what the kernel
/// takes. For [`Mechanisms::with`](super::Mechanisms::with).
///
/// The name is computed from the connection's id, so that it is the same after
/// a restart: up to 4 bytes of the service's name and 40 bits of a hash.
///
/// # Errors
///
/// None; the type is the one that `with` asks for.
pub fn kernel_of_own_namespace(
    connection: &Connection,
    mechanism: &mut Mechanism,
) -> Result<(), BoxError> {
    let name = match mechanism.parameter(Mechanism::NAME) {
        Some(name) => cut(name, IfName::MAX).to_owned(),
        None => computed_name(connection),
    };
    let parameters = &mut mechanism.parameters;
    parameters.insert(Mechanism::NAME.to_owned(), name);
    parameters.insert(Mechanism::INODE_URL.to_owned(), OWN_NAMESPACE.to_owned());
    Ok(())
}

/// The namespace of the process that says so, as NSM names it. A forwarder on
/// another side of a unix socket gets it as a file descriptor.
pub const OWN_NAMESPACE: &str = "file:///proc/thread-self/ns/net";

fn computed_name(connection: &Connection) -> String {
    let service = connection.network_service.target().chars();
    let service: String = service
        .filter(char::is_ascii_alphanumeric)
        .take(4)
        .collect();
    let hash = IfName::of("", &connection.id);
    format!("{service}-{}", cut(hash.as_str(), 10))
}

fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use carrick_types::{ConnectionId, MechanismClass, MechanismType, ServiceName};

    use super::*;

    fn filled_in(name: &str) -> Mechanism {
        let id = ConnectionId::new("id").unwrap();
        let service = ServiceName::new("a/service@domain").unwrap();
        let kernel = Mechanism::new(MechanismClass::Local, MechanismType::Kernel);
        let mut kernel = kernel.with(Mechanism::NAME, name);
        kernel_of_own_namespace(&Connection::new(id, service), &mut kernel).unwrap();
        kernel
    }

    #[test]
    fn a_given_name_is_kept_and_cut_to_what_the_kernel_takes() {
        assert_eq!(filled_in("nsm-1").parameter("name"), Some("nsm-1"));
        let long = filled_in("a-name-that-is-too-long");
        assert_eq!(long.parameter("name"), Some("a-name-that-is-"));
        assert_eq!(filled_in("ééééééééé").parameter("name"), Some("ééééééé"));
    }

    #[test]
    fn a_name_is_made_where_there_is_none_and_stays_the_same() {
        let mechanism = filled_in("");
        let name = mechanism.parameter("name").unwrap();
        assert!(
            name.starts_with("aser-") && IfName::new(name).is_ok(),
            "{name}"
        );
        assert_eq!(filled_in(""), mechanism);
    }

    #[test]
    fn the_namespace_is_our_own() {
        assert_eq!(
            filled_in("").parameter("inodeURL"),
            Some("file:///proc/thread-self/ns/net")
        );
    }
}
