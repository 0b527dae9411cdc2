//! Who may do what (NSM `authorize` and its OPA policies).
//!
//! Read first: [`Policies`], which are found by the masks that NSM's settings
//! have, and [`Input`], what they judge. NSM's default policies are native
//! ([`Native`]); a `.rego` file with the path of one takes its place, and files
//! with other paths come besides.
//!
//! What is judged is a path of tokens. The signature of one of them is checked
//! here, that of the hop which is connected to us, against the certificate with
//! which it is connected. The tokens before that are vouched for by that hop,
//! which checked the signature of the one before it, and so on: who trusts a
//! path trusts every identity in it.
//!
//! Limits: policies are read once, at the start; nothing else here does I/O,
//! and time is an argument.

mod input;
mod masks;
mod metrics;
mod native;
mod policies;
mod rego;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod token;
mod verify;

pub use input::{About, Caller, Input, Proven, Segment};
pub use masks::LoadError;
pub use metrics::Refusals;
pub use native::Native;
pub use policies::{Policies, Refused};
pub use rego::RegoError;
pub use token::subject;

#[cfg(test)]
mod tests;
