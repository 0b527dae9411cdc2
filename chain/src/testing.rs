//! For tests of chains: elements that record, count, check and fail, and the
//! tests that every chain has to pass.

mod conformance;
mod elements;
mod fault;

use std::time::{Duration, SystemTime};

use carrick_types::{Connection, ConnectionId, Path, PathSegment, ServiceName, Token};
use tokio::time::Instant;

pub use conformance::{
    Parts, leaves_nothing_after_a_failure, may_be_done_twice, may_fail_to_close,
};
pub use elements::{Check, Count, Log, Record};
pub use fault::Fault;

use crate::{BoxError, Tokens};

/// Tokens without a signature that live as long as it says.
#[derive(Clone, Copy, Debug)]
pub struct TestTokens(pub Duration);

impl Default for TestTokens {
    /// Ten minutes, as in NSM.
    fn default() -> Self {
        Self(Duration::from_secs(600))
    }
}

impl Tokens for TestTokens {
    fn token(&self, _: Option<&str>) -> Result<Token, BoxError> {
        Ok(Token {
            value: "test".to_owned(),
            expires: SystemTime::now() + self.0,
        })
    }
}

/// A Request as it comes from the wire: by the client `client`, whose own id
/// for the connection is `id`, for the service `"service"`, valid for an hour.
///
/// # Panics
///
/// `id` is not a valid connection id.
#[must_use]
pub fn request(client: &str, id: &str) -> Connection {
    request_valid_for(client, id, Duration::from_secs(3600))
}

/// As [`request`], valid for `life`.
///
/// # Panics
///
/// `id` is not a valid connection id.
#[must_use]
pub fn request_valid_for(client: &str, id: &str, life: Duration) -> Connection {
    let service = ServiceName::new("service").expect("a valid name");
    let id = ConnectionId::new(id).expect("the test names a valid id");
    let own = PathSegment {
        name: client.to_owned(),
        id: id.to_string(),
        expires: Some(SystemTime::now() + life),
        ..PathSegment::default()
    };
    let mut connection = Connection::new(id, service);
    connection.path = Path {
        index: 0,
        segments: vec![own],
    };
    connection
}

/// A deadline that a Request in a test keeps.
#[must_use]
pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}
