use std::fmt;
use std::num::NonZeroU16;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(NonZeroU16);

        impl $name {
            /// Takes 1 to 65535; tables may use 0 for "none".
            #[must_use]
            pub fn new(number: u16) -> Option<Self> {
                NonZeroU16::new(number).map(Self)
            }

            /// The number itself.
            #[must_use]
            pub fn get(self) -> u16 {
                self.0.get()
            }

            /// The number as an index.
            #[must_use]
            pub fn index(self) -> usize {
                usize::from(self.0.get())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Names a service in the tables of one data plane. Control gives the
    /// lowest free number, so they are dense from 1.
    ServiceNumber
}

number! {
    /// Names a VIP in the tables of one data plane; dense from 1.
    VipNumber
}

number! {
    /// Names a server of one service in the tables of one data plane; dense
    /// from 1 over all services. Two services with the same address have two
    /// numbers.
    ServerNumber
}
