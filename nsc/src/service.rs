use std::str::FromStr;

use carrick_types::{IfName, Invalid, Labels, ServiceName};

/// A network service that a client wants, written
/// `[kernel://]service[@domain]/interface?label=value&label=value`
/// (NSM `NSM_NETWORK_SERVICES`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The service.
    pub service: ServiceName,
    /// The client's interface to it.
    pub interface: IfName,
    /// Labels of this connection.
    pub labels: Labels,
}

impl FromStr for Wanted {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || {
            Invalid::new(
                "network service",
                text,
                "a URL such as kernel://vl3@domain/nsm-1?app=web",
            )
        };
        let rest = match text.split_once("://") {
            Some(("kernel", rest)) => rest,
            Some(_) => return Err(bad()),
            None => text,
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (service, interface) = place.split_once('/').ok_or_else(bad)?;
        let mut labels = Labels::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(bad)?;
            let (key, value) = (decode(key).ok_or_else(bad)?, decode(value).ok_or_else(bad)?);
            if key.is_empty() || labels.0.insert(key, value).is_some() {
                return Err(bad());
            }
        }
        Ok(Self {
            service: ServiceName::new(service).map_err(|_| bad())?,
            interface: IfName::new(interface)?,
            labels,
        })
    }
}

/// Text with `%xx` and `+` as in a URL's query (RFC 3986 §2.1).
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> Wanted {
        text.parse().unwrap()
    }

    #[test]
    fn a_service_is_written_as_nsm_writes_it() {
        let full = wanted("kernel://vl3@west/nsm-1?app=web&zone=a%20b");
        assert_eq!(full.service.as_str(), "vl3@west");
        assert_eq!(full.interface.as_str(), "nsm-1");
        assert_eq!(
            full.labels,
            [("app", "web"), ("zone", "a b")].into_iter().collect()
        );
        assert_eq!(wanted("vl3/nsm-1"), wanted("kernel://vl3/nsm-1"));
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        for bad in [
            "",
            "vl3",
            "memif://vl3/nsm-1",
            "kernel:///nsm-1",
            "vl3/an-interface-name-too-long",
            "vl3/nsm-1?app",
            "vl3/nsm-1?a=1&a=2",
            "vl3/nsm-1?a=%zz",
        ] {
            assert!(bad.parse::<Wanted>().is_err(), "{bad}");
        }
    }
}
