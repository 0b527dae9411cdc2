use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where the admin listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// A text that is no address of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not of the form `unix:///path`, `tcp://address:port`, `address:port` or `:port`"
)]
pub struct InvalidAddress {
    /// What was given.
    pub text: String,
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress {
            text: text.to_owned(),
        };
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "tcp" => tcp(rest).map(Self::Tcp).ok_or_else(invalid),
            _ => Err(invalid()),
        }
    }
}

/// `:port` is every address of the host, as in Go.
fn tcp(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix(':') {
        Some(port) => Some((IpAddr::V6(Ipv6Addr::UNSPECIFIED), port.parse().ok()?).into()),
        None => text.parse().ok(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_in_all_their_forms() {
        for (text, shown) in [
            ("127.0.0.1:9090", "tcp://127.0.0.1:9090"),
            ("tcp://[::1]:9090", "tcp://[::1]:9090"),
            (":9090", "tcp://[::]:9090"),
            ("tcp://:9090", "tcp://[::]:9090"),
            ("unix:///run/nse/admin.sock", "unix:///run/nse/admin.sock"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse(), Ok(address));
        }
    }

    #[test]
    fn what_is_no_address_is_shown() {
        for text in [
            "",
            "9090",
            "localhost:9090",
            "unix://",
            "unix://run/a",
            "udp://127.0.0.1:1",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
