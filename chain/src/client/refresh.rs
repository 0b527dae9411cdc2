//! When a connection is asked for again (NSM `refresh`). Pure.

use std::time::{Duration, SystemTime};

use carrick_types::Path;

/// Shortest time between two Requests that nothing but the clock asks for: a
/// hop whose token is always expired would otherwise make clients storm. It is
/// the interval at which NSM repeats a failed refresh.
pub(super) const FLOOR: Duration = Duration::from_millis(200);

/// Longest time between two Requests: a next hop that forgot the connection and
/// does not say so is found out by then.
pub(super) const MOST: Duration = Duration::from_secs(24 * 3600);

/// How long until the refresh of a connection with this path: a share of the
/// life of the hop that expires first. The share is a third for a path of one
/// segment and grows from 0.2 to 0.4 towards the end of a longer one, so that
/// the client refreshes before those in the middle.
///
/// Segments that do not expire say nothing; `None` if no segment does.
pub(super) fn after(path: &Path, now: SystemTime) -> Option<Duration> {
    let expires = path
        .segments
        .iter()
        .filter_map(|segment| segment.expires)
        .min()?;
    let life = expires.duration_since(now).unwrap_or_default();
    Some(life.mul_f64(share(path.index, path.segments.len())))
}

fn share(index: usize, segments: usize) -> f64 {
    if segments <= 1 {
        return 1.0 / 3.0;
    }
    let small = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    0.2 + 0.2 * (small(index) / small(segments)).min(1.0)
}

#[cfg(test)]
mod tests {
    use carrick_types::PathSegment;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn delay(lives: &[Duration]) -> Duration {
        let now = SystemTime::now();
        let segment = |life: &Duration| PathSegment {
            expires: Some(now + *life),
            ..PathSegment::default()
        };
        let path = Path {
            index: lives.len() - 1,
            segments: lives.iter().map(segment).collect(),
        };
        after(&path, now).unwrap()
    }

    #[track_caller]
    fn assert_close(is: Duration, want: Duration, within: Duration) {
        assert!(is.abs_diff(want) <= within, "{is:?} is not {want:?}");
    }

    #[test]
    fn the_hop_that_expires_first_decides() {
        let (second, milli) = (Duration::from_secs(1), Duration::from_millis(1));
        assert_close(delay(&[HOUR]), HOUR / 3, milli);
        assert_close(delay(&[HOUR, 180 * second]), 54 * second, milli);
        assert_close(
            delay(&[HOUR, 5 * second, 180 * second]),
            5 * second / 3,
            milli,
        );
        let four = [200 * milli, 60 * second, 100 * milli, HOUR];
        // NSM's own test allows 10 ms around 33 ms; its formula gives 35 ms.
        assert_close(delay(&four), Duration::from_micros(33_333), 2 * milli);
    }

    #[test]
    fn what_does_not_expire_says_nothing_and_what_is_expired_says_now() {
        let now = SystemTime::now();
        let mut path = Path {
            index: 0,
            segments: vec![PathSegment::default()],
        };
        assert_eq!(after(&path, now), None);
        path.segments[0].expires = Some(now - HOUR);
        assert_eq!(after(&path, now), Some(Duration::ZERO));
    }
}
