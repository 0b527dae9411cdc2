use std::str::FromStr;

use carrick_types::{IfName, Invalid, Labels, ServiceName};

/// A network service that a client wants, written
/// `[kernel://]service[@domain][/interface][?label=value&label=value]`
/// (NSM `NSM_NETWORK_SERVICES`, `nsurl`).
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
        let (service, interface) = place.split_once('/').unwrap_or((place, ""));
        let mut labels = Labels::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key).ok_or_else(bad)?, decode(value).ok_or_else(bad)?);
            if key.is_empty() {
                return Err(bad());
            }
            // As in NSM, a label that comes twice has both values.
            let known = labels.0.entry(key).and_modify(|known: &mut String| {
                *known = format!("{known},{value}");
            });
            known.or_insert(value);
        }
        Ok(Self {
            service: ServiceName::new(service).map_err(|_| bad())?,
            interface: match interface {
                "" => made_of(service).ok_or_else(bad)?,
                interface => IfName::new(interface)?,
            },
            labels,
        })
    }
}

impl Wanted {
    /// Whether both are the same interface to the same service.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.service == other.service && self.interface == other.interface
    }
}

/// A name of an interface for a service that names none: ten characters of the
/// service's and four that tell it from others. NSM takes random ones; these
/// are the same at the next start, which so finds its interface again.
fn made_of(service: &str) -> Option<IfName> {
    // FNV-1a, in 32 bits.
    let hash = service.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let readable: String = service
        .chars()
        .take_while(|c| *c != '@')
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .take(IfName::MAX - 5)
        .collect();
    IfName::new(format!("{readable}-{:04x}", hash & 0xffff)).ok()
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
    fn labels_are_read_as_nsm_reads_them() {
        let labels = wanted("vl3/nsm-1?a=1&a=2&b").labels;
        assert_eq!(labels, [("a", "1,2"), ("b", "")].into_iter().collect());
    }

    #[test]
    fn an_interface_that_is_not_named_has_a_lasting_name() {
        let long = wanted("kernel://my-long-service@west?app=web").interface;
        assert_eq!(long, wanted("my-long-service@west/").interface);
        assert!(long.as_str().starts_with("my-long-se-"), "{long}");
        assert_ne!(long, wanted("my-long-service@east").interface);
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        for bad in [
            "",
            "memif://vl3/nsm-1",
            "kernel:///nsm-1",
            "vl3/an-interface-name-too-long",
            "vl3/nsm-1?=x",
            "vl3/nsm-1?a=%zz",
        ] {
            assert!(bad.parse::<Wanted>().is_err(), "{bad}");
        }
    }
}
