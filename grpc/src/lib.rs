//! The gRPC edge: everything between typed values and HTTP/2.
//!
//! Read first: [`Url`], which is listened on and dialled, and [`Security`],
//! without which neither is possible.
//!
//! Limits: plaintext only; file descriptors are not passed along (grpcfd), so
//! an `inode://` URL can be named but not dialled.

pub mod convert;
mod dial;
mod listen;
mod security;
mod socket;
mod url;

pub use dial::{Channels, DialError, DialOptions, dial, dial_with};
pub use listen::{ListenError, ListenOptions, Listener, SocketFile, listen};
pub use security::Security;
pub use socket::{KeepAlive, Peer, Socket};
pub use url::Url;
