//! TLS configurations of one [`crate::X509Context`].

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme,
};

use crate::verify::{Verifier, VerifyError};
use crate::{CertificateError as LeafError, Svid};

/// Servers whose last session a client remembers.
const SESSIONS: usize = 1024;

/// What HTTP/2 is called in a handshake; gRPC requires it (RFC 9113 §3.2).
const H2: &[u8] = b"h2";

/// `ring`: to build it needs no more than the C compiler that links Rust
/// anyway; rustls's default (aws-lc) wants `CMake` and builds much longer.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A server that asks every client for its certificate. Sessions can be gone
/// on with as long as this configuration lasts.
pub(crate) fn server(svid: &Svid, checks: &Checks) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&checks.provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(checks.clone()))
        .with_single_cert(svid.chain(), key(svid))?;
    config.alpn_protocols = vec![H2.to_vec()];
    config.ticketer = ring::Ticketer::new()?;
    // A client that comes once more has one; it gets the next then.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// A client that shows its certificate and names no host.
pub(crate) fn client(svid: &Svid, checks: &Checks) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&checks.provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(checks.clone()))
        .with_client_auth_cert(svid.chain(), key(svid))?;
    config.alpn_protocols = vec![H2.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

fn key(svid: &Svid) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.key_der().to_vec()))
}

/// A [`Verifier`] as rustls wants it.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) verifier: Arc<Verifier>,
}

fn chain<'a>(
    leaf: &CertificateDer<'a>,
    intermediates: &[CertificateDer<'a>],
) -> Vec<CertificateDer<'a>> {
    let mut chain = vec![leaf.clone()];
    chain.extend_from_slice(intermediates);
    chain
}

/// With the alert that fits, and our words as the cause.
fn refused(error: VerifyError) -> Error {
    use webpki::Error as Chain;
    Error::InvalidCertificate(match error {
        VerifyError::Chain {
            source: Chain::CertExpired { .. },
            ..
        } => CertificateError::Expired,
        VerifyError::Chain {
            source: Chain::CertNotValidYet { .. },
            ..
        } => CertificateError::NotValidYet,
        VerifyError::TrustDomain(_)
        | VerifyError::Chain {
            source: Chain::UnknownIssuer,
            ..
        } => CertificateError::UnknownIssuer,
        VerifyError::Certificate(LeafError::Der(_)) => CertificateError::BadEncoding,
        error => CertificateError::Other(OtherError(Arc::new(error))),
    })
}

impl ServerCertVerifier for Checks {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.verifier.server(&chain(leaf, intermediates), now);
        verified
            .map(|_| ServerCertVerified::assertion())
            .map_err(refused)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ClientCertVerifier for Checks {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.client(&chain(leaf, intermediates), now);
        verified
            .map(|_| ClientCertVerified::assertion())
            .map_err(refused)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}
