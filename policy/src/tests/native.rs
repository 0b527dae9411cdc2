use std::time::Duration;

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use super::world::{Hop, end, hops, input, now, token, tokens};
use crate::input::Lists;
use crate::{About, Caller, Input, Native, Policies};

const SERVER: [Native; 4] = [
    Native::TokensChained,
    Native::TokensExpired,
    Native::TokensValid,
    Native::PrevTokenSigned,
];

/// Which policy refuses, if one does.
fn refusal(policies: &[Native], input: &Input<'_>) -> Option<String> {
    let refused = Policies::native(policies).check(input, now()).err()?;
    let text = refused.to_string();
    assert!(text.starts_with("no sufficient privileges"), "{text}");
    Some(refused.policy().to_owned())
}

fn is_refused(policy: Native, input: &Input<'_>) -> bool {
    refusal(&[policy], input).is_some()
}

#[test]
fn a_path_of_good_tokens_is_served() {
    let hops = hops(3);
    let tokens = tokens(&hops);
    assert_eq!(refusal(&SERVER, &input(&tokens, &hops[1])), None);
}

// Guards `tokens_valid`; fails where a segment without a token passes.
#[test]
fn what_is_no_token_is_refused() {
    let hops = hops(2);
    for bad in ["", "a.b.c", "not a token"] {
        let mut tokens = tokens(&hops);
        tokens[0] = bad.to_owned();
        let input = input(&tokens, &hops[0]);
        for policy in SERVER {
            assert!(is_refused(policy, &input), "{bad:?} by {policy:?}");
        }
    }
}

// Guards the comparison in `tokens_expired`.
#[test]
fn a_token_that_ended_is_refused_wherever_it_stands() {
    let hops = hops(3);
    for at in 0..3 {
        let mut tokens = tokens(&hops);
        for (exp, is_over) in [
            (json!(end(0)), true),
            (json!(end(1)), false),
            (json!(1_800_000_000.25), true),
            (json!(1_800_000_000.75), false),
            (json!(end(600).to_string()), true),
            (json!(null), true),
            (json!(-1), true),
            (json!(1e300), false),
        ] {
            tokens[at] = hops[at].sign(&json!({ "sub": hops[at].id, "exp": exp }));
            let input = input(&tokens, &hops[1]);
            assert_eq!(is_refused(Native::TokensExpired, &input), is_over, "{exp}");
        }
        tokens[at] = hops[at].sign(&json!({ "sub": hops[at].id }));
        assert!(is_refused(Native::TokensExpired, &input(&tokens, &hops[1])));
    }
}

// Guards the comparison in `tokens_chained`.
#[test]
fn a_token_for_another_hop_is_refused() {
    let (hops, other) = (hops(3), Hop::new("other"));
    let good = tokens(&hops);
    for at in 0..2 {
        let mut tokens = good.clone();
        tokens[at] = token(&hops[at], &other);
        assert!(
            is_refused(Native::TokensChained, &input(&tokens, &hops[1])),
            "{at}"
        );
        // As in NSM, and unlike RFC 7519, one text is no list.
        let claims = json!({ "sub": hops[at].id, "aud": hops[at + 1].id, "exp": end(600) });
        tokens[at] = hops[at].sign(&claims);
        assert!(
            is_refused(Native::TokensChained, &input(&tokens, &hops[1])),
            "{at}"
        );
        let claims = json!({ "sub": hops[at].id, "aud": ["x", hops[at + 1].id], "exp": end(600) });
        tokens[at] = hops[at].sign(&claims);
        assert!(
            !is_refused(Native::TokensChained, &input(&tokens, &hops[1])),
            "{at}"
        );
    }
    let no_subject = [
        good[0].clone(),
        hops[1].sign(&json!({ "aud": [hops[0].id] })),
    ];
    assert!(is_refused(
        Native::TokensChained,
        &input(&no_subject, &hops[0])
    ));
    for short in [0, 1] {
        assert!(!is_refused(
            Native::TokensChained,
            &input(&good[..short], &hops[0])
        ));
    }
}

// Guards the check of the signature in `verify::verify`.
#[test]
fn a_forged_token_is_refused() {
    let (hops, thief) = (hops(2), Hop::new("hop-0"));
    let mut tokens = tokens(&hops);
    let stolen = tokens[0].clone();
    tokens[0] = token(&thief, &hops[1]);
    assert!(is_refused(
        Native::PrevTokenSigned,
        &input(&tokens, &hops[0])
    ));
    // Good, but of a connection of somebody else.
    tokens[0] = stolen;
    assert!(is_refused(Native::PrevTokenSigned, &input(&tokens, &thief)));
    assert!(!is_refused(
        Native::PrevTokenSigned,
        &input(&tokens, &hops[0])
    ));
}

// Guards the comparison of identities in `signed_by_peer`.
#[test]
fn a_hop_cannot_sign_that_it_is_another() {
    let (hops, liar) = (hops(2), Hop::new("liar"));
    let claims = json!({ "sub": hops[0].id, "aud": [hops[1].id], "exp": end(600) });
    let mut tokens = tokens(&hops);
    tokens[0] = liar.sign(&claims);
    assert!(is_refused(Native::PrevTokenSigned, &input(&tokens, &liar)));
}

// Guards the comparison of `alg` in `verify::verify`.
#[test]
fn a_token_that_names_another_algorithm_is_refused() {
    let hops = hops(2);
    let claims = json!({ "sub": hops[0].id, "aud": [hops[1].id], "exp": end(600) });
    let mut tokens = tokens(&hops);
    for algorithm in ["none", "HS256", "es256", ""] {
        tokens[0] = hops[0].sign_as(algorithm, &claims);
        assert!(
            is_refused(Native::PrevTokenSigned, &input(&tokens, &hops[0])),
            "{algorithm}"
        );
    }
}

