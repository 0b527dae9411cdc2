use std::fmt;
use std::net::IpAddr;

use carrick_types::{Invalid, Vni};

use super::MacAddr;

/// One application server of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name, unique in the service and equal on all balancers.
    pub id: ServerId,
    /// Where it is reached: the NAT target, the tunnel's far end, or (L2) the
    /// address whose neighbour entry gives the Ethernet address. It may be of
    /// another family than the VIP only where the mode encapsulates.
    pub address: IpAddr,
    /// NAT: the port packets are translated to; `None` keeps the VIP's.
    pub port: Option<u16>,
    /// L2: its Ethernet address; `None` asks the neighbour table.
    pub mac: Option<MacAddr>,
    /// Its share of new flows relative to the other weights; 0 drains it.
    pub weight: u16,
    /// VXLAN: its network, if not the mode's.
    pub vni: Option<Vni>,
    /// GRE: its key (RFC 2890).
    pub key: Option<u32>,
}

impl Server {
    /// A server of weight 1 without anything special.
    #[must_use]
    pub fn new(id: ServerId, address: IpAddr) -> Self {
        Self {
            id,
            address,
            port: None,
            mac: None,
            weight: 1,
            vni: None,
            key: None,
        }
    }
}

/// The stable name of a server: 1 to 253 printable characters without spaces
/// (a pod name fits).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(Box<str>);

impl ServerId {
    /// Takes a name as it is.
    ///
    /// # Errors
    ///
    /// It is empty, longer than 253 bytes, or holds white space or control characters.
    pub fn new(name: impl AsRef<str>) -> Result<Self, Invalid> {
        let name = name.as_ref();
        let fits = (1..=253).contains(&name.len())
            && !name.contains(|c: char| c.is_whitespace() || c.is_control());
        if fits {
            Ok(Self(name.into()))
        } else {
            Err(Invalid::new(
                "server.id",
                name,
                "a name of 1 to 253 bytes without white space",
            ))
        }
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
