use serde_json::json;

use super::world::{Hop, end, hops, input, now, token, tokens};
use crate::input::Lists;
use crate::rego::Rego;
use crate::{About, Input, Native, Policies, RegoError};

/// What NSM's policies ask, in the words of Rego.
const SAME: [(Native, &str); 6] = [
    (
        Native::TokensExpired,
        "package same.expired
        default valid = false
        alive(segment) { [_, claims, _] := io.jwt.decode(segment.token); claims.exp * 1000000000 > time.now_ns() }
        valid { dead := [segment | segment := input.path_segments[_]; not alive(segment)]; count(dead) == 0 }",
    ),
    (
        Native::PrevTokenSigned,
        "package same.previous
        valid {
            token := input.path_segments[input.index - 1].token
            io.jwt.verify_es256(token, input.auth_info.certificate)
        }",
    ),
    (
        Native::NextTokenSigned,
        "package same.following
        valid = io.jwt.verify_es256(input.path_segments[input.index + 1].token, input.auth_info.certificate)",
    ),
    (
        Native::TokensChained,
        "package same.chained
        linked(i) {
            [_, one, _] := io.jwt.decode(input.path_segments[i].token)
            [_, two, _] := io.jwt.decode(input.path_segments[i + 1].token)
            one.aud[_] == two.sub
        }
        valid { broken := [i | input.path_segments[i]; i < count(input.path_segments) - 1; not linked(i)]; count(broken) == 0 }",
    ),
    (
        Native::ClientAllowed,
        "package same.allowed
        valid { not input.resource_path_ids_map[input.resource_name] }
        valid { input.resource_path_ids_map[input.resource_name][0] = input.resource_id }",
    ),
    (
        Native::ServiceConnection,
        "package same.monitor
        valid { input.spiffe_id_connection_map[input.service_spiffe_id][_] == input.selector_connection_ids[_] }",
    ),
];

fn compiled(text: &str) -> Rego {
    Rego::compile("test.rego", text.to_owned()).unwrap()
}

fn is_valid(text: &str, input: &Input<'_>) -> bool {
    let prepared = crate::input::Prepared::new(input, now());
    compiled(text).is_valid(prepared.to_json(), now()).unwrap()
}

#[track_caller]
fn compare(native: Native, input: &Input<'_>) {
    let (_, text) = SAME.iter().find(|(same, _)| *same == native).unwrap();
    let expected = Policies::native(&[native]).check(input, now()).is_ok();
    assert_eq!(is_valid(text, input), expected, "{native:?}");
}

#[test]
fn a_file_sees_of_a_path_what_the_native_policies_see() {
    let (hops, other) = (hops(3), Hop::new("other"));
    let good = tokens(&hops);
    let claims = json!({ "sub": hops[1].id, "aud": [hops[2].id], "exp": end(0) });
    let of_path = [
        Native::TokensExpired,
        Native::PrevTokenSigned,
        Native::NextTokenSigned,
        Native::TokensChained,
    ];
    for second in [
        good[1].clone(),
        token(&hops[1], &other),
        token(&other, &hops[2]),
        hops[1].sign(&claims),
        "no token".to_owned(),
    ] {
        let mut tokens = good.clone();
        tokens[1] = second;
        for index in 0..3 {
            let mut input = input(&tokens, &hops[1]);
            input.index = index;
            for native in of_path {
                compare(native, &input);
            }
        }
    }
}

#[test]
fn a_file_sees_of_a_resource_what_the_native_policy_sees() {
    let hop = Hop::new("a");
    let holder = [hop.id.clone()];
    for (id, holder) in [
        (hop.id.as_str(), None),
        (hop.id.as_str(), Some(&holder[..])),
        ("spiffe://test/b", Some(&holder[..])),
    ] {
        let about = About::Resource {
            name: "vl3",
            id,
            holder,
        };
        compare(
            Native::ClientAllowed,
            &Input {
                about,
                ..input(&[], &hop)
            },
        );
    }
}

#[test]
fn a_file_sees_of_a_monitor_what_the_native_policy_sees() {
    let hop = Hop::new("a");
    let mine = |id: &str| id == "1";
    let all = || Lists::from([(hop.id.clone(), vec!["1".to_owned()])]);
    for selected in [&["1"][..], &["2"], &[], &["2", "1"]] {
        let about = About::Monitor {
            selected,
            is_callers: &mine,
            by_caller: &all,
        };
        compare(
            Native::ServiceConnection,
            &Input {
                about,
                ..input(&[], &hop)
            },
        );
    }
}

#[test]
fn a_file_may_look_at_names_and_text() {
    let hops = hops(2);
    let tokens = tokens(&hops);
    let mut input = input(&tokens, &hops[0]);
    input.segments[0].name = "nsc-1";
    let text = "package custom
        valid { regex.match(`^nsc-[0-9]+$`, input.path_segments[0].name); startswith(input.path_segments[0].name, \"nsc\") }";
    assert!(is_valid(text, &input));
    input.segments[0].name = "other";
    assert!(!is_valid(text, &input));
}

#[test]
fn rego_of_version_1_is_understood_too() {
    let hops = hops(1);
    let input = input(&[], &hops[0]);
    assert!(is_valid(
        "package one\nvalid if { count(input.path_segments) < 2 }",
        &input
    ));
    assert!(is_valid(
        "package one\nimport rego.v1\ndefault valid := false\nvalid if true",
        &input
    ));
}

#[test]
fn what_a_file_leaves_open_is_not_valid() {
    let hops = hops(1);
    let input = input(&[], &hops[0]);
    assert!(!is_valid("package open\nvalid { input.nothing }", &input));
    assert!(!is_valid(
        "package open\nvalid { input.index == 1 }",
        &input
    ));
}

#[test]
fn a_file_that_cannot_work_is_refused_at_the_start() {
    let compile = |text: &str| Rego::compile("test.rego", text.to_owned()).unwrap_err();
    assert!(matches!(
        compile("package a\nvalid {"),
        RegoError::Compile { .. }
    ));
    assert!(matches!(compile(""), RegoError::Compile { .. }));
    let other = compile("package a\nallow = true");
    assert!(matches!(other, RegoError::NoRule), "{other}");
    assert!(matches!(
        compile("package a\nvalid = 1"),
        RegoError::NoBoolean(_)
    ));
    let unknown = compile("package a\nvalid { no.such.function(input.index) }");
    assert!(
        unknown.to_string().contains("no.such.function"),
        "{unknown}"
    );
}
