use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use carrick_types::{Invalid, Labels, Prefix};

/// Any text.
///
/// # Errors
///
/// None; it has the form of the others.
pub fn text(text: &str) -> Result<String, Invalid> {
    Ok(text.to_owned())
}

/// `true` or `false`, also in the spellings of Go's `strconv.ParseBool`.
///
/// # Errors
///
/// It is another word.
pub fn boolean(text: &str) -> Result<bool, Invalid> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Invalid::new("", text, "true or false")),
    }
}

/// A time with its unit, such as `1200ms`, `15s`, `10m`, `1h30m`; `0` is none.
///
/// # Errors
///
/// It has no unit, is negative or is not a time.
pub fn duration(text: &str) -> Result<Duration, Invalid> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|_| Invalid::new("", text, "a time with its unit, such as 200ms, 15s or 10m"))
}

/// A whole number in `range`.
pub fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, Invalid>
where
    T: FromStr + PartialOrd + Display,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let value = format!("{text} (allowed: {} to {})", range.start(), range.end());
            Invalid::new("", value, "a whole number in its range")
        })
    }
}

/// A list with commas between its items; empty items are left out.
pub fn list<T>(
    item: impl Fn(&str) -> Result<T, Invalid>,
) -> impl Fn(&str) -> Result<Vec<T>, Invalid> {
    move |text| {
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty());
        items.map(&item).collect()
    }
}

/// Labels in the form `key:value,key:value`.
///
/// # Errors
///
/// A label has no colon, an empty key, or comes twice.
pub fn labels(text: &str) -> Result<Labels, Invalid> {
    let mut labels = Labels::default();
    for pair in list(|pair| Ok(pair.to_owned()))(text)? {
        let split = pair
            .split_once(':')
            .map(|(key, value)| (key.trim(), value.trim()));
        let fresh = split.filter(|(key, _)| !key.is_empty() && labels.value(key).is_none());
        let Some((key, value)) = fresh else {
            return Err(Invalid::new(
                "",
                pair,
                "labels such as app:vl3,zone:a, each key once",
            ));
        };
        labels.0.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

/// A prefix such as `10.0.0.0/24`, without bits behind its length.
///
/// # Errors
///
/// It is no prefix, or an address inside one.
pub fn prefix(text: &str) -> Result<Prefix, Invalid> {
    let parsed: Prefix = text.parse()?;
    if text.contains('/') && parsed.to_string() == text.to_lowercase() {
        Ok(parsed)
    } else {
        Err(Invalid::new(
            "",
            text,
            "a prefix in its shortest form, such as 10.0.0.0/24 or 2001:db8::/64",
        ))
    }
}

/// Prefixes with commas between them, no two of which overlap.
///
/// # Errors
///
/// One is no prefix, or two overlap.
pub fn prefixes(text: &str) -> Result<Vec<Prefix>, Invalid> {
    let prefixes = list(prefix)(text)?;
    match carrick_types::overlaps(&prefixes) {
        Some((a, b)) => Err(Invalid::new(
            "",
            format!("{a},{b}"),
            "a list without overlaps",
        )),
        None => Ok(prefixes),
    }
}

/// An IP address; empty is none.
///
/// # Errors
///
/// It is something else.
pub fn address(text: &str) -> Result<Option<IpAddr>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = text
        .parse()
        .map_err(|_| Invalid::new("", text, "an IP address"))?;
    Ok(Some(address))
}

/// A path; empty is none.
///
/// # Errors
///
/// None; it has the form of the others.
pub fn optional_path(text: &str) -> Result<Option<PathBuf>, Invalid> {
    Ok(Some(text)
        .filter(|text| !text.is_empty())
        .map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_durations_are_understood() {
        assert_eq!(duration("1200ms").unwrap(), Duration::from_millis(1200));
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        for bad in ["15", "-1s", "soon", ""] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_have_a_key_and_come_once() {
        assert_eq!(labels("app:vl3, zone:a").unwrap().value("zone"), Some("a"));
        for bad in ["app", ":x", "a:1,a:2"] {
            assert!(labels(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn overlapping_prefixes_are_refused_and_named() {
        let error = prefixes("10.0.0.0/16,10.0.3.0/24").unwrap_err();
        assert!(error.to_string().contains("10.0.3.0/24"), "{error}");
        assert!(prefixes("10.0.0.0/16,2001:db8::/64").is_ok());
        assert!(prefixes("10.0.0.1/16").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            let _ = (labels(&text), prefixes(&text), duration(&text), boolean(&text), address(&text));
        }
    }
}
