use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use carrick_grpc::Held;
use carrick_types::Invalid;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;
use tracing::{Instrument, debug_span};

use crate::{Agent, Change, Error, Found, Netns, Protocol, Socket};

/// What is counted of an agent's work. Clones count together.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    /// Batches of changes, by what came of them.
    pub applies: Family<Outcome, Counter>,
    /// Time that a batch took, in seconds, waiting for others included.
    pub duration: Histogram,
}

/// What came of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// `ok` or `failed`.
    pub outcome: &'static str,
}

impl Default for AgentMetrics {
    fn default() -> Self {
        Self {
            applies: Family::default(),
            // From a quarter of a millisecond, in which questions alone are
            // answered, to 2 s, by when a thousand links have been made.
            duration: Histogram::new(exponential_buckets(0.000_25, 2.0, 14)),
        }
    }
}

impl AgentMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        // What never happened is there with 0, so that the first time is a change.
        for outcome in ["ok", "failed"] {
            drop(self.applies.get_or_create(&Outcome { outcome }));
        }
        registry.register("applies", "Batches of changes", self.applies.clone());
        registry.register_with_unit(
            "apply_duration",
            "Time that a batch of changes took",
            Unit::Seconds,
            self.duration.clone(),
        );
    }

    fn count(&self, took: Duration, is_ok: bool) {
        let outcome = if is_ok { "ok" } else { "failed" };
        self.applies.get_or_create(&Outcome { outcome }).inc();
        self.duration.observe(took.as_secs_f64());
    }
}

/// An agent whose batches are counted and have a span each. Probes and lists
/// have neither: they are many, and nobody waits for them.
#[derive(Clone, Debug)]
pub struct Metered<A> {
    agent: A,
    metrics: AgentMetrics,
}

impl<A> Metered<A> {
    /// Counts what `agent` does.
    #[must_use]
    pub fn new(agent: A, metrics: AgentMetrics) -> Self {
        Self { agent, metrics }
    }
}

impl<A: Agent> Agent for Metered<A> {
    fn hold(&self, namespace: OwnedFd) -> Result<Held, Invalid> {
        self.agent.hold(namespace)
    }

    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        let span = debug_span!("agent.apply", changes = changes.len());
        async move {
            let begin = Instant::now();
            let applied = self.agent.apply(changes).await;
            self.metrics.count(begin.elapsed(), applied.is_ok());
            applied
        }
        .instrument(span)
        .boxed()
    }

    fn list<'a>(
        &'a self,
        netns: &'a Netns,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Found>, Error>> {
        self.agent.list(netns, owner)
    }

    fn ping<'a>(
        &'a self,
        netns: &'a Netns,
        source: IpAddr,
        target: IpAddr,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Option<Duration>, Error>> {
        self.agent.ping(netns, source, target, timeout)
    }

    fn bind<'a>(
        &'a self,
        netns: &'a Netns,
        protocol: Protocol,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Socket, Error>> {
        self.agent.bind(netns, protocol, address)
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;
    use crate::{Recording, Router};

    fn router(netns: Netns) -> Change {
        Change::PutRouter(Router {
            netns,
            addresses: Vec::new(),
            unreachable: Vec::new(),
        })
    }

    #[tokio::test]
    async fn batches_are_counted_by_what_came_of_them() {
        let (agent, metrics) = (Recording::default(), AgentMetrics::default());
        let metered = Metered::new(agent, metrics.clone());
        metered.apply(vec![router(Netns::Own)]).await.unwrap();
        let nameless = Netns::Named(String::new());
        metered.apply(vec![router(nameless)]).await.unwrap_err();
        let counted = |outcome| metrics.applies.get_or_create(&Outcome { outcome }).get();
        assert_eq!((counted("ok"), counted("failed")), (1, 1));
    }
}