#[test]
fn a_certificate_without_a_p256_key_vouches_for_nothing() {
    let hops = hops(2);
    let tokens = tokens(&hops);
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let other = CertificateParams::default().self_signed(&key).unwrap();
    for certificate in [
        other.der().as_ref(),
        b"",
        b"no certificate",
        &hops[0].certificate[..100],
    ] {
        let mut input = input(&tokens, &hops[0]);
        input.caller = Caller {
            id: &hops[0].id,
            certificate,
        };
        assert!(is_refused(Native::PrevTokenSigned, &input));
    }
}

// Guards that a path without the hop's segment is refused and harms nobody.
#[test]
fn a_path_without_the_hop_that_is_connected_is_refused() {
    let hops = hops(2);
    let tokens = tokens(&hops);
    for index in [0, 3, usize::MAX] {
        let mut input = input(&tokens, &hops[0]);
        input.index = index;
        assert!(is_refused(Native::PrevTokenSigned, &input), "{index}");
    }
    for index in [1, usize::MAX] {
        let mut input = input(&tokens, &hops[1]);
        input.index = index;
        assert!(is_refused(Native::NextTokenSigned, &input), "{index}");
    }
}

// Guards `next_token_signed`.
#[test]
fn an_answer_is_signed_by_the_server_that_is_connected() {
    let (hops, thief) = (hops(2), Hop::new("hop-1"));
    let tokens = tokens(&hops);
    let mut answer = input(&tokens, &hops[1]);
    answer.index = 0;
    assert!(!is_refused(Native::NextTokenSigned, &answer));
    answer.caller = thief.caller();
    assert!(is_refused(Native::NextTokenSigned, &answer));
}

// Guards `client_allowed`.
#[test]
fn a_name_is_its_first_registrants() {
    let hop = Hop::new("a");
    let holder = [hop.id.clone(), "spiffe://test/manager".to_owned()];
    let with = |id, holder| Input {
        about: About::Resource {
            name: "vl3",
            id,
            holder,
        },
        ..input(&[], &hop)
    };
    assert!(!is_refused(
        Native::ClientAllowed,
        &with("spiffe://test/b", None)
    ));
    assert!(!is_refused(
        Native::ClientAllowed,
        &with(&hop.id, Some(&holder))
    ));
    assert!(is_refused(
        Native::ClientAllowed,
        &with("spiffe://test/b", Some(&holder))
    ));
    assert!(is_refused(
        Native::ClientAllowed,
        &with(&holder[1], Some(&holder))
    ));
    assert!(is_refused(Native::ClientAllowed, &with("", Some(&[]))));
}

// Guards `service_connection`.
#[test]
fn a_caller_follows_only_what_it_requested() {
    let hop = Hop::new("a");
    let (mine, all) = (|id: &str| id == "1" || id.is_empty(), Lists::new);
    let with = |selected| Input {
        about: About::Monitor {
            selected,
            is_callers: &mine,
            by_caller: &all,
        },
        ..input(&[], &hop)
    };
    assert!(!is_refused(Native::ServiceConnection, &with(&["1"])));
    assert!(!is_refused(Native::ServiceConnection, &with(&["2", "1"])));
    assert!(is_refused(Native::ServiceConnection, &with(&["2"])));
    assert!(is_refused(Native::ServiceConnection, &with(&[""])));
    assert!(is_refused(Native::ServiceConnection, &with(&[])));
    assert!(is_refused(Native::ServiceConnection, &input(&[], &hop)));
}

#[test]
fn a_token_that_was_checked_before_is_still_the_signers_only() {
    let (hops, other) = (hops(2), Hop::new("hop-0"));
    let tokens = tokens(&hops);
    let policies = Policies::native(&[Native::PrevTokenSigned]);
    for _ in 0..2 {
        policies.check(&input(&tokens, &hops[0]), now()).unwrap();
        policies.check(&input(&tokens, &other), now()).unwrap_err();
    }
    let later = now() + Duration::from_secs(3600);
    let expired = Policies::native(&[Native::PrevTokenSigned, Native::TokensExpired]);
    expired.check(&input(&tokens, &hops[0]), now()).unwrap();
    let refused = expired.check(&input(&tokens, &hops[0]), later).unwrap_err();
    assert_eq!(refused.policy(), "common/tokens_expired");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is changed in one place of a good path, it is refused.
    #[test]
    fn a_path_that_is_wrong_in_one_place_is_refused(count in 2_usize..6, at in 0_usize..6, change in 0..4) {
        let hops = hops(count);
        let mut tokens = tokens(&hops);
        prop_assert_eq!(refusal(&SERVER, &input(&tokens, &hops[count - 2])), None);
        let at = at % (count - 1);
        let other = Hop::new("other");
        tokens[at] = match change {
            0 => token(&hops[at], &other),
            1 => token(&other, &hops[at + 1]),
            2 => hops[at].sign(&json!({ "sub": hops[at].id, "aud": [hops[at + 1].id], "exp": end(0) })),
            _ => tokens[at].replace('.', ""),
        };
        // The first hop alone could have been anybody: the second vouches for it.
        let is_vouched_for = change == 1 && at == 0 && count > 2;
        prop_assert_eq!(refusal(&SERVER, &input(&tokens, &hops[count - 2])).is_none(), is_vouched_for);
    }

    #[test]
    fn any_bytes_are_a_certificate_or_none(certificate: Vec<u8>, token in ".{0,20}") {
        let hop = Hop::new("a");
        let tokens = [hop.token(&hop.id, end(600)), token];
        let mut input = input(&tokens, &hop);
        input.caller.certificate = &certificate;
        prop_assert!(is_refused(Native::PrevTokenSigned, &input));
    }
}
