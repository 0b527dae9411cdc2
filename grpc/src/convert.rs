//! Wire messages to typed values and back.
//!
//! What comes from the wire is checked here once: a mistake is an
//! [`Invalid`](carrick_types::Invalid) that names the field as the API does, e.g.
//! `connection.context.ip_context.src_ip_addrs[1]`. Lists, maps and texts are
//! bounded. Absent messages are empty ones, as in NSM.
//!
//! Nothing is lost on the way from a typed value to the wire and back. The
//! other way round a text may come back in its canonical form (`10.0.0.1` as
//! `10.0.0.1/32`), and fields that NSM v1 does not read are dropped.

mod connection;
mod context;
mod event;
mod field;
mod path;
mod time;

pub use connection::{
    connection_from_wire, connection_to_wire, request_from_wire, request_to_wire,
};
pub use event::{
    event_from_wire, event_to_wire, events_to_wire, selector_from_wire, selector_to_wire,
};
pub use path::{path_from_wire, path_to_wire};
#[cfg(test)]
pub(crate) use time::time;
pub use time::{time_from_wire, time_to_wire};

#[cfg(test)]
mod tests;
