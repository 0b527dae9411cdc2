use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Longest identifier accepted from the wire, in bytes.
///
/// NSM sets no bound. Ids are UUIDs and names are pod names (at most 253
/// bytes) with an optional `@domain` (again 253), so nothing honest is longer.
const NAME_MAX: usize = 512;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a text of 1 to 512 bytes without control characters.
            ///
            /// # Errors
            ///
            /// The text is empty, longer, or holds a control character.
            pub fn new(text: impl AsRef<str>) -> Result<Self, Invalid> {
                let text = text.as_ref();
                if text.is_empty() || text.len() > NAME_MAX || text.chars().any(char::is_control) {
                    return Err(Invalid::new(
                        $field,
                        text,
                        "a text of 1 to 512 bytes without control characters",
                    ));
                }
                Ok(Self(text.into()))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name! {
    /// Names one connection at one hop (`Connection.id`): the id of that hop's
    /// own path segment. The same connection has another id at the next hop.
    ConnectionId, "connection.id"
}

name! {
    /// Names a network service endpoint (`NetworkServiceEndpoint.name`), with
    /// `@domain` behind it where it is registered in another domain.
    EndpointName, "network_service_endpoint.name"
}

name! {
    /// Names a network service (`NetworkService.name`), with `@domain` behind
    /// it where it is asked for in another domain.
    ServiceName, "network_service.name"
}

impl ServiceName {
    /// The part before `@`, which is how the service's own domain knows it.
    #[must_use]
    pub fn target(&self) -> &str {
        self.0
            .split_once('@')
            .map_or(&*self.0, |(target, _)| target)
    }

    /// The part after `@`, if any.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.0.split_once('@').map(|(_, domain)| domain)
    }
}

/// Name of a Linux network interface: 1 to 15 bytes, no `/`, no white space,
/// neither `.` nor `..` (Linux `dev_valid_name`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(Box<str>);

impl IfName {
    /// Longest name, in bytes (`IFNAMSIZ` less the final zero).
    pub const MAX: usize = 15;

    /// Takes a name as it is.
    ///
    /// # Errors
    ///
    /// The kernel would not take the name.
    pub fn new(name: impl AsRef<str>) -> Result<Self, Invalid> {
        let name = name.as_ref();
        let fits = (1..=Self::MAX).contains(&name.len())
            && !matches!(name, "." | "..")
            && !name
                .contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
        if fits {
            Ok(Self(name.into()))
        } else {
            Err(Invalid::new(
                "interface name",
                name,
                "1 to 15 bytes without '/', ':' or white space",
            ))
        }
    }

    /// The interface that belongs to a connection: `prefix` (at most 3 bytes)
    /// and 48 bits of a hash of its id, so that the name is found again after
    /// a crash without having been written down.
    ///
    /// # Panics
    ///
    /// `prefix` is longer than 3 bytes or not valid in a name; it is a constant of the caller.
    #[must_use]
    pub fn of(prefix: &'static str, id: &ConnectionId) -> Self {
        assert!(prefix.len() <= 3, "an interface prefix has at most 3 bytes");
        let hash = fnv1a(id.as_str().as_bytes()) >> 16;
        Self::new(format!("{prefix}{hash:012x}"))
            .expect("a short prefix and 12 hex digits are valid")
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 64-bit FNV-1a, mixed once more so that the upper bits depend on all input:
/// stable over releases, unlike the standard hasher, and that is all we need.
fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl TryFrom<String> for IfName {
    type Error = Invalid;

    fn try_from(name: String) -> Result<Self, Invalid> {
        Self::new(name)
    }
}

impl From<IfName> for String {
    fn from(name: IfName) -> Self {
        name.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_neither_empty_nor_endless_nor_unprintable() {
        assert!(ConnectionId::new("").is_err());
        assert!(ConnectionId::new("a\nb").is_err());
        assert!(ConnectionId::new("x".repeat(NAME_MAX + 1)).is_err());
        assert!(ConnectionId::new("x".repeat(NAME_MAX)).is_ok());
    }

    #[test]
    fn an_interface_name_computed_from_an_id_stays_the_same() {
        let id = ConnectionId::new("5fa8b1a0-7a2f-4a9f-8bb1-2f2f0d9f6f10").unwrap();
        assert_eq!(IfName::of("cl", &id), IfName::of("cl", &id));
        assert!(IfName::of("cl", &id).as_str().len() <= IfName::MAX);
        assert_ne!(
            IfName::of("cl", &id),
            IfName::of("cl", &ConnectionId::new("other").unwrap())
        );
    }

    #[test]
    fn the_kernel_takes_every_interface_name() {
        for bad in ["", ".", "..", "a/b", "a b", "1234567890123456", "a:b"] {
            assert!(IfName::new(bad).is_err(), "{bad}");
        }
        assert!(IfName::new("nsm-1").is_ok());
    }

    #[test]
    fn a_service_name_splits_at_its_domain() {
        let name = ServiceName::new("vl3@floating.domain").unwrap();
        assert_eq!(
            (name.target(), name.domain()),
            ("vl3", Some("floating.domain"))
        );
    }
}
