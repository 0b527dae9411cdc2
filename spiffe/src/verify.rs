use std::collections::BTreeMap;
use std::fmt;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::{CertificateError, PeerIdentity};

/// Why a certificate is not believed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is no leaf of an X.509-SVID.
    #[error("the certificate is no X.509-SVID")]
    Certificate(#[from] CertificateError),
    /// It has ended, is not valid yet, or no authority of its trust domain signed it.
    #[error("the certificate of {id} is not to be believed")]
    Chain {
        /// Whose it says to be.
        id: String,
        /// What is wrong.
        source: webpki::Error,
    },
    /// There is none.
    #[error("there is no certificate")]
    None,
    /// No bundle is known for its trust domain.
    #[error("the trust domain of {0} is neither ours nor federated with ours")]
    TrustDomain(String),
}

/// Verifies certificates with the bundles of the trust domains they are of:
/// any identity is welcome, whatever host it is on.
pub struct Verifier {
    bundles: BTreeMap<String, Vec<TrustAnchor<'static>>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(crate) fn new(
        bundles: BTreeMap<String, Vec<CertificateDer<'static>>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, webpki::Error> {
        let anchors = |certificates: Vec<CertificateDer<'static>>| {
            let anchors = certificates.iter().map(|certificate| {
                anchor_from_trusted_cert(certificate).map(|anchor| anchor.to_owned())
            });
            anchors.collect::<Result<Vec<_>, _>>()
        };
        let bundles = bundles
            .into_iter()
            .map(|(domain, bundle)| Ok((domain, anchors(bundle)?)));
        Ok(Self {
            bundles: bundles.collect::<Result<_, webpki::Error>>()?,
            algorithms,
        })
    }

    /// The trust domains that are believed.
    pub fn trust_domains(&self) -> impl Iterator<Item = &str> {
        self.bundles.keys().map(String::as_str)
    }

    /// Verifies a client's chain, the leaf first.
    ///
    /// # Errors
    ///
    /// See [`VerifyError`].
    pub fn client(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerIdentity, VerifyError> {
        self.verify(chain, now, KeyUsage::client_auth())
    }

    /// Verifies a server's chain, the leaf first.
    ///
    /// # Errors
    ///
    /// See [`VerifyError`].
    pub fn server(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerIdentity, VerifyError> {
        self.verify(chain, now, KeyUsage::server_auth())
    }

    fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<PeerIdentity, VerifyError> {
        let (leaf, intermediates) = chain.split_first().ok_or(VerifyError::None)?;
        let peer = PeerIdentity::of_certificate(leaf)?;
        let failed = |source| VerifyError::Chain {
            id: peer.id().to_string(),
            source,
        };
        // An authority speaks for its own trust domain alone (SPIFFE Federation §7).
        let anchors = self.bundles.get(peer.id().trust_domain());
        let anchors = anchors.ok_or_else(|| VerifyError::TrustDomain(peer.id().to_string()))?;
        let certificate = EndEntityCert::try_from(leaf).map_err(failed)?;
        certificate
            .verify_for_usage(
                self.algorithms.all,
                anchors,
                intermediates,
                now,
                usage,
                None,
                None,
            )
            .map_err(failed)?;
        Ok(peer)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domains: Vec<_> = self.trust_domains().collect();
        f.debug_struct("Verifier")
            .field("trust_domains", &domains)
            .finish_non_exhaustive()
    }
}
