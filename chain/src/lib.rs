//! The chain: elements that serve a connection, and the tasks that run them.
//!
//! Read first: [`Element`], the contract of everything that takes part in a
//! Request, and [`Chain`], which runs elements forward and undoes them in
//! reverse.

mod element;
mod error;

pub use element::{Chain, Element, Next};
pub use error::{Error, Kind, Operation};
