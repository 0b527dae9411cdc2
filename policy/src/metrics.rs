use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What was refused, by policy. Clones count the same.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Family<Label, Counter>);

/// As many values as there are policies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    policy: String,
}

impl Refusals {
    /// Registers the counter.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "refusals",
            "Calls and answers that a policy refused",
            self.0.clone(),
        );
    }

    /// Begins to count those of a policy, with none.
    pub(crate) fn expect(&self, policy: &str) {
        let policy = policy.to_owned();
        drop(self.0.get_or_create(&Label { policy }));
    }

    /// Counts one.
    pub(crate) fn count(&self, policy: &str) {
        let policy = policy.to_owned();
        self.0.get_or_create(&Label { policy }).inc();
    }

    /// How many calls the policy of a name refused.
    #[must_use]
    pub fn of(&self, policy: &str) -> u64 {
        let policy = policy.to_owned();
        self.0.get_or_create(&Label { policy }).get()
    }
}
