use std::time::SystemTime;

use carrick_policy::{About, Input, Policies, Segment};
use tonic::Status;
use tracing::debug;

use crate::metadata::Caller;

/// Judges a call about the resource `name`, which is registered by `holder`, if
/// by anybody; nobody is an empty list, too (NSM `registry/common/authorize`).
/// Policies are asked only where the caller's identity is proved, which is over
/// TLS.
pub(super) fn judge(
    policies: &Policies,
    caller: &Caller,
    peer: Option<carrick_policy::Caller<'_>>,
    name: &str,
    holder: &[String],
) -> Result<(), Status> {
    let Some(peer) = peer.filter(|_| !policies.is_empty()) else {
        return Ok(());
    };
    let id = caller.path_ids().into_iter().next().unwrap_or_default();
    let token = |token| Segment {
        token,
        ..Segment::default()
    };
    let input = Input {
        index: caller.index(),
        segments: caller.tokens().map(token).collect(),
        caller: peer,
        about: About::Resource {
            name,
            id: &id,
            holder: Some(holder).filter(|holder| !holder.is_empty()),
        },
    };
    policies
        .check(&input, SystemTime::now())
        .map_err(|refused| {
            let why = refused.explained();
            debug!(policy = refused.policy(), why, name, "refused");
            Status::permission_denied(why)
        })
}
