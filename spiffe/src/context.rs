use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use carrick_proto::spiffe::X509svidResponse;
use carrick_types::Invalid;
use rustls::{ClientConfig, ServerConfig};

use crate::certificate::split;
use crate::id::trust_domain;
use crate::tls::{self, Checks};
use crate::{CertificateError, Svid, SvidError, Verifier};

/// Why an answer of the Workload API cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// A bundle holds something that is no certificate.
    #[error("the bundle of {0} cannot be read")]
    Bundle(String, #[source] CertificateError),
    /// A certificate of a bundle is no authority's.
    #[error("a bundle holds what is no authority's certificate")]
    Anchor(#[from] webpki::Error),
    /// It holds no identity.
    #[error("it holds no identity: is this workload registered there?")]
    Empty,
    /// The first identity cannot be used.
    #[error("the identity {0} cannot be used")]
    Svid(String, #[source] SvidError),
    /// No TLS can be made of it.
    #[error("no TLS configuration can be made of it")]
    Tls(#[from] rustls::Error),
    /// A federated bundle is of no trust domain.
    #[error("a federated bundle is of no trust domain")]
    TrustDomain(#[from] Invalid),
}

/// What one answer of the Workload API amounts to: the own identity, the
/// bundles, and TLS in both directions made of them.
///
/// TLS sessions are gone on with only within one context, so that nobody is
/// taken for whom they were before an identity or a bundle changed.
pub struct X509Context {
    svid: Arc<Svid>,
    verifier: Arc<Verifier>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl X509Context {
    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// See [`ContextError`].
    pub fn read(answer: &X509svidResponse) -> Result<Self, ContextError> {
        let first = answer.svids.first().ok_or(ContextError::Empty)?;
        let svid = Svid::read(first).map_err(|e| ContextError::Svid(first.spiffe_id.clone(), e))?;
        let own = (svid.id().trust_domain(), &first.bundle);
        let federated = answer.federated_bundles.iter();
        let federated = federated.map(|(name, bundle)| (name.as_str(), bundle));
        let mut bundles = BTreeMap::new();
        // The own bundle comes last: no federated one takes its place.
        for (name, bundle) in federated.chain([own]) {
            let certificates = split(bundle);
            let certificates =
                certificates.map_err(|e| ContextError::Bundle(name.to_owned(), e))?;
            bundles.insert(trust_domain(name)?, certificates);
        }
        let provider = tls::provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(Verifier::new(bundles, algorithms)?);
        let checks = Checks {
            provider,
            verifier: Arc::clone(&verifier),
        };
        Ok(Self {
            server: tls::server(&svid, &checks)?,
            client: tls::client(&svid, &checks)?,
            svid: Arc::new(svid),
            verifier,
        })
    }

    /// The own identity.
    #[must_use]
    pub fn svid(&self) -> &Arc<Svid> {
        &self.svid
    }

    /// What others are verified with.
    #[must_use]
    pub fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// TLS of a server: ≥ 1.2, `h2`, a certificate is required.
    #[must_use]
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// TLS of a client: ≥ 1.2, `h2`, the server's name is not compared.
    #[must_use]
    pub fn client(&self) -> &Arc<ClientConfig> {
        &self.client
    }
}

impl fmt::Debug for X509Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Context")
            .field("svid", &self.svid)
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}
