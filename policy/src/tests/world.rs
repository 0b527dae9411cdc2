//! Hops with certificates, and the tokens that they sign.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::DecodePrivateKey;
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};

use crate::{About, Caller, Input, Segment};

pub(super) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_800_000_000_500)
}

/// Seconds since 1970, from [`now`] on.
pub(super) fn end(seconds: i64) -> i64 {
    1_800_000_000 + seconds
}

/// A hop of a path.
pub(super) struct Hop {
    pub(super) id: String,
    pub(super) certificate: Vec<u8>,
    key: SigningKey,
}

impl Hop {
    pub(super) fn new(name: &str) -> Self {
        let id = format!("spiffe://test/{name}");
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
        Self {
            id,
            certificate: params.self_signed(&key).unwrap().der().to_vec(),
            key: SigningKey::from_pkcs8_der(key.serialized_der()).unwrap(),
        }
    }

    pub(super) fn caller(&self) -> Caller<'_> {
        Caller {
            id: &self.id,
            certificate: &self.certificate,
        }
    }

    /// A token for the next hop as NSM makes them.
    pub(super) fn token_for(&self, next: &Self) -> String {
        self.sign(&json!({ "sub": self.id, "aud": [next.id], "exp": end(600) }))
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_as("ES256", claims)
    }

    pub(super) fn sign_as(&self, algorithm: &str, claims: &Value) -> String {
        let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let header = json!({ "alg": algorithm, "typ": "JWT" });
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature: Signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }
}

/// Hops of different names.
pub(super) fn hops(count: usize) -> Vec<Hop> {
    (0..count)
        .map(|at| Hop::new(&format!("hop-{at}")))
        .collect()
}

/// The tokens of a path as the last hop finds them: each is for the next one,
/// its own for the one before.
pub(super) fn tokens(hops: &[Hop]) -> Vec<String> {
    let pairs = hops.windows(2).map(|pair| pair[0].token_for(&pair[1]));
    let last = hops
        .windows(2)
        .next_back()
        .map(|pair| pair[1].token_for(&pair[0]));
    pairs.chain(last).collect()
}

/// A path as a server sees it whose own segment is the last, called by `caller`.
pub(super) fn input<'a>(tokens: &'a [String], caller: &'a Hop) -> Input<'a> {
    let segment = |token: &'a String| Segment {
        token,
        ..Segment::default()
    };
    Input {
        index: tokens.len().saturating_sub(1),
        segments: tokens.iter().map(segment).collect(),
        caller: caller.caller(),
        about: About::Connection,
    }
}
