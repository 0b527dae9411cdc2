use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How the link of a connection is made (NSM `connection.Mechanism`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mechanism {
    /// Within a node or between nodes.
    pub class: MechanismClass,
    /// The kind of link.
    pub kind: MechanismType,
    /// Its parameters under NSM's names, see the constants of this type.
    pub parameters: BTreeMap<String, String>,
}

impl Mechanism {
    /// Parameter: the network namespace, as `file:///proc/<pid>/ns/net` or
    /// `inode://<dev>/<ino>`.
    pub const INODE_URL: &str = "inodeURL";
    /// Parameter: name of the interface.
    pub const NAME: &str = "name";
    /// Parameter: the node on which `inodeURL` has a meaning. Carrick's own;
    /// others ignore it.
    pub const NODE_NAME: &str = "nodeName";
    /// Parameter of VXLAN: underlay address of the Request's sender.
    pub const SRC_IP: &str = "src_ip";
    /// Parameter of VXLAN: underlay address of the endpoint.
    pub const DST_IP: &str = "dst_ip";
    /// Parameter of VXLAN: UDP port at the sender.
    pub const SRC_PORT: &str = "src_port";
    /// Parameter of VXLAN: UDP port at the endpoint.
    pub const DST_PORT: &str = "dst_port";
    /// Parameter of VXLAN: the network identifier.
    pub const VNI: &str = "vni";

    /// A mechanism without parameters.
    #[must_use]
    pub fn new(class: MechanismClass, kind: MechanismType) -> Self {
        Self {
            class,
            kind,
            parameters: BTreeMap::new(),
        }
    }

    /// Sets a parameter.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "texts and numbers are passed as they are"
    )]
    pub fn with(mut self, parameter: &str, value: impl ToString) -> Self {
        self.parameters
            .insert(parameter.to_owned(), value.to_string());
        self
    }

    /// A parameter's value; an empty one counts as absent.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
            /// A word that this version does not know; carried on unchanged.
            Other(String),
        }

        impl $name {
            /// The word on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(word) => word,
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($text => Self::$variant,)+
                    _ => Self::Other(word),
                }
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// Whether a mechanism stays on a node (`Mechanism.cls`).
    MechanismClass {
        /// Both ends on one node.
        Local = "LOCAL",
        /// Ends on two nodes.
        Remote = "REMOTE",
    }
}

words! {
    /// The kind of link (`Mechanism.type`).
    MechanismType {
        /// `IPsec` tunnel.
        Ipsec = "IPSEC",
        /// Linux kernel interface.
        Kernel = "KERNEL",
        /// Shared-memory packet interface.
        Memif = "MEMIF",
        /// None: the endpoint makes no link.
        Noop = "NOOP",
        /// Virtual function of a network card.
        Vfio = "VFIO",
        /// VXLAN tunnel (RFC 7348).
        Vxlan = "VXLAN",
        /// `WireGuard` tunnel.
        Wireguard = "WIREGUARD",
    }
}
