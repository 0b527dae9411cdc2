//! Path tokens: JWTs by which each hop says who it is (NSM `spiffejwt`).

mod cache;
mod identity;
mod issuer;
mod metadata;

use carrick_types::Invalid;
use serde::{Deserialize, Deserializer, Serialize};

pub use identity::{Identity, IdentityError, VerifyError, verify};
pub use issuer::{Es256Tokens, InsecureTokens, SignError, TokenOptions};
pub use metadata::{rfc3339, rfc3339_from_str, token_from_metadata, token_to_metadata};

/// Longest token that is looked at, in bytes.
const TOKEN_MAX: usize = 16 * 1024;

/// A SPIFFE id: `spiffe://<trust domain>/<path>` (SPIFFE-ID §2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct SpiffeId(String);

impl SpiffeId {
    /// The id of `name` in a trust domain; the name may have several parts,
    /// with `/` between them.
    ///
    /// # Errors
    ///
    /// The trust domain is not 1 to 255 lower-case letters, digits, `-`, `.`
    /// or `_`, or a part of the name is empty, `.`, `..`, or holds other
    /// than letters, digits, `-`, `.` or `_`.
    pub fn new(trust_domain: &str, name: &str) -> Result<Self, Invalid> {
        let of_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
        if !(1..=255).contains(&trust_domain.len()) || !trust_domain.bytes().all(of_domain) {
            let expected = "1 to 255 lower-case letters, digits, '-', '.' or '_'";
            return Err(Invalid::new("trust domain", trust_domain, expected));
        }
        let of_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(of_name);
        if name.len() > 1024 || !name.split('/').all(part) {
            let expected = "letters, digits, '-', '.' or '_', with '/' between parts";
            return Err(Invalid::new("name in a SPIFFE id", name, expected));
        }
        Ok(Self(format!("spiffe://{trust_domain}/{name}")))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a path token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whose it is: a SPIFFE id.
    pub sub: String,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
    /// For whom it was made, where that was known: SPIFFE ids.
    #[serde(
        default,
        deserialize_with = "one_or_more",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub aud: Vec<String>,
}

impl Claims {
    /// What a token says without knowing whether that is true; good for what
    /// is recorded, not for what is decided.
    ///
    /// # Errors
    ///
    /// It is no JWT with these claims.
    pub fn unverified(token: &str) -> Result<Self, VerifyError> {
        if token.len() > TOKEN_MAX {
            return Err(VerifyError::TooLong);
        }
        jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(VerifyError::Token)
    }
}

/// RFC 7519 §4.1.3 allows a single text instead of a list.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        More(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::More(more) => more,
    })
}

#[cfg(test)]
mod tests;
