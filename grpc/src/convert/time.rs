use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carrick_types::Invalid;
use prost_types::Timestamp;

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, between which a
/// `google.protobuf.Timestamp` lies.
pub(crate) const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A time from the wire.
///
/// # Errors
///
/// It is outside the years 1 to 9999, or its nanoseconds are more than a
/// second's.
pub fn time_from_wire(field: &str, wire: Timestamp) -> Result<SystemTime, Invalid> {
    let Timestamp { seconds, nanos } = wire;
    u32::try_from(nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000 && SECONDS.contains(&seconds))
        .and_then(|nanos| time(seconds, nanos))
        .ok_or_else(|| {
            let expected = "seconds within the years 1 to 9999 and 0 to 999999999 nanoseconds";
            Invalid::new(field, format!("{seconds} s {nanos} ns"), expected)
        })
}

/// `nanos` count forward, also before 1970.
pub(crate) fn time(seconds: i64, nanos: u32) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    time?.checked_add(Duration::from_nanos(nanos.into()))
}

/// A time for the wire; one outside the years 1 to 9999 becomes the nearest
/// inside.
#[must_use]
pub fn time_to_wire(time: SystemTime) -> Timestamp {
    let (seconds, nanos) = since_epoch(time);
    match seconds {
        ..=-62_135_596_801 => Timestamp {
            seconds: *SECONDS.start(),
            nanos: 0,
        },
        253_402_300_800.. => Timestamp {
            seconds: *SECONDS.end(),
            nanos: 999_999_999,
        },
        _ => Timestamp {
            seconds,
            nanos: nanos.cast_signed(),
        },
    }
}

/// Seconds since 1970, rounded down, and the nanoseconds that remain.
pub(crate) fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (seconds(after), after.subsec_nanos()),
        Err(e) if e.duration().subsec_nanos() == 0 => (-seconds(e.duration()), 0),
        Err(e) => (
            -seconds(e.duration()) - 1,
            1_000_000_000 - e.duration().subsec_nanos(),
        ),
    }
}

/// One less than the most, so that there is room for rounding.
fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX - 1)
}
