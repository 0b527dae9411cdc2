//! When a connection is closed unasked (NSM `timeout`). Pure.

use std::time::{Duration, SystemTime};

use carrick_types::Connection;
use tokio::time::Instant;

/// The caller's segment is missing or does not say when it expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expiration for the previous path segment cannot be nil")]
pub(super) struct MissingExpiry;

/// Longest life of a connection without a refresh: what a peer names beyond it
/// is cut, since an `Instant` cannot hold every `SystemTime`.
const LIFE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// When `connection`, whose current segment is our own, expires: when the
/// caller's segment does, less the time that its Request has from `now` on. If
/// that leaves nothing, when the caller's segment does.
///
/// # Errors
///
/// The caller's segment is missing or does not expire.
pub(super) fn of(
    connection: &Connection,
    now: Instant,
    wall: SystemTime,
    deadline: Instant,
) -> Result<Instant, MissingExpiry> {
    let expires = connection
        .path
        .previous()
        .and_then(|previous| previous.expires);
    let life = expires
        .ok_or(MissingExpiry)?
        .duration_since(wall)
        .unwrap_or_default();
    let life = life.min(LIFE_MAX);
    let request = deadline.saturating_duration_since(now);
    Ok(now
        + life
            .checked_sub(request)
            .filter(|left| !left.is_zero())
            .unwrap_or(life))
}
