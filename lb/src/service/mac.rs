use std::fmt;
use std::str::FromStr;

use carrick_types::Invalid;

/// An Ethernet address of one station (never multicast, never all zeros).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// Takes the six bytes as they stand in a frame.
    ///
    /// # Errors
    ///
    /// The address is a multicast address or all zeros.
    pub fn new(bytes: [u8; 6]) -> Result<Self, Invalid> {
        let mac = Self(bytes);
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(invalid(mac.to_string()));
        }
        Ok(mac)
    }

    /// The six bytes as they stand in a frame.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

fn invalid(text: impl AsRef<str>) -> Invalid {
    Invalid::new(
        "mac",
        text.as_ref(),
        "the Ethernet address of one station, such as 02:00:00:00:00:01",
    )
}

impl FromStr for MacAddr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            *byte = parts
                .next()
                .filter(|part| part.len() == 2)
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| invalid(text))?;
        }
        match parts.next() {
            None => Self::new(bytes),
            Some(_) => Err(invalid(text)),
        }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stations_address_is_taken() {
        let mac: MacAddr = "02:00:00:00:00:0A".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:00:00:00:0a");
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "2:0:0:0:0:1",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
