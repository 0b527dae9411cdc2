//! The result of a client, and its JSON.
//!
//! The first seven fields are mconnect's, by name, order and unit, so that either tool's files can be read by whoever
//! reads the other's; the further ones are ours and may be absent.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::{Frequencies, Spread, Transport};

/// What a [`Client`](crate::Client) found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Connections by the name of the server that answered.
    pub hosts: BTreeMap<String, u64>,
    /// Connections that were asked for.
    pub connects: u64,
    /// Of those, the ones that were not made.
    pub failed_connects: u64,
    /// Of those, the ones that were made, but no name was read.
    pub failed_reads: u64,
    /// When it began, RFC 3339.
    #[serde(with = "rfc3339")]
    pub start_time: SystemTime,
    /// How long it was allowed to take, in nanoseconds.
    #[serde(with = "nanoseconds")]
    pub timeout: Duration,
    /// How long it took, in nanoseconds.
    #[serde(with = "nanoseconds")]
    pub duration: Duration,

    /// What the connections ran over.
    #[serde(default)]
    pub transport: Transport,
    /// Where to, as it was given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// What the order of sources was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Failed connects and reads by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, u64>,
    /// Datagrams that were sent once more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retried: u64,
    /// Connections that were held, and what became of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// From the first packet to the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_latency: Option<Latency>,
    /// From the first packet to the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_latency: Option<Latency>,
}

/// What became of connections that were held open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Still there at the end.
    pub lasting: u64,
    /// Reset or closed by others before the end.
    pub lost: u64,
}

/// How long something took, in nanoseconds: percentiles of all that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half took at most this.
    #[serde(with = "nanoseconds")]
    pub p50: Duration,
    /// 95 % took at most this.
    #[serde(with = "nanoseconds")]
    pub p95: Duration,
    /// 99 % took at most this.
    #[serde(with = "nanoseconds")]
    pub p99: Duration,
    /// The slowest.
    #[serde(with = "nanoseconds")]
    pub max: Duration,
}

impl Latency {
    /// The percentiles of `times`, which are put in order; none if there is no time.
    #[must_use]
    pub fn of(times: &mut [Duration]) -> Option<Self> {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
        let max = *times.last()?;
        Some(Self {
            p50: at(50),
            p95: at(95),
            p99: at(99),
            max,
        })
    }
}

/// A text is not the result of a client.
#[derive(Debug, thiserror::Error)]
#[error(
    "neither the text nor its last line is a result in JSON (fields hosts, connects, failed_connects, …)"
)]
pub struct NoReport(#[source] serde_json::Error);

impl Report {
    /// Reads a result. Lines before it, as mconnect writes them for failed reads, are passed over.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn read(text: &str) -> Result<Self, NoReport> {
        serde_json::from_str(text).or_else(|_| {
            let last = text.lines().rev().find(|line| !line.trim().is_empty());
            serde_json::from_str(last.unwrap_or_default()).map_err(NoReport)
        })
    }

    /// As JSON on one line, without its end.
    ///
    /// # Panics
    ///
    /// Never: every field has a JSON form.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("every field has a JSON form")
    }

    /// Whether every connection was made and answered, and none that was held was lost.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let lost = self.held.map_or(0, |held| held.lost);
        self.failed_connects == 0 && self.failed_reads == 0 && lost == 0
    }

    /// Connections that were made and answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.hosts.values().sum()
    }

    /// How even it is, if `expected` servers should have answered; 0 to count only those that did.
    #[must_use]
    pub fn spread(&self, expected: usize) -> Spread {
        Spread::of(self.hosts.values().copied(), expected)
    }

    /// The frequency table, if `expected` servers should have answered; 0 to count only those that did.
    #[must_use]
    pub fn frequencies(&self, expected: usize) -> Frequencies {
        Frequencies::of(self.hosts.values().copied(), expected)
    }

    /// Those of `names` that no connection reached.
    pub fn missing<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let is_missing = |name: &&str| !self.hosts.contains_key(*name);
        names.into_iter().filter(is_missing).collect()
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

pub(crate) mod nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        nanoseconds.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_nanos)
    }
}

pub(crate) mod rfc3339 {
    use std::time::{Duration, SystemTime};

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        humantime::format_rfc3339_nanos(*time)
            .to_string()
            .serialize(to)
    }

    /// With `Z` or with an offset, as Go writes it.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not a time of RFC 3339")))
    }

    fn parse(text: &str) -> Option<SystemTime> {
        if text.ends_with('Z') {
            return humantime::parse_rfc3339(text).ok();
        }
        let (time, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
        let local = humantime::parse_rfc3339(&format!("{time}Z")).ok()?;
        let (hours, minutes) = offset.get(1..)?.split_once(':')?;
        let minutes = hours.parse::<u64>().ok()? * 60 + minutes.parse::<u64>().ok()?;
        let shift = Duration::from_secs(minutes * 60);
        match offset.as_bytes().first()? {
            b'+' => local.checked_sub(shift),
            b'-' => local.checked_add(shift),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREIGN: &str = "Read err: EOF\n{\"hosts\":{\"a\":3,\"b\":5},\"connects\":10,\"failed_connects\":1,\
        \"failed_reads\":1,\"start_time\":\"2024-03-01T10:00:00.123456789+01:00\",\"timeout\":2010000000,\
        \"duration\":14000000}\n";

    #[test]
    fn a_result_of_mconnect_is_read_behind_its_complaints() {
        let report = Report::read(FOREIGN).unwrap();
        assert_eq!((report.connects, report.answered()), (10, 8));
        assert_eq!(report.timeout, Duration::from_millis(2010));
        let start = humantime::parse_rfc3339("2024-03-01T09:00:00.123456789Z").unwrap();
        assert_eq!(report.start_time, start);
        assert!(!report.is_success());
    }

    #[test]
    fn the_first_fields_are_those_of_mconnect_in_its_order() {
        let json = Report::read(FOREIGN).unwrap().to_json();
        let names = [
            "hosts",
            "connects",
            "failed_connects",
            "failed_reads",
            "start_time",
            "timeout",
            "duration",
        ];
        let places: Vec<_> = names
            .iter()
            .map(|name| json.find(&format!("\"{name}\":")).unwrap())
            .collect();
        assert!(places.is_sorted() && !json.contains('\n'), "{json}");
        assert!(json.contains("\"timeout\":2010000000"));
        assert_eq!(Report::read(&json).unwrap(), Report::read(FOREIGN).unwrap());
    }

    #[test]
    fn what_is_no_result_is_refused() {
        assert!(Report::read("").is_err());
        assert!(Report::read("{\"hosts\":1}").is_err());
    }

    #[test]
    fn servers_that_nobody_reached_are_named() {
        let report = Report::read(FOREIGN).unwrap();
        assert_eq!(report.missing(["a", "b", "c"]), ["c"]);
        assert_eq!(report.spread(4).missing, 2);
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let mut times: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        let latency = Latency::of(&mut times).unwrap();
        let of = [latency.p50, latency.p95, latency.p99, latency.max].map(|time| time.as_millis());
        assert_eq!(of, [100, 190, 198, 200]);
        assert_eq!(Latency::of(&mut []), None);
    }
}
