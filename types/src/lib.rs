//! Newtypes of the field and the typed NSM [`Connection`]; no I/O, no protobuf.
//!
//! Read first: [`Connection`], which every chain element sees, and [`Prefix`],
//! the one form in which networks are compared. A value of these types is valid
//! because it exists: bounds are checked where it is made.
//!
//! Limits: host names are not types here, and times are `SystemTime` because
//! NSM exchanges wall-clock expiries.

mod connection;
mod context;
mod error;
mod id;
mod labels;
mod mechanism;
mod mtu;
mod path;
mod prefix;
pub mod rfc3339;
mod vni;

pub use connection::{Connection, Payload, State};
pub use context::{
    Context, DnsConfig, Ethernet, ExtraPrefixRequest, IpContext, IpFamily, IpNeighbor, PolicyRoute,
    Route,
};
pub use error::Invalid;
pub use id::{ConnectionId, EndpointName, IfName, ServiceName};
pub use labels::Labels;
pub use mechanism::{Mechanism, MechanismClass, MechanismType};
pub use mtu::Mtu;
pub use path::{Path, PathSegment, Token};
pub use prefix::{Prefix, host, overlaps};
pub use vni::Vni;

pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
