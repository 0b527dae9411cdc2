//! For tests: hops with certificates, and the tokens that they sign.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::DecodePrivateKey;
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};

use crate::Caller;

/// A hop of a path.
pub struct Hop {
    /// Its SPIFFE id.
    pub id: String,
    /// Its leaf certificate, in DER.
    pub certificate: Vec<u8>,
    key: SigningKey,
}

impl fmt::Debug for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hop").field(&self.id).finish()
    }
}

impl Hop {
    /// `spiffe://test/<name>`, with a certificate that it signed itself.
    ///
    /// # Panics
    ///
    /// The name is none.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let id = format!("spiffe://test/{name}");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().expect("a URI"))];
        let certificate = params.self_signed(&key).expect("a certificate");
        Self::of(&id, certificate.der(), key.serialized_der())
    }

    /// Who has a certificate (DER) and its key (PKCS #8, DER) already.
    ///
    /// # Panics
    ///
    /// The key is none.
    #[must_use]
    pub fn of(id: &str, certificate: &[u8], key: &[u8]) -> Self {
        Self {
            id: id.to_owned(),
            certificate: certificate.to_vec(),
            key: SigningKey::from_pkcs8_der(key).expect("a P-256 key"),
        }
    }

    /// As policies want it.
    #[must_use]
    pub fn caller(&self) -> Caller<'_> {
        Caller {
            id: &self.id,
            certificate: &self.certificate,
        }
    }

    /// A token for the next hop as NSM makes them, which ends at `end`, in
    /// seconds since 1970.
    #[must_use]
    pub fn token(&self, next: &str, end: u64) -> String {
        self.sign(&json!({ "sub": self.id, "aud": [next], "exp": end }))
    }

    /// A token with any claims.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as("ES256", claims)
    }

    /// A token with any claims that names any algorithm.
    #[must_use]
    pub fn sign_as(&self, algorithm: &str, claims: &Value) -> String {
        let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let header = json!({ "alg": algorithm, "typ": "JWT" });
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature: Signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }
}
