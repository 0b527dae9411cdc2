//! What travels beside a registry call: the caller's token, and the path of
//! the call (NSM `registry/common/grpcmetadata`, `updatepath`).

use std::time::SystemTime;

use carrick_chain::BoxError;
use carrick_grpc::{
    Claims, RegistryPath, RegistryPathSegment, caller_of, token_from_metadata, token_to_metadata,
};
use carrick_policy::{About, Input, Policies, Refused, Segment};
use carrick_types::{Invalid, Token};
use tonic::Extensions;
use tonic::metadata::MetadataMap;

/// Adds what a registry wants to know of its caller. The path is there even
/// though it is empty, since NSM's policies refuse calls without.
pub(crate) fn put(metadata: &mut MetadataMap, token: Option<&Token>) -> Result<(), BoxError> {
    RegistryPath::default().to_metadata(metadata);
    if let Some(token) = token {
        token_to_metadata(token, metadata)?;
    }
    Ok(())
}

/// Judges the path that a registry answers, whose identity may be proved (NSM
/// `registry/common/authorize`, its client half).
pub(crate) fn judge(
    policies: &Policies,
    metadata: &MetadataMap,
    extensions: &Extensions,
) -> Result<(), Box<Refused>> {
    let Some(caller) = caller_of(extensions).filter(|_| !policies.is_empty()) else {
        return Ok(());
    };
    // No path is an empty one, which the policies do not like.
    let path = RegistryPath::from_metadata(metadata).unwrap_or_default();
    let tokens = path.path_segments.iter().map(|segment| &segment.token);
    let token = |token| Segment {
        token,
        ..Segment::default()
    };
    let input = Input {
        index: usize::try_from(path.index).unwrap_or(usize::MAX),
        segments: tokens.map(String::as_str).map(token).collect(),
        caller,
        about: About::Connection,
    };
    policies.check(&input, SystemTime::now()).map_err(Box::new)
}

/// What a call says of its caller. Nothing of it is proved here.
#[derive(Debug)]
pub(crate) struct Caller {
    token: Option<Token>,
    /// `None` if the caller does not know of paths.
    path: Option<RegistryPath>,
}

// === impl Caller ===

impl Caller {
    /// Reads a call's metadata. Callers without any of it are welcome, as are
    /// those whose values NSM would not understand either; a path that points
    /// past its end is the exception.
    pub(crate) fn of(metadata: &MetadataMap) -> Result<Self, Invalid> {
        let path = RegistryPath::from_metadata(metadata).ok();
        let path = path.filter(|_| metadata.contains_key("path"));
        if let Some(path) = path.as_ref().filter(|path| position(path).is_none()) {
            let index = "an index within the path's segments";
            return Err(Invalid::new("path metadata: Index", path.index, index));
        }
        Ok(Self {
            token: token_from_metadata(metadata),
            path,
        })
    }

    /// When the caller's token ends.
    pub(crate) fn expires(&self) -> Option<SystemTime> {
        self.token.as_ref().map(|token| token.expires)
    }

    /// Moves the path on to this hop: the caller's token in the caller's
    /// segment, ours in the one behind.
    pub(crate) fn arrive(mut self, own: Option<&Token>) -> Self {
        if let Some(path) = &mut self.path
            && let Some(position) = position(path)
        {
            let segments = &mut path.path_segments;
            segments.resize_with(position + 1, RegistryPathSegment::default);
            if let Some(token) = &self.token {
                segments[position].token.clone_from(&token.value);
            }
            let token = own.map(|token| token.value.clone()).unwrap_or_default();
            segments.push(RegistryPathSegment { token });
            path.index += 1;
        }
        self
    }

    /// The identities of the hops, the first one first; empty if none is told.
    pub(crate) fn path_ids(&self) -> Vec<String> {
        let segments = self.path.iter().flat_map(|path| &path.path_segments);
        let path: Vec<String> = segments
            .filter_map(|segment| subject(&segment.token))
            .collect();
        if path.is_empty() {
            let own = self.token.as_ref().and_then(|token| subject(&token.value));
            return own.into_iter().collect();
        }
        path
    }

    /// Where this hop stands in the path.
    pub(crate) fn index(&self) -> usize {
        let index = self.path.as_ref().map_or(0, |path| path.index);
        usize::try_from(index).unwrap_or(usize::MAX)
    }

