//! Whose certificate is believed. Each test names the check that it guards;
//! with that check taken out of `verify.rs` or `certificate.rs` it fails.

use std::time::{Duration, SystemTime};

use carrick_proto::spiffe::X509svid;
use carrick_spiffe::testing::{Authority, answer, context};
use carrick_spiffe::{CertificateError, PeerIdentity, VerifyError, X509Context};
use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose, SanType};
use rustls::pki_types::{CertificateDer, UnixTime};

struct World {
    own: Authority,
    context: X509Context,
}

impl World {
    fn new(federated: &[&Authority]) -> Self {
        let own = Authority::new("own.test");
        let context = context(&own.answer("nse", federated));
        Self { own, context }
    }

    fn verify(&self, peer: &X509svid) -> Result<PeerIdentity, VerifyError> {
        let chain = [CertificateDer::from(peer.x509_svid.clone())];
        let now = UnixTime::now();
        let as_client = self.context.verifier().client(&chain, now);
        let as_server = self.context.verifier().server(&chain, now);
        assert_eq!(
            as_client.is_ok(),
            as_server.is_ok(),
            "both directions agree"
        );
        as_client
    }

    /// A leaf of our authority with what `change` makes of it.
    fn odd(&self, change: impl FnOnce(&mut rcgen::CertificateParams)) -> X509svid {
        let end = SystemTime::now() + Duration::from_secs(60);
        self.own.issue_as("spiffe://own.test/odd", end, change)
    }
}

#[test]
fn whoever_our_authority_named_is_believed() {
    let world = World::new(&[]);
    let peer = world.verify(&world.own.issue("ns/a/sa/b")).unwrap();
    assert_eq!(peer.id().as_str(), "spiffe://own.test/ns/a/sa/b");
    assert_eq!(peer.public_key_text().unwrap().len(), 44);
}

/// Guards the lookup of the bundle by the leaf's own trust domain.
#[test]
fn a_foreign_trust_domain_is_refused_and_a_federated_one_is_not() {
    let other = Authority::new("other.test");
    let peer = other.issue("nsc");
    let refused = World::new(&[]).verify(&peer).unwrap_err();
    assert!(
        matches!(refused, VerifyError::TrustDomain(_)),
        "{refused:?}"
    );
    let peer = World::new(&[&other]).verify(&peer).unwrap();
    assert_eq!(peer.id().trust_domain(), "other.test");
}

/// Guards that anchors are those of the leaf's trust domain alone: a federated
/// authority speaks for its own.
#[test]
fn a_federated_authority_names_nobody_in_our_trust_domain() {
    let other = Authority::new("other.test");
    let end = SystemTime::now() + Duration::from_secs(60);
    let peer = other.issue_as("spiffe://own.test/nse", end, |_| {});
    let refused = World::new(&[&other]).verify(&peer).unwrap_err();
    assert!(matches!(refused, VerifyError::Chain { .. }), "{refused:?}");
}

/// Guards the verification of the chain: its signature and its time.
#[test]
fn a_namesake_of_our_authority_is_not_our_authority() {
    let peer = Authority::new("own.test").issue("nsc");
    let refused = World::new(&[]).verify(&peer).unwrap_err();
    assert!(matches!(refused, VerifyError::Chain { .. }), "{refused:?}");
}

/// Guards the same.
#[test]
fn a_certificate_is_refused_before_and_after_its_time() {
    let world = World::new(&[]);
    let at = |end| {
        world
            .verify(&world.own.issue_until("nsc", end))
            .unwrap_err()
    };
    let (now, second) = (SystemTime::now(), Duration::from_secs(1));
    assert!(matches!(
        at(now - second),
        VerifyError::Chain {
            source: webpki::Error::CertExpired { .. },
            ..
        }
    ));
    // It lasts two hours.
    assert!(matches!(
        at(now + Duration::from_secs(7260)),
        VerifyError::Chain {
            source: webpki::Error::CertNotValidYet { .. },
            ..
        }
    ));
}

/// Guards the checks for authorities (X.509-SVID §4.2, §4.3). That of basic
/// constraints is webpki's, too; that of key usage is ours alone.
#[test]
fn an_authority_is_no_workload() {
    let world = World::new(&[]);
    let signing = world.odd(|params| {
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
        ];
    });
    let authority = world.odd(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages.clear();
    });
    for peer in [signing, authority] {
        let refused = world.verify(&peer).unwrap_err();
        let cause = CertificateError::Authority;
        assert!(
            matches!(&refused, VerifyError::Certificate(e) if e.to_string() == cause.to_string()),
            "{refused:?}"
        );
    }
}

/// Guards "exactly one URI name, which is a SPIFFE id" (X.509-SVID §2).
#[test]
fn a_workload_has_one_name_which_is_a_spiffe_id() {
    let world = World::new(&[]);
    let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
    let names = [
        vec![],
        vec![uri("spiffe://own.test/a"), uri("spiffe://own.test/b")],
        vec![uri("https://own.test/a")],
        vec![uri("spiffe://own.test")],
        vec![SanType::DnsName("own.test".try_into().unwrap())],
    ];
    for names in names {
        let peer = world.odd(|params| params.subject_alt_names.clone_from(&names));
        let refused = world.verify(&peer).unwrap_err();
        assert!(
            matches!(
                refused,
                VerifyError::Certificate(CertificateError::Uris(_) | CertificateError::Id(_))
            ),
            "{names:?}: {refused:?}"
        );
    }
    let with_host = world.odd(|params| {
        let host = SanType::DnsName("pod.example".try_into().unwrap());
        params.subject_alt_names.push(host);
    });
    world.verify(&with_host).unwrap();
}

#[test]
fn no_certificate_is_no_peer() {
    let world = World::new(&[]);
    let nobody = world.context.verifier().client(&[], UnixTime::now());
    assert!(matches!(nobody, Err(VerifyError::None)));
}

#[test]
fn an_identity_whose_key_is_another_ones_cannot_be_used() {
    let own = Authority::new("own.test");
    let mut svid = own.issue("a");
    svid.x509_svid_key = own.issue("b").x509_svid_key;
    assert!(X509Context::read(&answer(svid.clone(), &[])).is_err());
    svid.x509_svid_key.clear();
    assert!(X509Context::read(&answer(svid, &[])).is_err());
}
