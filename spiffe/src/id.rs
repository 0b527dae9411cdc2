use std::fmt;
use std::str::FromStr;

use carrick_types::Invalid;
use serde::Serialize;

/// A SPIFFE id of a workload: `spiffe://<trust domain>/<path>` (SPIFFE-ID §2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct SpiffeId(String);

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// Most bytes of an id (SPIFFE-ID §2.3).
    pub const MAX: usize = 2048;

    /// The id of `name` in a trust domain; the name may have several parts,
    /// with `/` between them.
    ///
    /// # Errors
    ///
    /// The trust domain is not 1 to 255 lower-case letters, digits, `-`, `.`
    /// or `_`, or a part of the name is empty, `.`, `..`, or holds other
    /// than letters, digits, `-`, `.` or `_`.
    pub fn new(trust_domain: &str, name: &str) -> Result<Self, Invalid> {
        check_trust_domain(trust_domain)?;
        let of_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(of_name);
        let length = SCHEME.len() + trust_domain.len() + 1 + name.len();
        if length > Self::MAX || !name.split('/').all(part) {
            let expected = "letters, digits, '-', '.' or '_', with '/' between parts";
            return Err(Invalid::new("name in a SPIFFE id", name, expected));
        }
        Ok(Self(format!("{SCHEME}{trust_domain}/{name}")))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Who gives such identities, e.g. `example.org`.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        let rest = self.0.get(SCHEME.len()..).unwrap_or_default();
        rest.split('/').next().unwrap_or_default()
    }
}

fn check_trust_domain(name: &str) -> Result<(), Invalid> {
    let of_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    if (1..=255).contains(&name.len()) && name.bytes().all(of_domain) {
        return Ok(());
    }
    let expected = "1 to 255 lower-case letters, digits, '-', '.' or '_'";
    Err(Invalid::new("trust domain", name, expected))
}

/// The trust domain that a Workload API names: by its SPIFFE id, or plainly.
pub(crate) fn trust_domain(text: &str) -> Result<String, Invalid> {
    let name = text.strip_prefix(SCHEME).unwrap_or(text);
    let name = name.strip_suffix('/').unwrap_or(name);
    check_trust_domain(name)?;
    Ok(name.to_owned())
}

impl FromStr for SpiffeId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parts = text
            .strip_prefix(SCHEME)
            .and_then(|rest| rest.split_once('/'));
        let (trust_domain, name) = parts
            .ok_or_else(|| Invalid::new("SPIFFE id", text, "spiffe://<trust domain>/<path>"))?;
        Self::new(trust_domain, name)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_spiffe_id_is_one() {
        let id = SpiffeId::new("a.b", "ns/x/sa/y").unwrap();
        assert_eq!(id.as_str(), "spiffe://a.b/ns/x/sa/y");
        assert_eq!(id.trust_domain(), "a.b");
        assert_eq!(id.as_str().parse::<SpiffeId>().unwrap(), id);
        for (domain, name) in [
            ("", "a"),
            ("A", "a"),
            ("a", ""),
            ("a", "b//c"),
            ("a", ".."),
            ("a", "b c"),
        ] {
            assert!(SpiffeId::new(domain, name).is_err(), "{domain:?} {name:?}");
        }
        for text in ["spiffe://a", "spiffe://a/", "https://a/b", "spiffe://a/b?c"] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_trust_domain_is_named_plainly_or_by_its_id() {
        assert_eq!(trust_domain("spiffe://a.b").unwrap(), "a.b");
        assert_eq!(trust_domain("a.b").unwrap(), "a.b");
        assert!(trust_domain("spiffe://a.b/c").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_an_id_or_refused(text in "(spiffe://)?[a-zA-Z0-9./_-]{0,40}|.{0,60}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.as_str(), &text);
            }
        }
    }
}
