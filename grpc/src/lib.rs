//! The gRPC edge: everything between typed values and HTTP/2.
//!
//! Read first: [`Url`] with [`listen`] and [`dial`], which take a [`Security`]
//! so that plaintext is never an accident, and [`routes`], the services of an
//! endpoint; [`RemoteEndpoint`] is their counterpart in a client. [`convert`]
//! is where a message becomes a typed value, and [`status`] where an error
//! becomes a status.
//!
//! [`Descriptors`] travel over unix sockets beside the bytes, and
//! [`Attachments`] with the calls of a channel.
//!
//! Limits: plaintext only.

mod answers;
mod attachments;
mod client;
pub mod convert;
mod descriptors;
mod dial;
mod health;
mod listen;
mod namespaces;
mod passing;
mod registry_path;
mod security;
mod server;
mod socket;
mod status;
mod token;
pub mod trace;
mod url;

pub use answers::caller_of;
pub use attachments::{Attachment, Attachments};
pub use client::{CallMetadata, RemoteEndpoint};
pub use descriptors::{Descriptors, ReceiveError};
pub use dial::{Channels, DialError, DialOptions, Dialled, dial, dial_passing, dial_with};
pub use health::Health;
pub use listen::{ListenError, ListenOptions, Listener, SocketFile, listen};
pub use registry_path::{RegistryPath, RegistryPathSegment};
pub use security::Security;
pub use server::{
    Authorization, Held, Monitoring, Namespaces, Observer, Requests, ServeError, ServerOptions,
    builder, routes, serve,
};
pub use socket::{ConnectInfo, KeepAlive, Peer, Socket};
pub use status::{RemoteError, invalid, status};
pub use token::{
    Claims, Es256Tokens, Identity, IdentityError, InsecureTokens, SignError, SpiffeId,
    TokenOptions, VerifyError, rfc3339, rfc3339_from_str, token_from_metadata, token_to_metadata,
    verify,
};
pub use url::Url;
