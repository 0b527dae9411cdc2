use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Labels of a connection or an endpoint, in order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(pub BTreeMap<String, String>);

impl Labels {
    /// The value of a label.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether every label of `self` is also in `other` with the same value
    /// (NSM's meaning of a selector; an empty one matches everything).
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.0
            .iter()
            .all(|(key, value)| other.value(key) == Some(value))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        Self(
            labels
                .into_iter()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
        )
    }
}
