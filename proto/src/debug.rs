//! Debug output that is fit for a log.

use std::fmt;

use crate::connection::PathSegment;
use crate::spiffe::X509svid;

/// Tells whether there is a token, never the token: until it expires, whoever reads
/// it can act as the hop.
impl fmt::Debug for PathSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            id,
            token,
            expires,
            metrics,
        } = self;
        let token = if token.is_empty() { "" } else { "(not shown)" };
        f.debug_struct("PathSegment")
            .field("name", name)
            .field("id", id)
            .field("token", &token)
            .field("expires", expires)
            .field("metrics", metrics)
            .finish()
    }
}

/// Leaves the private key out.
impl fmt::Debug for X509svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            spiffe_id, hint, ..
        } = self;
        f.debug_struct("X509svid")
            .field("spiffe_id", spiffe_id)
            .field("hint", hint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::connection::{Connection, Path, PathSegment};

    #[test]
    fn a_token_is_not_printed() {
        let segment = PathSegment {
            name: "nsc-1".into(),
            token: "header.claims.signature".into(),
            ..Default::default()
        };
        let path = Path {
            index: 0,
            path_segments: vec![segment],
        };
        let printed = format!(
            "{:?}",
            Connection {
                path: Some(path),
                ..Default::default()
            }
        );
        assert!(printed.contains("nsc-1"), "{printed}");
        assert!(!printed.contains("claims"), "{printed}");
    }
}
