use carrick_types::{Invalid, Prefix};

/// A network that is divided among endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    prefix: Prefix,
    client_length: u8,
}

impl Network {
    /// `prefix`, of which endpoints get prefixes of `client_length` bits.
    ///
    /// # Errors
    ///
    /// The network has length 0, or `client_length` is shorter than the
    /// network's or leaves no room for a client.
    pub fn new(prefix: Prefix, client_length: u8) -> Result<Self, Invalid> {
        if prefix.length() == 0 {
            return Err(Invalid::new(
                "network",
                prefix,
                "a prefix of length 1 or more",
            ));
        }
        if !(prefix.length()..prefix.width()).contains(&client_length) {
            return Err(Invalid::new(
                "client prefix length",
                client_length,
                "at least the network's length and less than 32 (IPv4) or 128 (IPv6)",
            ));
        }
        Ok(Self {
            prefix,
            client_length,
        })
    }

    /// What is divided.
    #[must_use]
    pub fn prefix(self) -> Prefix {
        self.prefix
    }

    /// Length of an endpoint's prefix, in bits.
    #[must_use]
    pub fn client_length(self) -> u8 {
        self.client_length
    }
}
