use std::time::SystemTime;

use carrick_policy::{About, Caller, Input, Policies, Proven, Refused, Segment};
use carrick_types::{Connection, PathSegment};
use tonic::Extensions;

/// Who is at the other end of the connection over which a call or an answer
/// came, where that is proved, which is over TLS.
#[must_use]
pub fn caller_of(extensions: &Extensions) -> Option<Caller<'_>> {
    extensions.get().map(Proven::caller)
}

/// Judges the whole path of an answer (NSM `authorize`, its client half).
/// Policies are asked only where the server's identity is proved.
pub(crate) fn judge(
    policies: &Policies,
    answer: &Connection,
    server: Option<Caller<'_>>,
) -> Result<(), Refused> {
    let Some(caller) = server.filter(|_| !policies.is_empty()) else {
        return Ok(());
    };
    let input = Input {
        index: answer.path.index,
        segments: answer.path.segments.iter().map(segment).collect(),
        caller,
        about: About::Connection,
    };
    policies.check(&input, SystemTime::now())
}

/// A hop as policies want it.
pub(crate) fn segment(segment: &PathSegment) -> Segment<'_> {
    Segment {
        name: &segment.name,
        id: &segment.id,
        token: &segment.token,
        expires: segment.expires,
    }
}
