use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// VXLAN network identifier: 24 bits, not zero (RFC 7348 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(NonZeroU32);

impl Vni {
    /// Greatest value, 2²⁴ − 1.
    pub const MAX: u32 = (1 << 24) - 1;

    /// Takes 1 to 16777215.
    ///
    /// # Errors
    ///
    /// The value is outside that range.
    pub fn new(value: u32) -> Result<Self, Invalid> {
        NonZeroU32::new(value)
            .filter(|value| value.get() <= Self::MAX)
            .map(Self)
            .ok_or_else(|| Invalid::new("vni", value, "1 to 16777215"))
    }

    /// The number itself.
    #[must_use]
    pub fn value(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u32> for Vni {
    type Error = Invalid;

    fn try_from(value: u32) -> Result<Self, Invalid> {
        Self::new(value)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0.get()
    }
}
