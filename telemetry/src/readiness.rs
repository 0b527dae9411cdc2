use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// Whether the process can serve: the conditions which its subsystems set. It is
/// ready when each of them is met, and also when there is none yet, so the
/// conditions belong before the listener that tells. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    conditions: Arc<watch::Sender<Conditions>>,
}

/// `None` is met; otherwise what is missing.
type Conditions = BTreeMap<&'static str, Option<String>>;

/// A condition that is not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub condition: &'static str,
    /// Why it is not met.
    pub reason: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.condition, self.reason)
    }
}

/// One thing that must be so before the process can serve. Cheap to clone; a
/// dropped one keeps what it was last set to.
#[derive(Clone, Debug)]
pub struct Condition {
    name: &'static str,
    conditions: Arc<watch::Sender<Conditions>>,
}

impl Readiness {
    /// Readiness without conditions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition, which is not met yet; an existing one of that name is
    /// not changed and shared.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        self.conditions.send_if_modified(|conditions| {
            let before = conditions.len();
            conditions
                .entry(name)
                .or_insert_with(|| Some("not yet".to_owned()));
            conditions.len() != before
        });
        Condition {
            name,
            conditions: self.conditions.clone(),
        }
    }

    /// Whether all conditions are met.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        all_met(&self.conditions.borrow())
    }

    /// The conditions that are not met, by name.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let conditions = self.conditions.borrow();
        let missing = conditions.iter().filter_map(|(condition, reason)| {
            Some(Missing {
                condition,
                reason: reason.clone()?,
            })
        });
        missing.collect()
    }

    /// Waits until all conditions are met.
    pub async fn wait_ready(&self) {
        let mut conditions = self.conditions.subscribe();
        // The sender is ours, so waiting cannot fail.
        let _ = conditions.wait_for(all_met).await;
    }

    /// Waits until some condition is not met.
    pub async fn wait_not_ready(&self) {
        let mut conditions = self.conditions.subscribe();
        let _ = conditions.wait_for(|conditions| !all_met(conditions)).await;
    }
}

impl Condition {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The condition is met.
    pub fn met(&self) {
        self.change(None);
    }

    /// The condition is not met, and why.
    pub fn unmet(&self, reason: impl fmt::Display) {
        self.change(Some(reason.to_string()));
    }

    /// [`Condition::met`] or [`Condition::unmet`] without a reason.
    pub fn set(&self, met: bool) {
        self.change((!met).then(|| "not met".to_owned()));
    }

    fn change(&self, missing: Option<String>) {
        let (condition, mut ready, mut turned) = (self.name, false, false);
        self.conditions.send_if_modified(|conditions| {
            let before = all_met(conditions);
            let known = conditions.entry(condition).or_default();
            if *known == missing {
                return false;
            }
            known.clone_from(&missing);
            ready = all_met(conditions);
            turned = before != ready;
            true
        });
        match missing {
            _ if turned && ready => tracing::info!(condition, "ready"),
            Some(reason) if turned => tracing::warn!(condition, reason, "not ready"),
            Some(reason) => tracing::debug!(condition, reason, "condition not met"),
            None => tracing::debug!(condition, "condition met"),
        }
    }
}

fn all_met(conditions: &Conditions) -> bool {
    conditions.values().all(Option::is_none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_each_condition_is_met() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (registry, prefix) = (
            readiness.condition("registry"),
            readiness.condition("prefix"),
        );
        assert!(!readiness.is_ready());
        registry.met();
        prefix.unmet("the IPAM is away");
        let missing = readiness.missing();
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].to_string(), "prefix: the IPAM is away");
        prefix.set(true);
        assert!(readiness.is_ready());
        registry.set(false);
        assert!(!readiness.is_ready());
    }

    #[test]
    fn asking_for_a_condition_again_does_not_reset_it() {
        let readiness = Readiness::new();
        readiness.condition("registry").met();
        let again = readiness.condition("registry");
        assert!(readiness.is_ready());
        again.set(false);
        assert_eq!(readiness.missing()[0].condition, "registry");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_when_the_last_condition_turns() {
        let readiness = Readiness::new();
        let condition = readiness.condition("registry");
        let copy = readiness.clone();
        let turns = tokio::spawn(async move {
            copy.wait_ready().await;
            copy.wait_not_ready().await;
        });
        tokio::task::yield_now().await;
        assert!(!turns.is_finished());
        condition.met();
        readiness.wait_ready().await;
        // Lets the other task see that it was ready before it no longer is.
        tokio::task::yield_now().await;
        condition.set(false);
        turns.await.unwrap();
    }
}
