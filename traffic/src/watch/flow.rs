//! One flow's life: answers, silence and ends go in, events come out. Times are since the watch began.

use std::time::Duration;

use serde::Serialize;

use crate::report::nanoseconds;

/// Something that happened to a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The flow's number.
    pub flow: u64,
    /// The server that it spoke with.
    pub host: String,
    /// When, in nanoseconds since the watch began.
    #[serde(with = "nanoseconds")]
    pub at: Duration,
    /// What.
    #[serde(flatten)]
    pub happened: Happened,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "event")]
pub enum Happened {
    /// The other end closed it.
    Closed,
    /// Another server answered than before.
    Moved {
        /// Its name.
        to: String,
    },
    /// It was reset, or an ICMP error ended it.
    Reset,
    /// An answer came after all.
    Resumed {
        /// How long there was none, in nanoseconds.
        #[serde(with = "nanoseconds")]
        after: Duration,
    },
    /// No answer for too long.
    Stalled,
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, flow, host) = (self.at.as_secs_f64(), self.flow, &self.host);
        write!(f, "{seconds:.3} s: flow {flow} with {host} ")?;
        match &self.happened {
            Happened::Closed => f.write_str("was closed by the other end"),
            Happened::Moved { to } => write!(f, "is answered by {to}"),
            Happened::Reset => f.write_str("was reset"),
            Happened::Resumed { after } => write!(f, "resumed after {:.3} s", after.as_secs_f64()),
            Happened::Stalled => f.write_str("stalled"),
        }
    }
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// Closed by the other end.
    Closed,
    /// It never opened.
    Failed,
    /// It lives; the watch ended.
    Lasting,
    /// Reset.
    Reset,
    /// It lives, but does not answer any more.
    Stalled,
}

/// A flow that is or was open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    number: u64,
    host: String,
    /// When the question was asked that has no answer yet, if it is too long ago.
    silent_since: Option<Duration>,
    moved: bool,
    exchanges: u64,
    longest_stall: Duration,
    end: Option<End>,
}

impl Flow {
    /// A flow that `host` answered when it opened.
    #[must_use]
    pub fn new(number: u64, host: String) -> Self {
        Self {
            number,
            host,
            silent_since: None,
            moved: false,
            exchanges: 0,
            longest_stall: Duration::ZERO,
            end: None,
        }
    }

    /// A flow that never opened.
    #[must_use]
    pub fn failed(number: u64) -> Self {
        let mut flow = Self::new(number, String::new());
        flow.end = Some(End::Failed);
        flow
    }

    /// An answer by `host` to a question: what that changes, if anything.
    pub fn answered(&mut self, host: &str, at: Duration) -> Vec<Event> {
        self.exchanges += 1;
        let mut events = Vec::new();
        if let Some(since) = self.silent_since.take() {
            let after = at.saturating_sub(since);
            self.longest_stall = self.longest_stall.max(after);
            events.push(self.event(at, Happened::Resumed { after }));
        }
        if host != self.host {
            let to = host.to_owned();
            events.push(self.event(at, Happened::Moved { to }));
            self.moved = true;
            host.clone_into(&mut self.host);
        }
        events
    }

    /// The question asked at `since` has no answer, and it is too long ago now; told once per silence.
    pub fn silent(&mut self, since: Duration, at: Duration) -> Option<Event> {
        if self.silent_since.is_some() {
            return None;
        }
        self.silent_since = Some(since);
        Some(self.event(at, Happened::Stalled))
    }

    /// The other end closed it (`reset` false) or it was reset.
    pub fn ended(&mut self, reset: bool, at: Duration) -> Event {
        let (end, happened) = if reset {
            (End::Reset, Happened::Reset)
        } else {
            (End::Closed, Happened::Closed)
        };
        self.end = Some(end);
        self.event(at, happened)
    }

    /// The watch ends at `at`.
    pub fn stop(&mut self, at: Duration) {
        let silent = self.silent_since.map(|since| at.saturating_sub(since));
        self.longest_stall = self.longest_stall.max(silent.unwrap_or_default());
        let end = if silent.is_some() {
            End::Stalled
        } else {
            End::Lasting
        };
        self.end.get_or_insert(end);
    }

    fn event(&self, at: Duration, happened: Happened) -> Event {
        Event {
            flow: self.number,
            host: self.host.clone(),
            at,
            happened,
        }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The server that answered last.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// How it ended; none while it runs.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether it is stalled.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    /// Whether more than one server answered.
    #[must_use]
    pub fn moved(&self) -> bool {
        self.moved
    }

    /// Questions that were answered.
    #[must_use]
    pub fn exchanges(&self) -> u64 {
        self.exchanges
    }

    /// The longest time without an answer, counting only stalls.
    #[must_use]
    pub fn longest_stall(&self) -> Duration {
        self.longest_stall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_flow_that_is_answered_tells_nothing() {
        let mut flow = Flow::new(7, "a".into());
        assert!((0..100).all(|i| flow.answered("a", ms(i * 100)).is_empty()));
        flow.stop(ms(10_000));
        assert_eq!((flow.end(), flow.exchanges()), (Some(End::Lasting), 100));
    }

    #[test]
    fn a_stall_is_told_once_and_its_end_with_its_length() {
        let mut flow = Flow::new(7, "a".into());
        let stalled = flow.silent(ms(1000), ms(2000)).unwrap();
        assert_eq!(
            (stalled.at, stalled.happened),
            (ms(2000), Happened::Stalled)
        );
        assert_eq!(flow.silent(ms(1000), ms(3000)), None);
        let events = flow.answered("a", ms(4500));
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].happened, Happened::Resumed { after: ms(3500) });
        assert_eq!(flow.longest_stall(), ms(3500));
        assert!(flow.silent(ms(5000), ms(6000)).is_some());
    }

    #[test]
    fn a_flow_that_never_resumes_is_stalled_at_the_end() {
        let mut flow = Flow::new(7, "a".into());
        flow.silent(ms(1000), ms(2000));
        flow.stop(ms(9000));
        assert_eq!(
            (flow.end(), flow.longest_stall()),
            (Some(End::Stalled), ms(8000))
        );
    }

    #[test]
    fn an_answer_of_another_server_is_a_move() {
        let mut flow = Flow::new(7, "a".into());
        let events = flow.answered("b", ms(10));
        assert_eq!(events[0].happened, Happened::Moved { to: "b".into() });
        assert_eq!(events[0].host, "a");
        assert!(flow.moved() && flow.answered("b", ms(20)).is_empty());
    }

    #[test]
    fn a_reset_stays_a_reset_when_the_watch_ends() {
        let mut flow = Flow::new(7, "a".into());
        assert_eq!(flow.ended(true, ms(5)).happened, Happened::Reset);
        flow.stop(ms(10));
        assert_eq!(flow.end(), Some(End::Reset));
    }
}
