use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Longest token that is looked at, in bytes. NSM's have about 400.
const LEN_MAX: usize = 16 * 1024;

/// A token of a path, taken apart: a JWS in its compact form (RFC 7515 §7.1)
/// with claims (RFC 7519). Nothing of it is proved.
#[derive(Debug)]
pub(crate) struct Token<'a> {
    /// What is signed: header and claims as they were sent.
    pub(crate) signed: &'a str,
    pub(crate) signature: Vec<u8>,
    pub(crate) header: Map<String, Value>,
    pub(crate) claims: Map<String, Value>,
}

impl<'a> Token<'a> {
    /// Takes a token apart; `None` if it is none.
    pub(crate) fn decode(text: &'a str) -> Option<Self> {
        if text.len() > LEN_MAX {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        Some(Self {
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
            header: object(header)?,
            claims: object(claims)?,
        })
    }

    /// Whose it says it is.
    pub(crate) fn subject(&self) -> Option<&str> {
        self.claims.get("sub")?.as_str()
    }

    /// When it ends, in seconds since 1970.
    pub(crate) fn end(&self) -> Option<f64> {
        self.claims.get("exp")?.as_f64()
    }

    /// Whether it was made for `who`. As in NSM, an audience is a list.
    pub(crate) fn is_for(&self, who: &str) -> bool {
        let audience = self.claims.get("aud").and_then(Value::as_array);
        audience.is_some_and(|audience| audience.iter().any(|one| one.as_str() == Some(who)))
    }
}

/// A JSON object in base64url. Nested deeper than 128 it is none.
fn object(text: &str) -> Option<Map<String, Value>> {
    let json = URL_SAFE_NO_PAD.decode(text).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Whose a token says it is, unverified: good for comparing with what was
/// verified before, or for what is only recorded.
#[must_use]
pub fn subject(token: &str) -> Option<String> {
    Token::decode(token)?.subject().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    #[test]
    fn only_three_parts_of_which_two_are_objects_make_a_token() {
        let good = format!("{}.{}.c2ln", encode("{}"), encode(r#"{"sub":"a"}"#));
        assert_eq!(subject(&good).as_deref(), Some("a"));
        for bad in [
            String::new(),
            "..".to_owned(),
            "a.b.c".to_owned(),
            format!("{}.{}", encode("{}"), encode("{}")),
            format!("{}.{}.c2ln.c2ln", encode("{}"), encode("{}")),
            format!("{}.{}.c2ln", encode("[]"), encode("{}")),
            format!("{}.{}.c2ln", encode("{}"), encode("1")),
            format!("{}.{}.c2l=", encode("{}"), encode("{}")),
            format!(
                "{}.{}.c2ln",
                encode("{}"),
                encode(&format!(
                    "{{\"a\":{}1{}}}",
                    "[".repeat(500),
                    "]".repeat(500)
                ))
            ),
            format!("{}.{}.{}", encode("{}"), encode("{}"), "A".repeat(LEN_MAX)),
        ] {
            assert!(Token::decode(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_audience_is_a_list() {
        let token = |claims| format!("{}.{}.c2ln", encode("{}"), encode(claims));
        let is_for_b = |claims| {
            let text = token(claims);
            Token::decode(&text).unwrap().is_for("b")
        };
        assert!(is_for_b(r#"{"aud":["a","b"]}"#));
        assert!(!is_for_b(r#"{"aud":"b"}"#));
        assert!(!is_for_b(r#"{"aud":[1,["b"]]}"#));
        assert!(!is_for_b("{}"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_none(text in ".{0,40}|[A-Za-z0-9_-]{0,20}\\.[A-Za-z0-9_-]{0,20}\\.[A-Za-z0-9_-]{0,20}") {
            let _ = Token::decode(&text);
        }
    }
}
