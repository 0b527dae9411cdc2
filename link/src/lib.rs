//! From a connection's mechanism and context to the link that the agent makes.
//!
//! Where there is no NSM forwarder the endpoint is its own: it chooses the
//! mechanism ([`Mechanisms`]) and has the agent make the link ([`Links`]). An
//! endpoint that requests a connection to another one offers what its node can
//! do ([`Offer`]) and dresses its own end ([`OwnEnd`]).
//!
//! Read first: [`Site`], what a node brings along, and [`Links`].
//!
//! Limits: veth within a node, VXLAN between nodes. What a client names as its
//! network namespace is opened by path on this node; descriptors passed along
//! with a Request are not looked at here.

mod book;
mod client;
mod error;
mod links;
mod mechanisms;
mod netns;
mod site;
#[cfg(test)]
mod testing;
mod vnis;

pub use book::LinkBook;
pub use client::{Offer, OwnEnd};
pub use error::Error;
pub use links::Links;
pub use mechanisms::{Chosen, Mechanisms};
pub use netns::{netns_of_url, own_netns, url_of_netns};
pub use site::Site;
pub use vnis::{Reserved, Vnis};