    /// The tokens of the hops up to this one.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &str> {
        let segments = self.path.iter().flat_map(|path| &path.path_segments);
        segments.map(|segment| segment.token.as_str())
    }

    /// Adds the path to the metadata of an answer, if the caller knows of
    /// paths; there the caller is the current hop again.
    pub(crate) fn answer(&self, metadata: &mut MetadataMap) {
        if let Some(path) = &self.path {
            let mut path = path.clone();
            path.index = path.index.saturating_sub(1);
            path.to_metadata(metadata);
        }
    }
}

/// Where the caller stands in its path, which may be empty.
fn position(path: &RegistryPath) -> Option<usize> {
    let position = usize::try_from(path.index).ok()?;
    (position < path.path_segments.len().max(1)).then_some(position)
}

/// Whom a token is of, unverified: it is recorded, and decides no more than
/// that one name is not taken by two.
fn subject(token: &str) -> Option<String> {
    let claims = Claims::unverified(token).ok()?;
    (!claims.sub.is_empty()).then_some(claims.sub)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    const PATH: &str = "path";
    const TOKEN_EXPIRES: &str = "nsm-client-token-expires";

    fn token(subject: &str) -> Token {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"{subject}","exp":1}}"#));
        Token {
            value: format!("e30.{claims}.c2ln"),
            expires: UNIX_EPOCH + Duration::new(1_700_000_000, 250_000_000),
        }
    }

    fn with_path(path: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert(PATH, path.parse().unwrap());
        metadata
    }

    #[test]
    fn a_client_sends_its_token_and_an_empty_path_as_go_writes_it() {
        let mut metadata = MetadataMap::new();
        put(&mut metadata, Some(&token("spiffe://a"))).unwrap();
        let text = |key| metadata.get(key).unwrap().to_str().unwrap();
        assert_eq!(text(PATH), r#"{"Index":0,"PathSegments":null}"#);
        assert_eq!(text(TOKEN_EXPIRES), "2023-11-14T22:13:20.250Z");
        let caller = Caller::of(&metadata).unwrap();
        assert_eq!(caller.expires(), Some(token("").expires));
        assert_eq!(caller.path_ids(), ["spiffe://a"]);
    }

    #[test]
    fn a_local_time_of_a_token_is_understood() {
        let mut metadata = MetadataMap::new();
        put(&mut metadata, Some(&token("a"))).unwrap();
        metadata.insert(
            TOKEN_EXPIRES,
            "2023-11-15T00:13:20.25+02:00".parse().unwrap(),
        );
        assert_eq!(
            Caller::of(&metadata).unwrap().expires(),
            Some(token("").expires)
        );
    }

    #[test]
    fn an_answer_has_the_callers_segment_and_ours() {
        let mut metadata = MetadataMap::new();
        put(&mut metadata, Some(&token("spiffe://a"))).unwrap();
        let caller = Caller::of(&metadata)
            .unwrap()
            .arrive(Some(&token("spiffe://registry")));
        assert_eq!(caller.path_ids(), ["spiffe://a", "spiffe://registry"]);
        let mut answer = MetadataMap::new();
        caller.answer(&mut answer);
        let path = RegistryPath::from_metadata(&answer).unwrap();
        assert_eq!((path.index, path.path_segments.len()), (0, 2));
    }

    #[test]
    fn a_refresh_over_a_known_path_does_not_make_it_longer() {
        let path = r#"{"Index":0,"PathSegments":[{"token":"a"},{"token":"b"}]}"#;
        let caller = Caller::of(&with_path(path)).unwrap().arrive(None);
        assert_eq!(caller.path.unwrap().path_segments.len(), 2);
    }

    #[test]
    fn a_caller_without_path_gets_none() {
        let caller = Caller::of(&MetadataMap::new())
            .unwrap()
            .arrive(Some(&token("x")));
        let mut answer = MetadataMap::new();
        caller.answer(&mut answer);
        assert!(answer.is_empty() && caller.path_ids().is_empty());
    }

    #[test]
    fn a_path_that_points_past_its_end_is_refused() {
        for path in [
            r#"{"Index":1,"PathSegments":[{"token":""}]}"#,
            r#"{"Index":3,"PathSegments":null}"#,
        ] {
            assert!(Caller::of(&with_path(path)).is_err(), "{path}");
        }
        assert!(Caller::of(&with_path("no json")).is_ok());
    }
}
