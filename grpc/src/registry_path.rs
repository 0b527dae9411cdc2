use std::fmt;

use carrick_types::{Invalid, Path, Token};
use serde::{Deserialize, Serialize};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

/// Metadata key.
const KEY: &str = "path";
/// Longest header that is read, in bytes.
const TEXT_MAX: usize = 64 * 1024;

/// The path of a registry call, which travels as JSON in the metadata `path`
/// (NSM `grpcmetadata`): `{"Index":0,"PathSegments":[{"token":"…"}]}`.
///
/// The server answers with the path as it made it, in the initial metadata.
/// Who called first owns the names it registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegistryPath {
    /// Position of the current hop.
    #[serde(default)]
    pub index: u32,
    /// The hops, first caller first. Go writes none as `null`.
    #[serde(
        default,
        deserialize_with = "null_is_none",
        serialize_with = "none_is_null"
    )]
    pub path_segments: Vec<RegistryPathSegment>,
}

/// One hop of a [`RegistryPath`].
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryPathSegment {
    /// The hop's token, a JWT.
    #[serde(default)]
    pub token: String,
}

/// Leaves the token out: it is a credential, and this text goes into logs.
impl fmt::Debug for RegistryPathSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryPathSegment")
            .finish_non_exhaustive()
    }
}

impl RegistryPath {
    /// The path of a first caller.
    #[must_use]
    pub fn first(token: &Token) -> Self {
        let token = token.value.clone();
        Self {
            index: 0,
            path_segments: vec![RegistryPathSegment { token }],
        }
    }

    /// The path of a call, or of an answer's initial metadata. None is the
    /// empty one: older clients send none.
    ///
    /// # Errors
    ///
    /// There are several, it is no such JSON, longer than 64 KiB, or has more
    /// than [`Path::SEGMENTS_MAX`] segments.
    pub fn from_metadata(metadata: &MetadataMap) -> Result<Self, Invalid> {
        let mut values = metadata.get_all(KEY).iter();
        let Some(value) = values.next() else {
            return Ok(Self::default());
        };
        match value.to_str() {
            Ok(text) if values.next().is_none() => text.parse(),
            _ => Err(Invalid::new(
                KEY,
                "(not shown)",
                "one value of ASCII characters",
            )),
        }
    }

    /// Sends the path with a call or an answer.
    pub fn to_metadata(&self, metadata: &mut MetadataMap) {
        // It always is one: ASCII without control characters.
        if let Ok(text) = AsciiMetadataValue::try_from(self.to_string()) {
            metadata.insert(KEY, text);
        }
    }
}

/// JSON in ASCII: other characters are escaped.
impl fmt::Display for RegistryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        let mut units = [0; 2];
        for c in json.chars() {
            if (' '..='~').contains(&c) {
                write!(f, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut units) {
                    write!(f, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for RegistryPath {
    type Err = Invalid;

    /// The text is not repeated in the mistake, as it holds tokens.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |expected| Invalid::new(KEY, format!("{} bytes", text.len()), expected);
        if text.len() > TEXT_MAX {
            return Err(wrong("at most 65536 bytes"));
        }
        let path: Self = serde_json::from_str(text)
            .map_err(|_| wrong(r#"JSON such as {"Index":0,"PathSegments":[{"token":"a.b.c"}]}"#))?;
        if path.path_segments.len() > Path::SEGMENTS_MAX {
            return Err(wrong("a path of at most 64 segments"));
        }
        Ok(path)
    }
}

fn null_is_none<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<RegistryPathSegment>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn none_is_null<S: serde::Serializer>(
    segments: &[RegistryPathSegment],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    (!segments.is_empty())
        .then_some(segments)
        .serialize(serializer)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_text_is_gos() {
        let empty = r#"{"Index":0,"PathSegments":null}"#;
        assert_eq!(RegistryPath::default().to_string(), empty);
        assert_eq!(
            empty.parse::<RegistryPath>().unwrap(),
            RegistryPath::default()
        );
        assert_eq!(
            "{}".parse::<RegistryPath>().unwrap(),
            RegistryPath::default()
        );
        let token = Token {
            value: "a.b.c".into(),
            expires: std::time::UNIX_EPOCH,
        };
        let text = r#"{"Index":0,"PathSegments":[{"token":"a.b.c"}]}"#;
        assert_eq!(RegistryPath::first(&token).to_string(), text);
    }

    #[test]
    fn no_path_is_the_empty_one_and_two_are_none() {
        let mut metadata = MetadataMap::new();
        assert_eq!(
            RegistryPath::from_metadata(&metadata).unwrap(),
            RegistryPath::default()
        );
        RegistryPath::default().to_metadata(&mut metadata);
        assert_eq!(
            RegistryPath::from_metadata(&metadata).unwrap(),
            RegistryPath::default()
        );
        metadata.append(KEY, "{}".parse().unwrap());
        assert!(RegistryPath::from_metadata(&metadata).is_err());
    }

    #[test]
    fn what_is_too_much_is_refused_without_being_repeated() {
        let segments = vec![
            RegistryPathSegment {
                token: "secret".into()
            };
            65
        ];
        let text = RegistryPath {
            index: 0,
            path_segments: segments,
        }
        .to_string();
        let error = text.parse::<RegistryPath>().unwrap_err().to_string();
        assert!(error.contains("64") && !error.contains("secret"), "{error}");
        assert!("x".repeat(TEXT_MAX + 1).parse::<RegistryPath>().is_err());
    }

    proptest! {
        #[test]
        fn a_path_survives_its_metadata(index: u32, tokens in vec("\\PC{0,20}|.{0,20}", 0..5)) {
            let path_segments =
                tokens.into_iter().map(|token| RegistryPathSegment { token }).collect();
            let path = RegistryPath { index, path_segments };
            let mut metadata = MetadataMap::new();
            path.to_metadata(&mut metadata);
            prop_assert_eq!(RegistryPath::from_metadata(&metadata).unwrap(), path);
        }

        #[test]
        fn any_text_is_a_path_or_refused(text in prop_oneof![
            ".{0,60}",
            r#"\{"Index":(-?[0-9]{1,12}|null),"PathSegments":(null|\[(\{\}|null|\{"token":"[a-z\\]{0,4}"\})?\])\}"#,
        ]) {
            let _ = text.parse::<RegistryPath>();
        }
    }
}
