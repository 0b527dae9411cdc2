use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use carrick_types::Invalid;
use serde::{Deserialize, Serialize};

const EXPECTED: &str = "a URL such as unix:///run/nsm.sock, tcp://10.0.0.1:5006, tcp://[2001:db8::1]:5006 or tcp://:5006";

/// Where a gRPC server listens or is reached (NSM `NSM_CONNECT_TO`,
/// `NSM_LISTEN_ON`, `NetworkServiceEndpoint.url`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Url {
    /// `inode://<dev>/<ino>`: a socket whose file descriptor was sent over the
    /// connection that brought the URL. Has a meaning only there.
    Inode(u64, u64),
    /// `tcp://host:port` or `host:port`.
    Tcp {
        /// A name, an IPv4 address, or an IPv6 address without brackets. Empty
        /// is every address to listen on, and this host to dial.
        host: String,
        /// The port; 0 lets the system choose when listening.
        port: u16,
    },
    /// `unix:///absolute/path`, or `unix:path` for a relative one. The path is
    /// taken as it is, without percent decoding.
    Unix(PathBuf),
}

impl Url {
    /// Longest path of a unix socket, in bytes (Linux `sun_path` less the final
    /// zero).
    pub const UNIX_PATH_MAX: usize = 107;

    /// The unix socket at `path`.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(path.into())
    }

    /// A TCP port of a host.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp {
            host: host.into(),
            port,
        }
    }

    /// The path of a unix socket.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Inode(..) | Self::Tcp { .. } => None,
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inode(device, inode) => write!(f, "inode://{device}/{inode}"),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Unix(path) if path.is_absolute() => write!(f, "unix://{}", path.display()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Url {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.chars().any(char::is_control) {
            return Err(Invalid::new(
                "url",
                text,
                "a URL without control characters",
            ));
        }
        match text.split_once("://") {
            Some(("inode", rest)) => inode(text, rest),
            Some(("tcp", rest)) => tcp(text, rest),
            Some(("unix", rest)) if rest.starts_with('/') => unix(text, rest),
            Some(("unix", _)) => {
                let expected = "unix:///absolute/path, with three slashes";
                Err(Invalid::new("url", text, expected))
            }
            Some(_) => Err(Invalid::new("url", text, EXPECTED)),
            None => match text.strip_prefix("unix:") {
                Some(path) => unix(text, path),
                None => tcp(text, text),
            },
        }
    }
}

fn inode(text: &str, rest: &str) -> Result<Url, Invalid> {
    rest.split_once('/')
        .and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)))
        .map(|(device, inode)| Url::Inode(device, inode))
        .ok_or_else(|| Invalid::new("url", text, "inode://<device>/<inode> in decimal"))
}

fn tcp(text: &str, rest: &str) -> Result<Url, Invalid> {
    let wrong = || Invalid::new("url", text, EXPECTED);
    let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let port = decimal(port)
        .ok_or_else(|| Invalid::new("url", text, "a port of 0 to 65535 behind the colon"))?;
    let host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(v6) => Ipv6Addr::from_str(v6).map_err(|_| wrong())?.to_string(),
        None if host.len() <= 253 && host.chars().all(is_of_name) => host.to_owned(),
        None => return Err(wrong()),
    };
    Ok(Url::Tcp { host, port })
}

/// Digits only: `u16::from_str` would also take a sign.
fn decimal(digits: &str) -> Option<u16> {
    digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')
}

fn unix(text: &str, path: &str) -> Result<Url, Invalid> {
    if path.is_empty() || path.ends_with('/') {
        return Err(Invalid::new(
            "url",
            text,
            "the path of a socket file behind unix:",
        ));
    }
    if path.len() > Url::UNIX_PATH_MAX {
        return Err(Invalid::new(
            "url",
            text,
            "a socket path of at most 107 bytes (Linux sun_path)",
        ));
    }
    Ok(Url::Unix(path.into()))
}

impl TryFrom<String> for Url {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Url> for String {
    fn from(url: Url) -> Self {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_that_nsm_uses_is_read() {
        let read = |text: &str| text.parse::<Url>().unwrap();
        assert_eq!(read("unix:///run/a.sock"), Url::unix("/run/a.sock"));
        assert_eq!(read("unix:a.sock"), Url::unix("a.sock"));
        assert_eq!(
            read("tcp://nse.example:5006"),
            Url::tcp("nse.example", 5006)
        );
        assert_eq!(read("nse.example:5006"), Url::tcp("nse.example", 5006));
        assert_eq!(read("tcp://:5006"), Url::tcp("", 5006));
        assert_eq!(read("tcp://[2001:DB8::1]:1"), Url::tcp("2001:db8::1", 1));
        assert_eq!(read("inode://4/4026531840"), Url::Inode(4, 4_026_531_840));
    }

    #[test]
    fn what_cannot_be_listened_on_or_dialled_is_refused() {
        for bad in [
            "",
            "nonsense",
            "tcp://host",
            "tcp://host:",
            "tcp://host:65536",
            "tcp://host:+1",
            "tcp://2001:db8::1:1",
            "tcp://[2001:db8::1]",
            "tcp://a/b:1",
            "unix://",
            "unix://a/b",
            "unix:///",
            "http://host:1",
            "inode://4",
            "inode://4/x",
            "tcp://a b:1",
            "unix:///a\nb",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad:?}");
        }
        let long = format!("unix:///{}", "x".repeat(Url::UNIX_PATH_MAX));
        assert!(long.parse::<Url>().unwrap_err().to_string().contains("107"));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives_its_own_form(
            text in prop_oneof![".{0,40}", "(tcp|unix|inode)://[a-f0-9:\\[\\]./]{0,20}"],
        ) {
            if let Ok(url) = text.parse::<Url>() {
                prop_assert_eq!(url.to_string().parse::<Url>().unwrap(), url);
            }
        }
    }
}
