use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) use crate::testing::Hop;
use crate::{About, Input, Segment};

pub(super) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_800_000_000_500)
}

/// Seconds since 1970, from [`now`] on.
pub(super) fn end(seconds: u64) -> u64 {
    1_800_000_000 + seconds
}

/// Hops of different names.
pub(super) fn hops(count: usize) -> Vec<Hop> {
    (0..count)
        .map(|at| Hop::new(&format!("hop-{at}")))
        .collect()
}

pub(super) fn token(hop: &Hop, next: &Hop) -> String {
    hop.token(&next.id, end(600))
}

/// The tokens of a path as the last hop finds them: each is for the next one,
/// its own for the one before.
pub(super) fn tokens(hops: &[Hop]) -> Vec<String> {
    let pairs = hops.windows(2).map(|pair| token(&pair[0], &pair[1]));
    let last = hops
        .windows(2)
        .next_back()
        .map(|pair| token(&pair[1], &pair[0]));
    pairs.chain(last).collect()
}

/// A path as a server sees it whose own segment is the last, called by `caller`.
pub(super) fn input<'a>(tokens: &'a [String], caller: &'a Hop) -> Input<'a> {
    let segment = |token: &'a String| Segment {
        token,
        ..Segment::default()
    };
    Input {
        index: tokens.len().saturating_sub(1),
        segments: tokens.iter().map(segment).collect(),
        caller: caller.caller(),
        about: About::Connection,
    }
}
