use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::Labels;

/// The way of a Request: a segment for each hop, and which of them is current
/// (NSM `connection.Path`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Position of the current hop in `segments`. As it comes from the wire it
    /// may point past the end; who uses it checks ([`Path::current`]).
    pub index: usize,
    /// The hops, client first.
    pub segments: Vec<PathSegment>,
}

impl Path {
    /// Most segments that are accepted from the wire. Six are usual, an
    /// interdomain path has about ten.
    pub const SEGMENTS_MAX: usize = 64;

    /// The segment of the current hop.
    #[must_use]
    pub fn current(&self) -> Option<&PathSegment> {
        self.segments.get(self.index)
    }

    /// The segment of the hop before, which is the caller's.
    #[must_use]
    pub fn previous(&self) -> Option<&PathSegment> {
        self.segments.get(self.index.checked_sub(1)?)
    }

    /// The segment of the hop behind.
    #[must_use]
    pub fn following(&self) -> Option<&PathSegment> {
        self.segments.get(self.index.checked_add(1)?)
    }

    /// The first hop: the client that the connection is for.
    #[must_use]
    pub fn client(&self) -> Option<&PathSegment> {
        self.segments.first()
    }

    /// Whether `other` is the same way, be it with newer tokens.
    #[must_use]
    pub fn is_same_but_for_tokens(&self, other: &Self) -> bool {
        let mut pairs = self.segments.iter().zip(&other.segments);
        self.index == other.index
            && self.segments.len() == other.segments.len()
            && pairs.all(|(a, b)| (&a.name, &a.id, &a.metrics) == (&b.name, &b.id, &b.metrics))
    }

    /// Whether `pattern` matches a contiguous run of segments anywhere in the
    /// path (NSM `MonitorScopeSelector`); an empty pattern matches.
    #[must_use]
    pub fn matches(&self, pattern: &[PathSegment]) -> bool {
        pattern.is_empty()
            || self
                .segments
                .windows(pattern.len())
                .any(|run| run.iter().zip(pattern).all(|(is, want)| is.matches(want)))
    }
}

/// One hop of a [`Path`].
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSegment {
    /// The component's name; for an endpoint its name in the registry.
    pub name: String,
    /// The connection's id at this hop.
    pub id: String,
    /// The hop's token, a JWT.
    pub token: String,
    /// When the token ends. A segment without it makes NSM clients refresh
    /// without pause.
    pub expires: Option<SystemTime>,
    /// Free-form measurements of the hop.
    pub metrics: BTreeMap<String, String>,
}

impl PathSegment {
    /// Whether this segment is what `want` asks for; empty fields ask nothing.
    fn matches(&self, want: &Self) -> bool {
        let field = |is: &str, want: &str| want.is_empty() || is == want;
        field(&self.name, &want.name)
            && field(&self.id, &want.id)
            && field(&self.token, &want.token)
    }
}

/// Leaves the token out: it is a credential, and this text goes into logs.
impl fmt::Debug for PathSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathSegment")
            .field("name", &self.name)
            .field("id", &self.id)
            .field("expires", &self.expires)
            .field("metrics", &Labels(self.metrics.clone()))
            .finish_non_exhaustive()
    }
}

/// A path token and when it ends (NSM `token.GeneratorFunc`).
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The JWT in its compact form.
    pub value: String,
    /// When it ends.
    pub expires: SystemTime,
}

/// Leaves the value out: it is a credential.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(name: &str, id: &str) -> PathSegment {
        PathSegment {
            name: name.into(),
            id: id.into(),
            ..PathSegment::default()
        }
    }

    #[test]
    fn a_selector_matches_a_contiguous_run_anywhere() {
        let path = Path {
            index: 0,
            segments: vec![
                segment("nsc", "1"),
                segment("mgr", "2"),
                segment("nse", "3"),
            ],
        };
        assert!(path.matches(&[]));
        assert!(path.matches(&[segment("mgr", ""), segment("", "3")]));
        assert!(!path.matches(&[segment("nsc", ""), segment("nse", "")]));
        assert!(!path.matches(&[
            segment("", ""),
            segment("", ""),
            segment("", ""),
            segment("", "")
        ]));
    }

    #[test]
    fn a_token_is_not_written_to_logs() {
        let segment = PathSegment {
            token: "secret".into(),
            ..PathSegment::default()
        };
        assert!(!format!("{segment:?}").contains("secret"));
    }
}
