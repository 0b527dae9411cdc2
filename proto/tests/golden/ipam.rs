use carrick_proto::ipam::{PrefixRequest, PrefixResponse, Type};

use crate::wire::Wire;
use crate::{check, strings};

#[test]
fn a_prefix_request_keeps_every_field() {
    let bytes = Wire::new()
        .number(1, 1)
        .text(2, "10.0.3.0/24")
        .text(3, "10.0.0.0/24")
        .text(3, "10.0.1.0/24");
    let request = PrefixRequest {
        r#type: Type::Allocate.into(),
        prefix: "10.0.3.0/24".into(),
        exclude_prefixes: strings(["10.0.0.0/24", "10.0.1.0/24"]),
    };
    check(&bytes, &request);
}

#[test]
fn a_prefix_response_begins_with_number_two() {
    let bytes = Wire::new().text(2, "10.0.3.0/24").text(3, "10.0.3.0/30");
    let response = PrefixResponse {
        prefix: "10.0.3.0/24".into(),
        exclude_prefixes: strings(["10.0.3.0/30"]),
    };
    check(&bytes, &response);
}

#[test]
fn the_types_of_a_request_are_those_of_nsm() {
    assert_eq!(
        [Type::Undefined, Type::Allocate, Type::Delete].map(i32::from),
        [0, 1, 2]
    );
}
