//! What one worker counted; workers' tallies add up.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::net::TcpStream;

use super::attempt::{Attempt, Failure, Stage};

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) hosts: BTreeMap<String, u64>,
    pub(super) failed_connects: u64,
    pub(super) failed_reads: u64,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) retried: u64,
    pub(super) connect_times: Vec<Duration>,
    pub(super) answer_times: Vec<Duration>,
    pub(super) streams: Vec<TcpStream>,
}

impl Tally {
    pub(super) fn made(&mut self, attempt: Attempt, hold: bool) {
        *self.hosts.entry(attempt.host).or_default() += 1;
        self.connect_times.push(attempt.connected);
        self.answer_times.push(attempt.answered);
        self.retried += u64::from(attempt.retried);
        self.streams.extend(attempt.stream.filter(|_| hold));
    }

    pub(super) fn failed(&mut self, failure: &Failure) {
        match failure.stage {
            Stage::Connect => self.failed_connects += 1,
            Stage::Read => self.failed_reads += 1,
        }
        *self.errors.entry(failure.kind.clone()).or_default() += 1;
    }

    /// Connections that nobody began.
    pub(super) fn never_tried(&mut self, connections: u64, kind: &str) {
        if connections > 0 {
            self.failed_connects += connections;
            *self.errors.entry(kind.to_owned()).or_default() += connections;
        }
    }

    pub(super) fn answered(&self) -> u64 {
        self.hosts.values().sum()
    }

    pub(super) fn tried(&self) -> u64 {
        self.answered() + self.failed_connects + self.failed_reads
    }

    pub(super) fn add(&mut self, other: Self) {
        for (host, count) in other.hosts {
            *self.hosts.entry(host).or_default() += count;
        }
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        self.failed_connects += other.failed_connects;
        self.failed_reads += other.failed_reads;
        self.retried += other.retried;
        self.connect_times.extend(other.connect_times);
        self.answer_times.extend(other.answer_times);
        self.streams.extend(other.streams);
    }
}
