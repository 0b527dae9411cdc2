use carrick_types::{Connection, PathSegment};

/// Which connections to hear of (NSM `MonitorScopeSelector`). The empty
/// selector means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// A contiguous run of path segments; empty fields match everything.
    pub segments: Vec<PathSegment>,
    /// One of these network services; empty means any.
    pub network_services: Vec<String>,
}

impl Selector {
    /// The selector by which a client follows its own connection.
    #[must_use]
    pub fn segment(name: &str, id: &str) -> Self {
        Self {
            segments: vec![PathSegment {
                name: name.to_owned(),
                id: id.to_owned(),
                ..PathSegment::default()
            }],
            network_services: Vec::new(),
        }
    }

    /// Whether `connection` is meant.
    #[must_use]
    pub fn matches(&self, connection: &Connection) -> bool {
        let service = connection.network_service.as_str();
        (self.network_services.is_empty() || self.network_services.iter().any(|s| s == service))
            && connection.path.matches(&self.segments)
    }

    /// A segment id which every connection that is meant has in its path, if
    /// the selector names one.
    pub(super) fn segment_id(&self) -> Option<&str> {
        self.segments
            .iter()
            .map(|segment| segment.id.as_str())
            .find(|id| !id.is_empty())
    }
}
