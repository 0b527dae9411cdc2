use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use carrick_chain::{BoxError, Tokens};
use carrick_spiffe::{PeerIdentity, Source, Svid};
use carrick_types::Token;
use jsonwebtoken::{Algorithm, EncodingKey};
use p256::pkcs8::EncodePrivateKey;

use super::TokenOptions;
use super::issuer::{Issuer, SignError};

/// Identities whose tokens are remembered: the current one and those that
/// connections of before still show.
const ISSUERS_MAX: usize = 4;

/// Tokens signed with the key of an X.509-SVID, ES256 (NSM `spiffejwt`): of its
/// SPIFFE id, for the peer where it is known, and until the lifetime, the own
/// certificate or the peer's is over, whatever comes first.
#[derive(Debug)]
pub struct SvidTokens {
    source: Source,
    options: TokenOptions,
    /// By certificate, the oldest first.
    issuers: Mutex<Vec<(Arc<Svid>, Arc<Issuer>)>>,
}

impl SvidTokens {
    /// Tokens of whom `source` says we are.
    #[must_use]
    pub fn new(source: Source, options: TokenOptions) -> Self {
        Self {
            source,
            options,
            issuers: Mutex::default(),
        }
    }

    /// A token of one identity for `peer`.
    ///
    /// # Errors
    ///
    /// The identity has ended.
    pub fn sign(&self, svid: &Arc<Svid>, peer: Option<&PeerIdentity>) -> Result<Token, SignError> {
        let audience = peer.map(|peer| peer.id().as_str());
        let mut token = self.issuer(svid).token(audience, SystemTime::now())?;
        // The peer's end is not in the token: it is when we have to come again.
        if let Some(peer) = peer {
            token.expires = token.expires.min(peer.not_after());
        }
        Ok(token)
    }

    fn issuer(&self, svid: &Arc<Svid>) -> Arc<Issuer> {
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = issuers
            .iter()
            .find(|(known, _)| known.certificate() == svid.certificate());
        if let Some((_, issuer)) = known {
            return Arc::clone(issuer);
        }
        let der = svid.key().to_pkcs8_der();
        let der = der.expect("a P-256 key has a PKCS #8 form");
        let key = EncodingKey::from_ec_der(der.as_bytes());
        let issuer = Issuer::new(Algorithm::ES256, key, svid.id().clone(), &self.options);
        let issuer = Arc::new(issuer.until(svid.not_after()));
        if issuers.len() >= ISSUERS_MAX {
            issuers.remove(0);
        }
        issuers.push((Arc::clone(svid), Arc::clone(&issuer)));
        issuer
    }
}

impl Tokens for SvidTokens {
    fn token(&self, audience: Option<&str>) -> Result<Token, BoxError> {
        let context = self.source.current()?;
        let issuer = self.issuer(context.svid());
        Ok(issuer.token(audience, SystemTime::now())?)
    }
}
