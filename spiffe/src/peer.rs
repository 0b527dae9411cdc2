use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use crate::certificate::Leaf;
use crate::{CertificateError, SpiffeId};

/// Who the other end of a connection proved to be by its certificate. Cheap to
/// clone; a server finds it in the extensions of every request.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerIdentity(Arc<Shown>);

#[derive(PartialEq, Eq)]
struct Shown {
    id: SpiffeId,
    certificate: CertificateDer<'static>,
    not_after: SystemTime,
    public_key: Option<String>,
}

impl PeerIdentity {
    /// Reads a leaf certificate (DER). It must have been verified before, or be
    /// verified after: here it is only read.
    ///
    /// # Errors
    ///
    /// It is no leaf of an X.509-SVID.
    pub fn of_certificate(certificate: &[u8]) -> Result<Self, CertificateError> {
        let Leaf {
            id,
            not_after,
            public_key,
        } = Leaf::read(certificate)?;
        Ok(Self(Arc::new(Shown {
            id,
            certificate: CertificateDer::from(certificate.to_vec()),
            not_after,
            public_key,
        })))
    }

    /// Its SPIFFE id.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.0.id
    }

    /// The leaf certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.0.certificate
    }

    /// When the certificate ends.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// The certificate's key, by which the peer's path tokens verify: a
    /// compressed point in base64url, if it is a P-256 key.
    #[must_use]
    pub fn public_key_text(&self) -> Option<&str> {
        self.0.public_key.as_deref()
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerIdentity")
            .field("id", &self.0.id)
            .field("not_after", &self.0.not_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.id.fmt(f)
    }
}
