//! Checks that name the field.

use std::collections::BTreeMap;
use std::net::IpAddr;

use carrick_types::{Invalid, IpNet, Prefix};

/// Most entries of a list of addresses, routes and the like. The largest lists
/// in use are excluded prefixes: a cluster's pod and service networks.
const LIST_MAX: usize = 4096;
/// Most entries of a map.
const MAP_MAX: usize = 1024;
/// Longest name, id or key, in bytes.
const NAME_MAX: usize = 512;
/// Longest free text, in bytes: tokens and the values of maps.
const TEXT_MAX: usize = 16 * 1024;

/// Puts `outer` before the field's name; an empty name is `outer` itself.
pub(super) fn within(outer: &str, invalid: Invalid) -> Invalid {
    if invalid.field.is_empty() {
        Invalid {
            field: outer.to_owned(),
            ..invalid
        }
    } else {
        invalid.within(outer)
    }
}

/// The mistake in `field` itself, whatever the callee called it.
pub(super) fn rename(field: &str) -> impl Fn(Invalid) -> Invalid {
    move |invalid| Invalid {
        field: field.to_owned(),
        ..invalid
    }
}

/// Converts each item of a list of at most [`LIST_MAX`].
pub(super) fn list<W, T>(
    field: &str,
    wire: Vec<W>,
    one: impl Fn(W) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    if wire.len() > LIST_MAX {
        return Err(Invalid::new(
            field,
            wire.len(),
            "a list of at most 4096 entries",
        ));
    }
    wire.into_iter()
        .enumerate()
        .map(|(i, item)| one(item).map_err(|invalid| within(&format!("{field}[{i}]"), invalid)))
        .collect()
}

/// Checks a map of at most [`MAP_MAX`] entries.
pub(super) fn map(
    field: &str,
    wire: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Invalid> {
    if wire.len() > MAP_MAX {
        return Err(Invalid::new(
            field,
            wire.len(),
            "a map of at most 1024 entries",
        ));
    }
    for (key, value) in &wire {
        if key.len() > NAME_MAX {
            return Err(Invalid::new(field, key, "a key of at most 512 bytes"));
        }
        if value.len() > TEXT_MAX {
            return Err(Invalid::new(
                format!("{field}[{key:?}]"),
                format!("{} bytes", value.len()),
                "a value of at most 16384 bytes",
            ));
        }
    }
    Ok(wire)
}

/// Checks a name or an id; it may be empty.
pub(super) fn name(field: &str, text: String) -> Result<String, Invalid> {
    if text.len() > NAME_MAX || text.chars().any(char::is_control) {
        let expected = "a text of at most 512 bytes without control characters";
        return Err(Invalid::new(field, text, expected));
    }
    Ok(text)
}

/// Checks a credential: its bytes are not repeated in the mistake.
pub(super) fn token(field: &str, text: String) -> Result<String, Invalid> {
    if text.len() > TEXT_MAX {
        let length = format!("{} bytes", text.len());
        return Err(Invalid::new(
            field,
            length,
            "a token of at most 16384 bytes",
        ));
    }
    Ok(text)
}

/// An interface's address with its length; a bare address is a host's.
pub(super) fn interface(text: String) -> Result<IpNet, Invalid> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| {
            Invalid::new(
                "",
                text,
                "an address such as 10.0.0.1/32 or 2001:db8::1/128",
            )
        })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "one shape for all that `list` calls"
)]
pub(super) fn prefix(text: String) -> Result<Prefix, Invalid> {
    text.parse().map_err(rename(""))
}

pub(super) fn address(text: String) -> Result<IpAddr, Invalid> {
    text.parse()
        .map_err(|_| Invalid::new("", text, "an address such as 10.0.0.1 or 2001:db8::1"))
}

pub(super) fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}
