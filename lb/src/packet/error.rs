/// Why bytes are not the header they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A checksum that does not fit what it covers.
    #[error("wrong checksum in {layer}")]
    Checksum {
        /// The header that carries it, e.g. `"TCP"`.
        layer: &'static str,
    },
    /// A field with a value that its header may not have.
    #[error("{layer}: {field} is {value}, but must be {expected}")]
    Field {
        /// The header.
        layer: &'static str,
        /// The field in it.
        field: &'static str,
        /// What it says.
        value: u32,
        /// What would be right.
        expected: &'static str,
    },
    /// The bytes end within a header, or before the length it says.
    #[error("{layer} needs {need} bytes, but there are {have}")]
    Truncated {
        /// The header.
        layer: &'static str,
        /// How many bytes it or the packet that it begins has.
        need: usize,
        /// How many there are.
        have: usize,
    },
}

impl Error {
    /// `Ok` if `bytes` has at least `need` bytes.
    pub(super) fn check(layer: &'static str, bytes: &[u8], need: usize) -> Result<(), Self> {
        let have = bytes.len();
        if have < need {
            return Err(Self::Truncated { layer, need, have });
        }
        Ok(())
    }
}
