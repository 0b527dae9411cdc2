//! Bytes as a peer sends them, put together by the wire rules alone, against the
//! generated types. Every field of every message has a value of its own, so that two
//! swapped numbers cannot go unseen.

mod ipam;
mod ippool;
mod networkservice;
mod old;
mod registry;
mod svreg;
mod wire;

use std::collections::BTreeMap;
use std::fmt::Debug;

use prost::Message;
use wire::Wire;

/// `bytes` decode to `message`, and `message` encodes to `bytes`.
#[track_caller]
fn check<M: Message + Default + PartialEq + Debug>(bytes: &Wire, message: &M) {
    assert_eq!(M::decode(bytes.as_bytes()).as_ref(), Ok(message));
    assert_eq!(message.encode_to_vec(), bytes.as_bytes());
}

fn map<V>(entries: impl IntoIterator<Item = (&'static str, V)>) -> BTreeMap<String, V> {
    entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

fn strings<const N: usize>(values: [&str; N]) -> Vec<String> {
    values.map(str::to_owned).to_vec()
}
