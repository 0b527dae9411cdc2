/// A value that is not what its field allows.
///
/// Names the field, the value as it came and what would be right, so that the
/// sender can mend it without reading our source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not {expected}")]
pub struct Invalid {
    /// The field, as the API or the configuration names it.
    pub field: String,
    /// The value as it came, cut to [`Invalid::VALUE_MAX`] bytes.
    pub value: String,
    /// What would be right, e.g. `"a prefix such as 10.0.0.0/24"`.
    pub expected: &'static str,
}

impl Invalid {
    /// Longest part of a refused value that is repeated in a message, in bytes:
    /// a peer shall not be able to fill logs with one bad field.
    pub const VALUE_MAX: usize = 120;

    /// Says that `value` of `field` is not `expected`.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "texts and numbers are passed as they are"
    )]
    pub fn new(field: impl Into<String>, value: impl ToString, expected: &'static str) -> Self {
        let mut value = value.to_string();
        if value.len() > Self::VALUE_MAX {
            let cut = (0..=Self::VALUE_MAX)
                .rev()
                .find(|&i| value.is_char_boundary(i))
                .unwrap_or(0);
            value.truncate(cut);
            value.push('…');
        }
        Self {
            field: field.into(),
            value,
            expected,
        }
    }

    /// The same mistake seen from one level up: `field` becomes `outer.field`.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}
