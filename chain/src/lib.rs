//! The chain: elements that serve a connection, and the tasks that run them.
//!
//! Read first: [`Element`], the contract of everything that takes part in a
//! Request, and [`Endpoint`], which runs a [`Chain`] of them for each
//! connection and undoes it in reverse.
//!
//! Limits: path tokens are made here but not verified, which is the edge's and
//! an authorization element's work; a connection belongs to whoever knows its
//! id, as in NSM.

mod client;
mod element;
pub mod elements;
mod endpoint;
mod error;
mod monitor;
pub mod path;
#[cfg(feature = "test-util")]
pub mod testing;

pub use client::{
    BackOff, Client, ClientConnection, ClientOptions, ClientState, ClientStatus, Events, Liveness,
    MonitorEnd, Remote, Reselect,
};
pub use element::{Chain, Element, Next};
pub use endpoint::{BoxError, Endpoint, EndpointOptions, Handle, Journal, Tokens};
pub use error::{Error, Kind, Operation};
pub use monitor::{ConnectionEvent, EventKind, Monitor, Selector};
