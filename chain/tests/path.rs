//! NSM `updatepath` and `trimpath`.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use carrick_chain::path::{enter, leave, trim};
use carrick_types::{Connection, ConnectionId, Invalid, Path, PathSegment, ServiceName};
use proptest::prelude::*;

const NEW: &str = "new";

fn connection(id: &str, index: usize, segments: &[(&str, &str)]) -> Connection {
    let service = ServiceName::new("service").unwrap();
    let mut connection = Connection::new(ConnectionId::new(id).unwrap(), service);
    let segment = |(name, id): &(&str, &str)| PathSegment {
        name: (*name).into(),
        id: (*id).into(),
        ..PathSegment::default()
    };
    connection.path = Path {
        index,
        segments: segments.iter().map(segment).collect(),
    };
    connection
}

/// Enters `nse` and says what the connection is like then.
#[track_caller]
fn entered(mut connection: Connection) -> Result<(String, Path), Invalid> {
    let before = (connection.id.clone(), connection.path.index);
    let previous = enter(&mut connection, "nse", || ConnectionId::new(NEW).unwrap())?;
    let inside = (connection.id.to_string(), connection.path.clone());
    leave(&mut connection, previous).unwrap();
    assert_eq!(connection.path.index, before.1, "leaving goes back");
    Ok(inside)
}

fn path(index: usize, segments: &[(&str, &str)]) -> Path {
    connection("any", index, segments).path
}

#[test]
fn without_a_path_the_component_is_the_first_hop() {
    let (id, is) = entered(connection("id", 0, &[])).unwrap();
    assert_eq!((id.as_str(), is), ("id", path(0, &[("nse", "id")])));
}

#[test]
fn without_segments_the_index_means_nothing() {
    let mut connection = connection("id", 7, &[]);
    enter(&mut connection, "nse", || unreachable!()).unwrap();
    assert_eq!(connection.path, path(0, &[("nse", "id")]));
}

#[test]
fn a_component_that_calls_itself_keeps_the_id_of_its_segment() {
    let (id, is) = entered(connection("other", 1, &[("nsc", "1"), ("nse", "2")])).unwrap();
    assert_eq!(
        (id.as_str(), is),
        ("2", path(1, &[("nsc", "1"), ("nse", "2")]))
    );
}

#[test]
fn the_callers_id_is_the_id_of_the_callers_segment() {
    let error = entered(connection("other", 0, &[("nsc", "1"), ("nse", "2")])).unwrap_err();
    assert_eq!(error.field, "connection.id");
}

#[test]
fn an_index_past_the_end_is_refused() {
    for index in [2, usize::MAX] {
        let error = entered(connection("1", index, &[("nsc", "1"), ("nse", "2")])).unwrap_err();
        assert_eq!(error.field, "path.index");
    }
}

#[test]
fn another_component_behind_the_caller_is_replaced() {
    let (id, is) = entered(connection(
        "1",
        0,
        &[("nsc", "1"), ("old", "2"), ("x", "3")],
    ))
    .unwrap();
    assert_eq!(
        (id.as_str(), is),
        (NEW, path(1, &[("nsc", "1"), ("nse", NEW), ("x", "3")]))
    );
}

#[test]
fn nobody_behind_the_caller_means_a_new_hop() {
    let (id, is) = entered(connection("1", 0, &[("nsc", "1")])).unwrap();
    assert_eq!(
        (id.as_str(), is),
        (NEW, path(1, &[("nsc", "1"), ("nse", NEW)]))
    );
}

#[test]
fn our_own_name_behind_the_caller_makes_it_a_refresh() {
    let (id, is) = entered(connection("1", 0, &[("nsc", "1"), ("nse", "2")])).unwrap();
    assert_eq!(
        (id.as_str(), is),
        ("2", path(1, &[("nsc", "1"), ("nse", "2")]))
    );
}

#[test]
fn a_path_does_not_grow_without_bound() {
    let full = vec![("nsc", "1"); Path::SEGMENTS_MAX];
    assert!(entered(connection("1", Path::SEGMENTS_MAX - 1, &full)).is_err());
}

#[test]
fn what_is_behind_the_current_segment_is_trimmed() {
    let mut path = path(1, &[("nsc", "1"), ("nse", "2"), ("old", "3")]);
    trim(&mut path);
    assert_eq!(path.segments.len(), 2);
    path.index = usize::MAX;
    trim(&mut path);
    assert_eq!(path.segments.len(), 2);
}

proptest! {
    #[test]
    fn no_path_makes_it_panic_and_an_answer_always_comes_back_as_it_went(
        index in prop_oneof![0usize..5, Just(usize::MAX)],
        segments in prop::collection::vec(("(nse|nsc|mgr|)", "[12]?"), 0..5),
        id in "[12]",
    ) {
        let segments: Vec<_> = segments.iter().map(|(n, i)| (n.as_str(), i.as_str())).collect();
        let mut connection = connection(&id, index, &segments);
        let result = enter(&mut connection, "nse", || ConnectionId::new(NEW).unwrap());
        if let Ok(previous) = result {
            let own = connection.path.current().unwrap();
            prop_assert_eq!((&*own.name, &*own.id), ("nse", connection.id.as_str()));
            trim(&mut connection.path);
            prop_assert!(leave(&mut connection, previous).is_ok());
        }
    }
}
