use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carrick_chain::Tokens;
use carrick_types::Token;
use jsonwebtoken::{Algorithm, EncodingKey};
use proptest::prelude::*;
use tonic::metadata::MetadataMap;

use super::cache::Cache;
use super::issuer::Issuer;
use super::*;

fn subject() -> SpiffeId {
    SpiffeId::new("example.org", "nse-1").unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn minute() -> TokenOptions {
    TokenOptions {
        max_lifetime: Duration::from_secs(60),
    }
}

fn es256(identity: &Identity) -> Issuer {
    Issuer::new(
        Algorithm::ES256,
        identity.encoding_key(),
        subject(),
        &minute(),
    )
}

#[test]
fn a_token_is_believed_by_who_knows_the_key() {
    let identity = Identity::generate();
    let now = SystemTime::now();
    let tokens = Es256Tokens::new(&identity, subject(), &minute());
    let token = tokens.token(Some("spiffe://example.org/nsmgr")).unwrap();
    let claims = verify(&token.value, &identity.public_key_text(), now).unwrap();
    assert_eq!(claims.sub, "spiffe://example.org/nse-1");
    assert_eq!(claims.aud, ["spiffe://example.org/nsmgr"]);
    assert_eq!(token.expires, at(claims.exp));
    let life = token.expires.duration_since(now).unwrap();
    assert!((58..=60).contains(&life.as_secs()), "{life:?}");
}

#[test]
fn a_token_of_another_key_is_not_believed() {
    let token = es256(&Identity::generate()).token(None, at(0)).unwrap();
    let other = Identity::generate().public_key_text();
    assert!(matches!(
        verify(&token.value, &other, at(0)),
        Err(VerifyError::Token(_))
    ));
    assert!(matches!(
        verify(&token.value, "nonsense", at(0)),
        Err(VerifyError::Key)
    ));
    let long = "x".repeat(20_000);
    assert!(matches!(
        verify(&long, &other, at(0)),
        Err(VerifyError::TooLong)
    ));
}

/// The confusion of algorithms: HS256 with the public key as its secret.
#[test]
fn a_token_signed_with_the_public_key_is_not_believed() {
    let identity = Identity::generate();
    let text = identity.public_key_text();
    let key = EncodingKey::from_secret(text.as_bytes());
    let token = Issuer::new(Algorithm::HS256, key, subject(), &minute())
        .token(None, at(0))
        .unwrap();
    assert!(matches!(
        verify(&token.value, &text, at(0)),
        Err(VerifyError::Token(_))
    ));
}

#[test]
fn a_token_ends_when_it_says() {
    let identity = Identity::generate();
    let token = es256(&identity).token(None, at(1000)).unwrap();
    assert_eq!(token.expires, at(1060));
    let verify = |now| verify(&token.value, &identity.public_key_text(), now);
    assert!(verify(at(1059)).is_ok());
    assert!(matches!(verify(at(1060)), Err(VerifyError::Expired(_))));
}

#[test]
fn a_token_is_used_until_a_third_of_its_life_is_gone() {
    let issuer = es256(&Identity::generate());
    let first = issuer.token(None, at(1000)).unwrap();
    assert_eq!(issuer.token(None, at(1019)).unwrap(), first);
    assert_ne!(issuer.token(None, at(1020)).unwrap(), first);
    let other = issuer
        .token(Some("spiffe://example.org/a"), at(1019))
        .unwrap();
    assert_ne!(other.value, first.value);
}

#[test]
fn a_clock_set_back_makes_no_token_last_longer() {
    let issuer = es256(&Identity::generate());
    issuer.token(None, at(1000)).unwrap();
    assert_eq!(issuer.token(None, at(500)).unwrap().expires, at(560));
}

#[test]
fn many_audiences_do_not_fill_the_memory() {
    let mut cache = Cache::default();
    for i in 0..10 * Cache::MAX {
        let token = Token {
            value: String::new(),
            expires: at(60),
        };
        cache.put(Some(&i.to_string()), token, at(0));
        assert!(cache.len() <= Cache::MAX);
    }
}

#[test]
fn an_insecure_token_says_whose_it_is_and_has_no_empty_audience() {
    let token = InsecureTokens::new(subject(), &minute())
        .token(None)
        .unwrap();
    let claims = Claims::unverified(&token.value).unwrap();
    assert_eq!(claims.sub, subject().as_str());
    assert_eq!(token.expires, at(claims.exp));
    assert!(!serde_json::to_string(&claims).unwrap().contains("aud"));
    let other = InsecureTokens::new(subject(), &minute())
        .token(None)
        .unwrap();
    assert_ne!(token.value, other.value);
}

#[test]
fn an_audience_may_be_a_single_text() {
    let claims: Claims = serde_json::from_str(r#"{"sub":"a","exp":1,"aud":"b"}"#).unwrap();
    assert_eq!(claims.aud, ["b"]);
}

#[test]
fn an_identity_is_the_same_after_a_restart_and_its_file_is_its_owners() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys/nse.pem");
    let first = Identity::load_or_create(&path).unwrap();
    let again = Identity::load_or_create(&path).unwrap();
    assert_eq!(first.public_key_text(), again.public_key_text());
    assert_eq!(first.public_key_text().len(), 44);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap();
    assert_eq!(files.count(), 1);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nse.pem");
    Identity::load_or_create(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Identity::load_or_create(&path).unwrap_err().to_string();
    assert!(error.contains("0640") && error.contains("0600"), "{error}");
}

#[test]
fn a_file_that_is_no_key_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nse.pem");
    std::fs::write(&path, "nonsense").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(
        Identity::load_or_create(&path),
        Err(IdentityError::Key(..))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"nonsense");
}

#[test]
fn secrets_are_not_printed() {
    let identity = Identity::generate();
    let tokens = Es256Tokens::new(&identity, subject(), &minute());
    let token = tokens.token(None).unwrap();
    let printed = format!("{identity:?} {tokens:?}");
    assert!(
        !printed.contains(&token.value) && !printed.contains("SecretKey"),
        "{printed}"
    );
}

#[test]
fn a_token_is_missing_unless_it_is_there_exactly_once() {
    let token = Token {
        value: "a.b.c".into(),
        expires: at(7),
    };
    let mut metadata = MetadataMap::new();
    assert_eq!(token_from_metadata(&metadata), None);
    token_to_metadata(&token, &mut metadata).unwrap();
    assert_eq!(token_from_metadata(&metadata), Some(token.clone()));
    let mut twice = metadata.clone();
    twice.append("nsm-client-token", "d.e.f".parse().unwrap());
    assert_eq!(token_from_metadata(&twice), None);
    metadata.insert("nsm-client-token-expires", "tomorrow".parse().unwrap());
    assert_eq!(token_from_metadata(&metadata), None);
}

#[test]
fn times_with_an_offset_are_read() {
    let utc = rfc3339_from_str("2026-11-21T09:00:00.123456789Z").unwrap();
    assert_eq!(
        rfc3339_from_str("2026-11-21T11:00:00.123456789+02:00").unwrap(),
        utc
    );
    assert_eq!(rfc3339(utc), "2026-11-21T09:00:00.123456789Z");
    for wrong in [
        "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-01T25:00:00Z",
    ] {
        assert!(rfc3339_from_str(wrong).is_err(), "{wrong}");
    }
    let second = rfc3339_from_str("1969-12-31T23:59:59Z").unwrap();
    assert_eq!(second, UNIX_EPOCH - Duration::from_secs(1));
}

proptest! {
    #[test]
    fn a_time_survives_its_text(seconds in -62_135_596_800i64..=253_402_300_799, nanos in 0u32..1_000_000_000) {
        let time = crate::convert::time(seconds, nanos).unwrap();
        prop_assert_eq!(rfc3339_from_str(&rfc3339(time)).unwrap(), time);
    }

    #[test]
    fn any_text_is_a_time_or_refused(
        text in prop_oneof![
            ".{0,70}",
            "[0-9T:.Z+-]{20,40}",
            "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,12})?(Z|[+-][0-9]{2}:[0-9]{2})",
        ],
    ) {
        let _ = rfc3339_from_str(&text);
    }

    #[test]
    fn any_text_is_a_token_or_refused(text in "[a-zA-Z0-9_.-]{0,80}", key in ".{0,44}") {
        prop_assert!(verify(&text, &key, UNIX_EPOCH).is_err());
        let _ = Claims::unverified(&text);
    }
}
