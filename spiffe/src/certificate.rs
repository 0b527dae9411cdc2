//! What of a certificate SPIFFE speaks of (X.509-SVID §2 to §4).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carrick_types::Invalid;
use p256::PublicKey;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::pkcs8::DecodePublicKey;
use rustls::pki_types::CertificateDer;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::nom;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::SpiffeId;

/// Why a certificate is no leaf of an X.509-SVID.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It may sign others.
    #[error("it is an authority's certificate, not a workload's")]
    Authority,
    /// It is not DER, or not X.509.
    #[error("it is no X.509 certificate in DER form")]
    Der(#[source] X509Error),
    /// The name in it is no SPIFFE id.
    #[error("its URI is no SPIFFE id")]
    Id(#[source] Invalid),
    /// It has no or several URI names.
    #[error("it has {0} URI names instead of one")]
    Uris(usize),
}

/// A leaf, as far as it matters here. That anybody signed it is not said.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) not_after: SystemTime,
    /// The key if it is a P-256 one, see [`public_key_text`].
    pub(crate) public_key: Option<String>,
}

impl Leaf {
    pub(crate) fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(unreadable)?;
        let failed = CertificateError::Der;
        let constraints = certificate.basic_constraints().map_err(failed)?;
        let usage = certificate.key_usage().map_err(failed)?;
        let is_authority = constraints.is_some_and(|constraints| constraints.value.ca)
            || usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign());
        if is_authority {
            return Err(CertificateError::Authority);
        }
        let names = certificate.subject_alternative_name().map_err(failed)?;
        let names = names.map_or(&[][..], |names| &names.value.general_names[..]);
        let uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let uris: Vec<_> = uris.collect();
        let [uri] = uris[..] else {
            return Err(CertificateError::Uris(uris.len()));
        };
        let key = PublicKey::from_public_key_der(certificate.public_key().raw).ok();
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            id: uri.parse().map_err(CertificateError::Id)?,
            not_after: UNIX_EPOCH + Duration::from_secs(seconds),
            public_key: key.as_ref().map(public_key_text),
        })
    }
}

/// A public key as a compressed point (SEC 1 §2.3.3) in base64url without
/// padding, 44 characters.
pub(crate) fn public_key_text(key: &PublicKey) -> String {
    URL_SAFE_NO_PAD.encode(key.to_encoded_point(true).as_bytes())
}

/// Certificates that stand one behind the other.
pub(crate) fn split(der: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let (mut rest, mut all) = (der, Vec::new());
    while !rest.is_empty() {
        let (after, _) = X509Certificate::from_der(rest).map_err(unreadable)?;
        let one = &rest[..rest.len() - after.len()];
        all.push(CertificateDer::from(one.to_vec()));
        rest = after;
    }
    Ok(all)
}

fn unreadable(error: nom::Err<X509Error>) -> CertificateError {
    CertificateError::Der(match error {
        nom::Err::Error(error) | nom::Err::Failure(error) => error,
        nom::Err::Incomplete(_) => X509Error::InvalidCertificate,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_certificates_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Leaf::read(&bytes).is_ok(), split(&bytes).is_ok());
        }
    }
}
