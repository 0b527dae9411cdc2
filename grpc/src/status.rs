//! Errors to gRPC status codes and back, in this one place.

use std::error::Error as StdError;
use std::fmt;

use carrick_chain::{Error, Kind};
use carrick_types::Invalid;
use tonic::{Code, Status};

/// Longest message of a status, in bytes: it travels in a header, and those
/// are bounded.
const MESSAGE_MAX: usize = 2048;

/// What the caller is told of an error: a code for what it can do, and the
/// whole chain of causes as the message, `what: why: why`.
#[must_use]
pub fn status(error: &Error) -> Status {
    Status::new(code(error.kind), chain_of(error))
}

/// What the sender of a malformed message is told.
#[must_use]
pub fn invalid(invalid: &Invalid) -> Status {
    Status::invalid_argument(chain_of(invalid))
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Internal => Code::Internal,
        Kind::Invalid => Code::InvalidArgument,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::Unavailable => Code::Unavailable,
    }
}

/// What a client of ours can do about a status. Codes that say nothing of it
/// mean that trying again, maybe elsewhere, may help: NSM's components answer
/// `Unknown` for nearly everything.
pub(crate) fn kind(code: Code) -> Kind {
    match code {
        Code::DeadlineExceeded => Kind::DeadlineExceeded,
        Code::ResourceExhausted => Kind::Exhausted,
        Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::OutOfRange
        | Code::Unimplemented => Kind::Invalid,
        Code::PermissionDenied | Code::Unauthenticated => Kind::PermissionDenied,
        Code::Aborted
        | Code::Cancelled
        | Code::DataLoss
        | Code::Internal
        | Code::NotFound
        | Code::Ok
        | Code::Unavailable
        | Code::Unknown => Kind::Unavailable,
    }
}

/// An error and its causes in one line.
pub(crate) fn chain_of(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    if line.len() > MESSAGE_MAX {
        let cut = (0..=MESSAGE_MAX).rev().find(|&i| line.is_char_boundary(i));
        line.truncate(cut.unwrap_or(0));
        line.push('…');
    }
    line
}

/// What the other side of a call said, or what kept us from asking it.
#[derive(Debug)]
pub struct RemoteError(Status);

impl RemoteError {
    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code()
    }

    /// Whether the other side itself said so, rather than the transport.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        self.0.source().is_none()
    }
}

impl From<Status> for RemoteError {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.code())?;
        if self.0.message().is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.0.message())
    }
}

impl StdError for RemoteError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use carrick_chain::Operation;
    use carrick_types::ConnectionId;

    use super::*;

    fn error(kind: Kind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        let id = ConnectionId::new("1").unwrap();
        Error::new("ipam", Operation::Request, &id, kind, source)
    }

    #[test]
    fn a_status_tells_every_cause_once() {
        let status = status(&error(
            Kind::Exhausted,
            error(Kind::Exhausted, "the pool is empty"),
        ));
        assert_eq!(status.code(), Code::ResourceExhausted);
        let one = "ipam: Request of connection 1 failed";
        assert_eq!(status.message(), format!("{one}: {one}: the pool is empty"));
    }

    #[test]
    fn every_kind_survives_a_hop() {
        for is in [
            Kind::DeadlineExceeded,
            Kind::Exhausted,
            Kind::Invalid,
            Kind::PermissionDenied,
            Kind::Unavailable,
        ] {
            assert_eq!(kind(status(&error(is, "x")).code()), is);
        }
        // The bug is not ours but theirs, and others may not have it.
        assert_eq!(kind(Code::Internal), Kind::Unavailable);
    }

    #[test]
    fn a_message_fits_in_a_header() {
        let status = status(&error(Kind::Invalid, "é".repeat(5000)));
        assert!(status.message().len() <= MESSAGE_MAX + '…'.len_utf8());
    }
}
