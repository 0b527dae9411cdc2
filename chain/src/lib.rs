//! The chain: elements that serve a connection, and the tasks that run them.
//!
//! Read first: [`Element`], the contract of everything that takes part in a
//! Request, and [`Endpoint`], which runs a [`Chain`] of them for each
//! connection and undoes it in reverse. [`Client`] is the other side: it asks
//! for connections and keeps them.
//!
//! An element that holds something outside of the process:
//!
//! ```
//! use carrick_chain::{Chain, Element, Error, Next};
//! use carrick_types::{Connection, IfName};
//!
//! struct Interfaces;
//!
//! impl Element for Interfaces {
//!     const NAME: &'static str = "interfaces";
//!     type State = IfName;
//!
//!     async fn request(
//!         &self,
//!         connection: Connection,
//!         name: &mut Option<IfName>,
//!         next: Next<'_>,
//!     ) -> Result<Connection, Error> {
//!         // Held before it is made: an answer that is lost can be cleaned up.
//!         let name = name.get_or_insert_with(|| IfName::of("cl", &connection.id));
//!         println!("put interface {name}");
//!         next.request(connection).await
//!     }
//!
//!     async fn close(&self, _: &Connection, name: &mut IfName) -> Result<(), Error> {
//!         println!("delete interface {name}, if there is one");
//!         Ok(())
//!     }
//! }
//!
//! let chain = Chain::default().then(Interfaces);
//! assert_eq!(chain.names().collect::<Vec<_>>(), ["interfaces"]);
//! ```
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
pub use endpoint::{BoxError, Endpoint, EndpointOptions, Handle, IsStale, Journal, Tokens};
pub use error::{Error, Kind, Operation};
pub use monitor::{ConnectionEvent, EventKind, Monitor, Selector};
