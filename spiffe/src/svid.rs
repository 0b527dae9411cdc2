use std::fmt;
use std::time::SystemTime;

use carrick_proto::spiffe::X509svid;
use p256::SecretKey;
use p256::pkcs8::DecodePrivateKey;
use rustls::pki_types::CertificateDer;

use crate::certificate::{Leaf, public_key_text, split};
use crate::{CertificateError, SpiffeId};

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// The certificate is no leaf.
    #[error("the certificate cannot be used")]
    Certificate(#[from] CertificateError),
    /// There is no certificate.
    #[error("there is no certificate")]
    Empty,
    /// The key is of another kind.
    #[error("the key is no ECDSA P-256 key in PKCS #8 form, as NSM's path tokens want it (ES256)")]
    Key(#[source] p256::pkcs8::Error),
    /// The certificate is of another key.
    #[error("the certificate is not the key's")]
    KeyOfAnother,
}

/// The own identity: a certificate with its intermediates, and the key.
pub struct Svid {
    id: SpiffeId,
    chain: Vec<CertificateDer<'static>>,
    key: SecretKey,
    key_der: Vec<u8>,
    public_key: String,
    not_after: SystemTime,
}

impl Svid {
    /// Reads what a Workload API gave.
    ///
    /// # Errors
    ///
    /// See [`SvidError`].
    pub fn read(given: &X509svid) -> Result<Self, SvidError> {
        let chain = split(&given.x509_svid)?;
        let leaf = Leaf::read(chain.first().ok_or(SvidError::Empty)?)?;
        let key = SecretKey::from_pkcs8_der(&given.x509_svid_key).map_err(SvidError::Key)?;
        let public_key = public_key_text(&key.public_key());
        if leaf.public_key.as_ref() != Some(&public_key) {
            return Err(SvidError::KeyOfAnother);
        }
        Ok(Self {
            id: leaf.id,
            chain,
            key,
            key_der: given.x509_svid_key.clone(),
            public_key,
            not_after: leaf.not_after,
        })
    }

    /// The SPIFFE id.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The leaf certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.chain.first().map_or(&[], |leaf| leaf)
    }

    /// When the certificate ends.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The private key, for signing path tokens.
    #[must_use]
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// The public key as a compressed point in base64url.
    #[must_use]
    pub fn public_key_text(&self) -> &str {
        &self.public_key
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    pub(crate) fn key_der(&self) -> &[u8] {
        &self.key_der
    }
}

/// Leaves the key out.
impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
