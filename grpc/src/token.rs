//! Path tokens: JWTs by which each hop says who it is (NSM `spiffejwt`).

mod cache;
mod identity;
mod issuer;
mod metadata;
mod svid;

use serde::{Deserialize, Deserializer, Serialize};

pub use carrick_spiffe::SpiffeId;
pub use identity::{Identity, IdentityError, VerifyError, verify};
pub use issuer::{Es256Tokens, InsecureTokens, SignError, TokenOptions};
pub(crate) use metadata::has_token;
pub use metadata::{rfc3339, rfc3339_from_str, token_from_metadata, token_to_metadata};
pub use svid::SvidTokens;

/// Longest token that is looked at, in bytes.
const TOKEN_MAX: usize = 16 * 1024;

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
