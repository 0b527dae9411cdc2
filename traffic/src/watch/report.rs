//! What a watch found.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{End, Event, Flow, Happened, Watch};
use crate::Transport;
use crate::report::{nanoseconds, rfc3339};

/// What a [`Watch`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatchReport {
    /// When it began, RFC 3339.
    #[serde(with = "rfc3339")]
    pub start_time: SystemTime,
    /// How long it ran, in nanoseconds.
    #[serde(with = "nanoseconds")]
    pub duration: Duration,
    /// Where to.
    pub target: String,
    /// Over what.
    pub transport: Transport,
    /// Flows that were asked for.
    pub flows: u64,
    /// Flows that never opened.
    pub failed: u64,
    /// Flows that lived to the end with the server they began with.
    pub lasting: u64,
    /// Flows that were reset.
    pub reset: u64,
    /// Flows that the other end closed.
    pub closed: u64,
    /// Flows that another server answered at some time.
    pub moved: u64,
    /// Flows that gave no answer any more at the end.
    pub stalled: u64,
    /// Stalls that ended with an answer.
    pub resumed: u64,
    /// The longest time without an answer, counting only stalls, in nanoseconds.
    #[serde(with = "nanoseconds")]
    pub longest_stall: Duration,
    /// Questions that were answered.
    pub exchanges: u64,
    /// By the server that a flow spoke with last.
    pub hosts: BTreeMap<String, Held>,
    /// Everything that happened, in the order it was noticed.
    pub events: Vec<Event>,
}

/// What became of one server's flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Lived to the end with the server they began with.
    pub lasting: u64,
    /// Were reset, closed, moved, or gave no answer any more.
    pub lost: u64,
}

impl WatchReport {
    pub(super) fn new(
        watch: &Watch,
        start_time: SystemTime,
        duration: Duration,
        flows: &[Flow],
        events: Vec<Event>,
    ) -> Self {
        let count = |end: End| flows.iter().filter(|flow| flow.end() == Some(end)).count() as u64;
        let mut hosts: BTreeMap<String, Held> = BTreeMap::new();
        for flow in flows.iter().filter(|flow| flow.end() != Some(End::Failed)) {
            let held = hosts.entry(flow.host().to_owned()).or_default();
            if is_lasting(flow) {
                held.lasting += 1;
            } else {
                held.lost += 1;
            }
        }
        let resumed = |event: &&Event| matches!(event.happened, Happened::Resumed { .. });
        Self {
            start_time,
            duration,
            target: watch.target.to_string(),
            transport: watch.transport,
            flows: watch.flows,
            failed: count(End::Failed),
            lasting: flows.iter().filter(|flow| is_lasting(flow)).count() as u64,
            reset: count(End::Reset),
            closed: count(End::Closed),
            moved: flows.iter().filter(|flow| flow.moved()).count() as u64,
            stalled: count(End::Stalled),
            resumed: events.iter().filter(resumed).count() as u64,
            longest_stall: flows
                .iter()
                .map(Flow::longest_stall)
                .max()
                .unwrap_or_default(),
            exchanges: flows.iter().map(Flow::exchanges).sum(),
            hosts,
            events,
        }
    }

    /// Whether every flow opened and lived to the end with its server.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.lasting == self.flows
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
}

fn is_lasting(flow: &Flow) -> bool {
    flow.end() == Some(End::Lasting) && !flow.moved()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_is_counted_under_its_server_as_lasting_or_lost() {
        let watch = Watch {
            flows: 5,
            ..Watch::new(([127, 0, 0, 1], 5001).into())
        };
        let at = Duration::from_secs(1);
        let mut events = Vec::new();
        let mut flows: Vec<_> = (0..4).map(|number| Flow::new(number, "a".into())).collect();
        events.push(flows[0].ended(true, at));
        events.extend(flows[1].answered("b", at));
        events.extend(flows[2].silent(Duration::ZERO, at));
        flows.push(Flow::failed(4));
        for flow in &mut flows {
            flow.stop(at * 2);
        }
        let report = WatchReport::new(&watch, SystemTime::UNIX_EPOCH, at * 2, &flows, events);
        assert_eq!(
            (
                report.reset,
                report.moved,
                report.stalled,
                report.failed,
                report.lasting
            ),
            (1, 1, 1, 1, 1)
        );
        assert_eq!(
            report.hosts["a"],
            Held {
                lasting: 1,
                lost: 2
            }
        );
        assert_eq!(
            report.hosts["b"],
            Held {
                lasting: 0,
                lost: 1
            }
        );
        assert_eq!(report.longest_stall, at * 2);
        assert!(!report.is_success());
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["events"][0]["event"], "reset");
        assert_eq!(json["events"][1]["to"], "b");
    }
}
