/// Declares a value of a table: its fields with their offsets, and how it is
/// written and read. Bytes between fields are 0.
macro_rules! value {
    (
        $(#[$doc:meta])*
        $name:ident: $size:literal {
            $($(#[$field_doc:meta])* $field:ident: $type:ty = $offset:literal,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// Size of a value in its table, in bytes.
            pub const SIZE: usize = $size;

            /// Writes the value as its table holds it.
            #[must_use]
            pub fn encode(&self) -> [u8; $size] {
                let mut bytes = [0; $size];
                $($crate::tables::layout::Field::put(&self.$field, &mut bytes[$offset..]);)*
                bytes
            }

            /// Reads the value as its table holds it.
            #[must_use]
            pub fn decode(bytes: &[u8; $size]) -> Self {
                Self {
                    $($field: $crate::tables::layout::Field::get(&bytes[$offset..]),)*
                }
            }
        }
    };
}

pub(crate) use value;

/// A field of fixed size in little-endian order.
pub(crate) trait Field: Sized {
    const SIZE: usize;
    fn put(&self, bytes: &mut [u8]);
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! integer {
    ($($type:ty),*) => {
        $(impl Field for $type {
            const SIZE: usize = size_of::<$type>();

            fn put(&self, bytes: &mut [u8]) {
                bytes[..Self::SIZE].copy_from_slice(&self.to_le_bytes());
            }

            fn get(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<$type>()];
                own.copy_from_slice(&bytes[..Self::SIZE]);
                Self::from_le_bytes(own)
            }
        })*
    };
}

integer!(u8, u16, u32, u64);

impl<T: Field + Copy + Default, const N: usize> Field for [T; N] {
    const SIZE: usize = N * T::SIZE;

    fn put(&self, bytes: &mut [u8]) {
        for (value, place) in self.iter().zip(bytes.chunks_mut(T::SIZE)) {
            value.put(place);
        }
    }

    fn get(bytes: &[u8]) -> Self {
        let mut own = [T::default(); N];
        for (value, place) in own.iter_mut().zip(bytes.chunks(T::SIZE)) {
            *value = T::get(place);
        }
        own
    }
}
