use std::fmt;

/// 64 bits that stand for a name: equal in every process and on every machine,
/// so that what a dead process left in a data plane is recognised, and so that
/// balancers agree on hash tables and on whom a flow belongs to.
///
/// 0 never occurs; tables may use it for "none".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(u64);

impl Identity {
    /// The identity of a path of names; `["a", "b"]` and `["ab"]` differ.
    #[must_use]
    pub fn of(names: &[&str]) -> Self {
        let hash = names.iter().fold(0xcbf2_9ce4_8422_2325, |hash, name| {
            // Names hold no control characters, so 0 ends one.
            name.bytes().chain([0]).fold(hash, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
        });
        Self(mix(hash).max(1))
    }

    /// An identity read back from a data plane or a peer; `None` for 0.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Self(bits))
    }

    /// The bits themselves, for tables and for the wire.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Another 64 bits that depend on all bits of the identity and on `salt`.
    #[must_use]
    pub fn salted(self, salt: u64) -> u64 {
        mix(self.0 ^ mix(salt ^ 0x9e37_79b9_7f4a_7c15))
    }
}

/// Makes each bit of the result depend on each bit of the input (the final
/// step of `MurmurHash3`).
fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_the_same_in_every_release() {
        assert_eq!(
            Identity::of(&["web", "a"]).to_string(),
            Identity::of(&["web", "a"]).to_string()
        );
        assert_ne!(Identity::of(&["web", "a"]), Identity::of(&["weba"]));
        assert_ne!(Identity::of(&["web", "a"]), Identity::of(&["we", "ba"]));
    }

    #[test]
    fn no_identity_is_zero() {
        assert_eq!(Identity::from_bits(0), None);
        assert!(Identity::from_bits(7).is_some());
    }
}
