//! Signatures of tokens, checked against a certificate.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::token::Token;

/// Why a signature is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Distrusted {
    #[error("it is not signed by ES256")]
    Algorithm,
    #[error("the certificate has no ECDSA P-256 key")]
    Certificate,
    #[error("it is no token")]
    NoToken,
    #[error("another key than the certificate's signed it")]
    Signature,
}

/// Signatures that were checked before: a hop sends the same token with many
/// Requests, and to compare it costs a hundredth of checking it again.
///
/// It holds two generations; when the younger is full, the older is forgotten.
/// So it is bounded, and what is used often stays.
#[derive(Debug, Default)]
pub(crate) struct Checked(Mutex<[Generation; 2]>);

/// Public keys (SEC 1 points) by the token that each signed.
type Generation = HashMap<Box<str>, Box<[u8]>>;

impl Checked {
    /// Most tokens of one generation.
    const MAX: usize = 1024;
    /// Longer tokens are not remembered, in bytes.
    const LEN_MAX: usize = 2048;

    /// Checks that the key of a certificate in DER signed `token` by ES256
    /// (RFC 7518 §3.4).
    pub(crate) fn verify(
        &self,
        text: &str,
        token: &Token<'_>,
        certificate: &[u8],
    ) -> Result<(), Distrusted> {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| Distrusted::Certificate)?;
        let point = &certificate.public_key().subject_public_key.data;
        if self.has(text, point) {
            return Ok(());
        }
        let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| Distrusted::Certificate)?;
        verify(token, &key)?;
        self.put(text, point);
        Ok(())
    }

    fn has(&self, text: &str, point: &[u8]) -> bool {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *generations;
        if young.get(text).is_some_and(|signer| **signer == *point) {
            return true;
        }
        let Some((text, signer)) = old
            .remove_entry(text)
            .filter(|(_, signer)| **signer == *point)
        else {
            return false;
        };
        young.insert(text, signer);
        true
    }

    fn put(&self, text: &str, point: &[u8]) {
        if text.len() > Self::LEN_MAX {
            return;
        }
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations[0].len() >= Self::MAX {
            generations[1] = std::mem::take(&mut generations[0]);
        }
        generations[0].insert(text.into(), point.into());
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().unwrap().iter().map(HashMap::len).sum()
    }
}

pub(crate) fn verify(token: &Token<'_>, key: &VerifyingKey) -> Result<(), Distrusted> {
    if token.header.get("alg").and_then(|alg| alg.as_str()) != Some("ES256") {
        return Err(Distrusted::Algorithm);
    }
    let signature = Signature::from_slice(&token.signature).map_err(|_| Distrusted::Signature)?;
    key.verify(token.signed.as_bytes(), &signature)
        .map_err(|_| Distrusted::Signature)
}

/// Checks a token against a certificate in PEM, as `.rego` policies name it.
pub(crate) fn verify_pem(text: &str, certificate: &str) -> Result<(), Distrusted> {
    let token = Token::decode(text).ok_or(Distrusted::NoToken)?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes())
        .map_err(|_| Distrusted::Certificate)?;
    let certificate = pem.parse_x509().map_err(|_| Distrusted::Certificate)?;
    let point = &certificate.public_key().subject_public_key.data;
    let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| Distrusted::Certificate)?;
    verify(&token, &key)
}

/// A certificate as PEM (RFC 7468 §5).
pub(crate) fn to_pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|&byte| char::from(byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_used_stays() {
        let checked = Checked::default();
        checked.put("used", b"key");
        for number in 0..10 * Checked::MAX {
            checked.put(&number.to_string(), b"key");
            assert!(checked.has("used", b"key"), "{number}");
        }
        assert!(checked.len() <= 2 * Checked::MAX + 1);
        assert!(!checked.has("used", b"another key"));
        assert!(!checked.has("0", b"key"));
        checked.put(&"x".repeat(Checked::LEN_MAX + 1), b"key");
        assert!(!checked.has(&"x".repeat(Checked::LEN_MAX + 1), b"key"));
    }
}
