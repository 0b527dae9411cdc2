//! What travels beside a registry call: the caller's token, and the path of
//! the call as JSON (NSM `registry/common/grpcmetadata`, `updatepath`).

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use carrick_chain::BoxError;
use carrick_types::{Invalid, Token};
use prost_types::Timestamp;
use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataMap;

const PATH: &str = "path";
const TOKEN: &str = "nsm-client-token";
const TOKEN_EXPIRES: &str = "nsm-client-token-expires";

/// Adds what a registry wants to know of its caller. The path is there even
/// though it is empty, since NSM's policies refuse calls without.
pub(crate) fn put(metadata: &mut MetadataMap, token: Option<&Token>) -> Result<(), BoxError> {
    metadata.insert(PATH, Path::default().to_json().parse()?);
    if let Some(token) = token {
        metadata.insert(TOKEN, token.value.parse()?);
        let expires = Timestamp::from(token.expires).to_string();
        metadata.insert(TOKEN_EXPIRES, expires.parse()?);
    }
    Ok(())
}

/// What a call says of its caller. Nothing of it is proved here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    token: Option<String>,
    /// When the token ends.
    pub(crate) expires: Option<SystemTime>,
    path: Option<Path>,
}

/// The hops that a registration has taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Path {
    #[serde(alias = "index")]
    index: usize,
    #[serde(alias = "path_segments")]
    path_segments: Option<Vec<Segment>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Segment {
    #[serde(alias = "Token")]
    token: String,
}

// === impl Caller ===

impl Caller {
    /// Reads a call's metadata. Callers without any of it are welcome, as are
    /// those whose values NSM would not understand either; a path that points
    /// past its end is the exception.
    pub(crate) fn of(metadata: &MetadataMap) -> Result<Self, Invalid> {
        let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
        let expires: Option<Timestamp> = text(TOKEN_EXPIRES).and_then(|time| time.parse().ok());
        let path: Option<Path> = text(PATH).and_then(|path| serde_json::from_str(path).ok());
        if let Some(path) = path.as_ref().filter(|path| !path.is_valid()) {
            let most = "an index within its segments, of which there are at most 64";
            return Err(Invalid::new("path metadata", path.to_json(), most));
        }
        Ok(Self {
            token: text(TOKEN).map(str::to_owned),
            expires: expires.and_then(|time| SystemTime::try_from(time).ok()),
            path,
        })
    }

    /// Moves the path on to this hop: the caller's token in the caller's
    /// segment, ours in the one behind.
    pub(crate) fn arrive(mut self, own: Option<&Token>) -> Self {
        if let Some(path) = &mut self.path {
            let segments = path.path_segments.get_or_insert_default();
            if segments.is_empty() {
                segments.push(Segment::default());
            }
            if let Some(token) = &self.token {
                segments[path.index].token.clone_from(token);
            }
            path.index += 1;
            segments.truncate(path.index);
            let token = own.map(|token| token.value.clone()).unwrap_or_default();
            segments.push(Segment { token });
        }
        self
    }

    /// The identities of the hops, the first one first; empty if none is told.
    pub(crate) fn path_ids(&self) -> Vec<String> {
        let segments = self
            .path
            .iter()
            .flat_map(|path| path.path_segments.iter().flatten());
        let path: Vec<String> = segments
            .filter_map(|segment| subject(&segment.token))
            .collect();
        if path.is_empty() {
            return self
                .token
                .as_deref()
                .and_then(subject)
                .into_iter()
                .collect();
        }
        path
    }

    /// Adds the path to the metadata of an answer, if the caller knows of paths.
    pub(crate) fn answer(&self, metadata: &mut MetadataMap) {
        if let Some(path) = self
            .path
            .as_ref()
            .and_then(|path| path.to_json().parse().ok())
        {
            metadata.insert(PATH, path);
        }
    }
}

impl Path {
    fn is_valid(&self) -> bool {
        let segments = self.path_segments.as_ref().map_or(0, Vec::len);
        segments <= carrick_types::Path::SEGMENTS_MAX
            && (self.index < segments || (self.index == 0 && segments == 0))
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a path has only text keys")
    }
}

/// The `sub` of a JWT (RFC 7519 §4.1.2), which is not verified.
fn subject(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let claims = token.split('.').nth(1)?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    (!claims.sub.is_empty()).then_some(claims.sub)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn token(subject: &str) -> Token {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"{subject}"}}"#));
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
        assert_eq!(caller.expires, Some(token("").expires));
        assert_eq!(caller.path_ids(), ["spiffe://a"]);
    }

    #[test]
    fn a_local_time_of_a_token_is_understood() {
        let mut metadata = MetadataMap::new();
        metadata.insert(
            TOKEN_EXPIRES,
            "2023-11-15T00:13:20.25+02:00".parse().unwrap(),
        );
        assert_eq!(
            Caller::of(&metadata).unwrap().expires,
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
        let path: Path = serde_json::from_str(answer.get(PATH).unwrap().to_str().unwrap()).unwrap();
        assert_eq!((path.index, path.path_segments.unwrap().len()), (1, 2));
    }

    #[test]
    fn a_refresh_over_a_known_path_does_not_make_it_longer() {
        let path = r#"{"Index":0,"PathSegments":[{"token":"a"},{"token":"b"}]}"#;
        let caller = Caller::of(&with_path(path)).unwrap().arrive(None);
        assert_eq!(caller.path.unwrap().path_segments.unwrap().len(), 2);
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
