//! Times as RFC 3339 text in UTC, for serde: `#[serde(with = "carrick_types::rfc3339")]`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serializer};

/// The last second of the year 9999, with which the format ends.
const LAST: Duration = Duration::from_secs(253_402_300_799);

fn text(time: SystemTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339(time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST))
}

/// Writes a time with as many digits of a second as it has. What is outside the
/// years 1970 to 9999 is written as the nearest time within.
///
/// # Errors
///
/// Those of `serializer`.
pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&text(*time))
}

/// Reads a time that ends with `Z`.
///
/// # Errors
///
/// It is no such text.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)
}

/// The same for a time that may be missing.
pub mod option {
    use super::{Deserialize, Deserializer, Serializer, SystemTime};

    /// Writes a time, or nothing.
    ///
    /// # Errors
    ///
    /// Those of `serializer`.
    pub fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a time, or nothing.
    ///
    /// # Errors
    ///
    /// It is no such text.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let time = text.map(|text| humantime::parse_rfc3339(&text));
        time.transpose().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Times {
        #[serde(with = "crate::rfc3339")]
        at: SystemTime,
        #[serde(with = "crate::rfc3339::option")]
        until: Option<SystemTime>,
    }

    fn round(times: &Times) -> (String, Times) {
        let text = serde_json::to_string(times).unwrap();
        let read = serde_json::from_str(&text).unwrap();
        (text, read)
    }

    #[test]
    fn a_time_reads_as_it_was_written() {
        let at = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        for until in [None, Some(at + Duration::from_secs(1))] {
            let times = Times { at, until };
            let (text, read) = round(&times);
            assert!(
                text.contains(r#""2023-11-14T22:13:20.123456789Z""#),
                "{text}"
            );
            assert_eq!(read, times);
        }
    }

    #[test]
    fn a_time_outside_the_format_is_the_nearest_within() {
        let far = UNIX_EPOCH + LAST * 2;
        let before = UNIX_EPOCH - Duration::from_secs(1);
        let (_, read) = round(&Times {
            at: far,
            until: Some(before),
        });
        assert_eq!((read.at, read.until), (UNIX_EPOCH + LAST, Some(UNIX_EPOCH)));
    }
}
