//! What follows from a connection's id alone: the index and the hardware
//! address of each end's device, and the alias that says whose it is.

use std::borrow::Cow;
use std::fmt;

use carrick_types::ConnectionId;

use crate::Side;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// Longest owner or id that stands in an alias as it is, in bytes. The kernel
/// takes 255 bytes; two of these and the rest of the form fit.
const PLAIN_MAX: usize = 100;

/// Indices that a device of ours may have: computed ones lie in the upper half
/// of the kernel's range, where its own counting does not come by.
const INDEX_BASE: u32 = 1 << 30;

/// How many indices are tried for one end. Two ends of a million meet on the
/// first in one case of a thousand, on both practically never.
pub(crate) const INDEX_TRIES: u32 = 2;

/// The hardware address of one end of the link of connection `id`: locally
/// administered, unicast, the same on every node that computes it; the two ends
/// differ in the last bit.
#[must_use]
pub fn hardware_address(id: &ConnectionId, side: Side) -> [u8; 6] {
    let hash = hash(key(id.as_str()).as_bytes()).to_be_bytes();
    let mut mac = [hash[0], hash[1], hash[2], hash[3], hash[4], hash[5]];
    mac[0] = mac[0] & 0xfc | 0x02;
    mac[5] = mac[5] & 0xfe | u8::from(side == Side::Endpoint);
    mac
}

/// The index that the device of one end gets in its namespace, so that it is
/// found again by one question however many devices there are.
pub(crate) fn index(id: &ConnectionId, side: Side, attempt: u32) -> u32 {
    let text = format!("{}{}", letter(side), key(id.as_str()));
    let [a, b, c, d, ..] = hash(text.as_bytes()).to_be_bytes();
    let low = u32::from_be_bytes([a, b, c, d]).wrapping_add(attempt);
    INDEX_BASE | (low & (INDEX_BASE - 1))
}

/// Whose a device is, as its alias says: `carrick:<side>:<owner>:<connection id>`
/// with `c` or `e` for the side.
///
/// An owner or id of more than 100 bytes, an owner with a `:` and one that
/// begins with `#` stand there as `#` and 16 hexadecimal digits of a hash. Index
/// and hardware address are computed from that form too, so an id read from an
/// alias leads to the same device as the one it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alias {
    pub(crate) side: Side,
    pub(crate) owner: String,
    pub(crate) id: ConnectionId,
}

impl Alias {
    /// The alias of one end; `owner` may be empty where the owner is yet to come.
    pub(crate) fn new(side: Side, owner: &str, id: &ConnectionId) -> Self {
        let id = ConnectionId::new(key(id.as_str())).unwrap_or_else(|_| id.clone());
        Self {
            side,
            owner: owner_key(owner).into_owned(),
            id,
        }
    }

    /// Reads an alias; `None` if the device is not ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("carrick:")?.splitn(3, ':');
        let side = match parts.next()? {
            "c" => Side::Client,
            "e" => Side::Endpoint,
            _ => return None,
        };
        Some(Self {
            side,
            owner: parts.next()?.to_owned(),
            id: ConnectionId::new(parts.next()?).ok()?,
        })
    }

    /// Whether this is the end of `id` on `side`, whoever owns it.
    pub(crate) fn is(&self, id: &ConnectionId, side: Side) -> bool {
        self.side == side && self.id.as_str() == key(id.as_str())
    }

    /// Whether `owner` owns it.
    pub(crate) fn is_owned_by(&self, owner: &str) -> bool {
        self.owner == owner_key(owner)
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { side, owner, id } = self;
        write!(f, "carrick:{}:{owner}:{id}", letter(*side))
    }
}

fn letter(side: Side) -> char {
    match side {
        Side::Client => 'c',
        Side::Endpoint => 'e',
    }
}

fn key(text: &str) -> Cow<'_, str> {
    if text.len() > PLAIN_MAX {
        format!("#{:016x}", hash(text.as_bytes())).into()
    } else {
        text.into()
    }
}

fn owner_key(owner: &str) -> Cow<'_, str> {
    let is_short_form = owner.strip_prefix('#').is_some_and(|digits| {
        digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    });
    let is_plain = owner.len() <= PLAIN_MAX && !owner.contains(':') && !owner.starts_with('#');
    if is_short_form || is_plain {
        owner.into()
    } else {
        format!("#{:016x}", hash(owner.as_bytes())).into()
    }
}

/// 64-bit FNV-1a, mixed so that every bit depends on all input. Unlike the
/// standard hasher it stays the same over releases: two nodes, and two versions
/// of this program, must agree.
fn hash(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> ConnectionId {
        ConnectionId::new(text).unwrap()
    }

    #[test]
    fn a_hardware_address_stays_the_same_over_releases() {
        let id = id("5fa8b1a0-7a2f-4a9f-8bb1-2f2f0d9f6f10");
        let client = hardware_address(&id, Side::Client);
        let endpoint = hardware_address(&id, Side::Endpoint);
        assert_eq!(client, [0xf2, 0x83, 0x7b, 0xce, 0x0f, 0x6a]);
        assert_eq!(endpoint, [0xf2, 0x83, 0x7b, 0xce, 0x0f, 0x6b]);
    }

    #[test]
    fn other_devices_have_no_alias_of_ours() {
        for text in [
            "",
            "uplink",
            "carrick",
            "carrick:x:a:b",
            "carrick:c:a",
            "carrick:c:a:",
        ] {
            assert_eq!(Alias::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_hardware_address_is_always_local_and_unicast(text in "[ -~]{1,200}", endpoint: bool) {
            let side = if endpoint { Side::Endpoint } else { Side::Client };
            prop_assert_eq!(hardware_address(&id(&text), side)[0] & 0x03, 0x02);
        }

        #[test]
        fn an_alias_always_fits_and_reads_back(owner in "\\PC{0,300}", text in "[ -~]{1,300}") {
            let alias = Alias::new(Side::Client, &owner, &id(&text));
            prop_assert!(alias.to_string().len() <= 255);
            let read = Alias::parse(&alias.to_string()).unwrap();
            prop_assert!(read.is(&id(&text), Side::Client));
            prop_assert!(!read.is(&id(&text), Side::Endpoint));
            prop_assert!(read.is_owned_by(&owner));
            prop_assert_eq!(read, alias);
        }

        #[test]
        fn what_an_alias_says_always_leads_to_the_same_device(text in "[ -~]{1,300}") {
            let long = id(&text);
            let read = Alias::new(Side::Client, "x", &long).id;
            prop_assert_eq!(index(&read, Side::Client, 0), index(&long, Side::Client, 0));
            prop_assert_eq!(hardware_address(&read, Side::Client), hardware_address(&long, Side::Client));
        }

        #[test]
        fn an_index_is_always_one_that_the_kernel_takes(text in "[ -~]{1,50}", attempt in 0..INDEX_TRIES) {
            let index = index(&id(&text), Side::Endpoint, attempt);
            prop_assert!(index >= INDEX_BASE && i32::try_from(index).is_ok());
        }
    }
}
