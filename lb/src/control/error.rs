use crate::dataplane;
use crate::service::{Problems, ServerId, ServiceName, Vip};

/// Why a change was not made; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data plane cannot do it, or failed.
    #[error("the data plane did not take the change")]
    Dataplane(#[from] dataplane::Error),
    /// What is wanted makes no sense.
    #[error("the change is refused")]
    Refused(#[from] Refused),
}

/// What is wrong with what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Two services want the same packets.
    #[error("{0}")]
    Conflict(Box<Conflict>),
    /// A service or server by itself is wrong.
    #[error("{0}")]
    Invalid(Problems),
    /// More than numbers can name.
    #[error("{wanted} {what} are wanted, and no more than {limit} have numbers")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there are.
        wanted: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A change to a server that is not there.
    #[error("service {service} has no server {server}")]
    UnknownServer {
        /// The service.
        service: ServiceName,
        /// The server.
        server: ServerId,
    },
    /// A change to a service that is not there.
    #[error("there is no service {0}")]
    UnknownService(ServiceName),
}

/// Two services want the same packets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "services.{service}.vips: {vip} takes packets of {other_vip} of service {other}; \
     VIPs of one prefix must differ in protocols or ports"
)]
pub struct Conflict {
    /// The later service by name.
    pub service: ServiceName,
    /// Its VIP.
    pub vip: Vip,
    /// The earlier one.
    pub other: ServiceName,
    /// The earlier VIP.
    pub other_vip: Vip,
}
