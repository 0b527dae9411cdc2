//! SPIFFE identities: what the Workload API gives, and TLS made of it.
//!
//! Read first: [`Source`], which follows the Workload API, and
//! [`X509Context`], all that holds at one moment: the own [`Svid`], the bundles
//! that others are verified with, and a TLS configuration for each direction.
//! [`PeerIdentity`] is who the other end of a connection proved to be.
//!
//! Limits: X.509 only, no JWT-SVIDs; keys must be ECDSA P-256, since NSM's path
//! tokens are signed with them; of several identities the first is used;
//! revocation lists are not looked at (SPIRE gives none).

mod certificate;
mod context;
mod endpoint;
mod id;
mod peer;
mod source;
mod svid;
#[cfg(feature = "test-util")]
pub mod testing;
mod tls;
mod verify;

pub use certificate::CertificateError;
pub use context::{ContextError, X509Context};
pub use endpoint::WorkloadEndpoint;
pub use id::SpiffeId;
pub use peer::PeerIdentity;
pub use source::{NoSvid, Source};
pub use svid::{Svid, SvidError};
pub use verify::{Verifier, VerifyError};
