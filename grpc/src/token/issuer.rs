use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carrick_chain::{BoxError, Tokens};
use carrick_types::Token;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::SecretKey;
use p256::elliptic_curve::rand_core::OsRng;

use super::cache::Cache;
use super::{Claims, Identity, SpiffeId};

/// How tokens are made.
#[derive(Clone, Debug)]
pub struct TokenOptions {
    /// How long a token lasts, default 10 min (`NSM_MAX_TOKEN_LIFETIME`); cut
    /// to whole seconds, at least one.
    pub max_lifetime: Duration,
}

impl Default for TokenOptions {
    fn default() -> Self {
        Self {
            max_lifetime: Duration::from_secs(600),
        }
    }
}

/// A token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The certificate with whose key it would be signed has ended.
    #[error("the certificate of {0} has ended")]
    Ended(String),
    /// The signer failed.
    #[error("cannot sign a token for {0}")]
    Sign(String, #[source] jsonwebtoken::errors::Error),
}

/// Tokens that only look like tokens: HS256 with a key that nobody else has
/// and that ends with the process. They carry the expiry that NSM's components
/// go by, and prove nothing.
#[derive(Debug)]
pub struct InsecureTokens(Issuer);

impl InsecureTokens {
    /// Tokens of `subject`.
    #[must_use]
    pub fn new(subject: SpiffeId, options: &TokenOptions) -> Self {
        let random = SecretKey::random(&mut OsRng).to_bytes();
        let key = EncodingKey::from_secret(&random);
        Self(Issuer::new(Algorithm::HS256, key, subject, options))
    }
}

impl Tokens for InsecureTokens {
    fn token(&self, audience: Option<&str>) -> Result<Token, BoxError> {
        Ok(self.0.token(audience, SystemTime::now())?)
    }
}

/// Tokens signed with an [`Identity`], as NSM's with an X.509-SVID (ES256).
#[derive(Debug)]
pub struct Es256Tokens(Issuer);

impl Es256Tokens {
    /// Tokens of `subject`, whose key is `identity`'s.
    #[must_use]
    pub fn new(identity: &Identity, subject: SpiffeId, options: &TokenOptions) -> Self {
        Self(Issuer::new(
            Algorithm::ES256,
            identity.encoding_key(),
            subject,
            options,
        ))
    }
}

impl Tokens for Es256Tokens {
    fn token(&self, audience: Option<&str>) -> Result<Token, BoxError> {
        Ok(self.0.token(audience, SystemTime::now())?)
    }
}

/// Makes tokens of one subject with one key.
pub(super) struct Issuer {
    header: Header,
    key: EncodingKey,
    subject: SpiffeId,
    lifetime: Duration,
    /// When the key's certificate ends.
    end: Option<SystemTime>,
    cache: Mutex<Cache>,
}

/// Leaves key and tokens out.
impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("subject", &self.subject)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    pub(super) fn new(
        algorithm: Algorithm,
        key: EncodingKey,
        subject: SpiffeId,
        options: &TokenOptions,
    ) -> Self {
        Self {
            header: Header::new(algorithm),
            key,
            subject,
            lifetime: Duration::from_secs(options.max_lifetime.as_secs().max(1)),
            end: None,
            cache: Mutex::default(),
        }
    }

    /// No token lasts longer than until `end`.
    pub(super) fn until(mut self, end: SystemTime) -> Self {
        self.end = Some(end);
        self
    }

    /// A token that has at least two thirds of its life before it.
    pub(super) fn token(
        &self,
        audience: Option<&str>,
        now: SystemTime,
    ) -> Result<Token, SignError> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = cache.token(audience, now) {
            return Ok(token);
        }
        let token = self.sign(audience, now)?;
        cache.put(audience, token.clone(), now);
        Ok(token)
    }

    /// `exp` has whole seconds, and `expires` says the same.
    fn sign(&self, audience: Option<&str>, now: SystemTime) -> Result<Token, SignError> {
        let mut end = now + self.lifetime;
        if let Some(last) = self.end {
            if last <= now {
                return Err(SignError::Ended(self.subject.to_string()));
            }
            end = end.min(last);
        }
        let claims = Claims {
            sub: self.subject.as_str().to_owned(),
            exp: end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            aud: audience.map(str::to_owned).into_iter().collect(),
        };
        let value = jsonwebtoken::encode(&self.header, &claims, &self.key)
            .map_err(|source| SignError::Sign(claims.sub, source))?;
        Ok(Token {
            value,
            expires: UNIX_EPOCH + Duration::from_secs(claims.exp),
        })
    }
}
