//! The protobuf wire format, as far as these messages need it.
//! Source: protobuf.dev, "Encoding".

/// A message under construction, field by field in the order they are added.
#[derive(Default)]
pub(crate) struct Wire(Vec<u8>);

impl Wire {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bool, enum and integers: wire type 0.
    pub(crate) fn number(mut self, field: u64, value: u64) -> Self {
        self.push_varint(field << 3);
        self.push_varint(value);
        self
    }

    /// A string, and one element of a repeated one: wire type 2.
    pub(crate) fn text(self, field: u64, value: &str) -> Self {
        self.delimited(field, value.as_bytes())
    }

    /// A message, and one element of a repeated one: wire type 2.
    pub(crate) fn message(self, field: u64, value: &Wire) -> Self {
        self.delimited(field, &value.0)
    }

    /// Repeated integers: their varints one after the other, wire type 2.
    pub(crate) fn packed(self, field: u64, values: &[u64]) -> Self {
        let mut packed = Self::new();
        for value in values {
            packed.push_varint(*value);
        }
        self.message(field, &packed)
    }

    /// An entry of a map of strings: a message of key (1) and value (2).
    pub(crate) fn entry(self, field: u64, key: &str, value: &str) -> Self {
        self.message(field, &Self::new().text(1, key).text(2, value))
    }

    /// An entry of a map of messages.
    pub(crate) fn entry_of(self, field: u64, key: &str, value: &Wire) -> Self {
        self.message(field, &Self::new().text(1, key).message(2, value))
    }

    /// `google.protobuf.Timestamp`: seconds (1) and nanoseconds (2).
    pub(crate) fn timestamp(self, field: u64, seconds: u64, nanos: u64) -> Self {
        self.message(field, &Self::new().number(1, seconds).number(2, nanos))
    }

    fn delimited(mut self, field: u64, value: &[u8]) -> Self {
        self.push_varint(field << 3 | 2);
        self.push_varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn push_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

/// The examples of the encoding's own description.
#[test]
fn the_helper_follows_the_published_examples() {
    assert_eq!(Wire::new().number(1, 150).as_bytes(), [0x08, 0x96, 0x01]);
    assert_eq!(
        Wire::new().text(2, "testing").as_bytes(),
        b"\x12\x07testing"
    );
    let inner = Wire::new().number(1, 150);
    assert_eq!(
        Wire::new().message(3, &inner).as_bytes(),
        [0x1a, 0x03, 0x08, 0x96, 0x01]
    );
    let packed = Wire::new().packed(6, &[3, 270, 86_942]);
    assert_eq!(
        packed.as_bytes(),
        [0x32, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05]
    );
}
