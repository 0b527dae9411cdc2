use std::time::Duration;

use tonic::metadata::MetadataMap;

use super::ServerOptions;

/// Time that a call has: what the client says within our bounds, or our
/// default.
pub(super) fn timeout(metadata: &MetadataMap, options: &ServerOptions) -> Duration {
    let named = metadata
        .get("grpc-timeout")
        .and_then(|value| value.to_str().ok())
        .and_then(parse);
    named
        .unwrap_or(options.default_timeout)
        .min(options.max_timeout)
}

/// What is kept back for telling the client that it was too late, before its
/// own clock runs out and it learns nothing.
pub(super) fn margin(timeout: Duration) -> Duration {
    (timeout / 10).min(Duration::from_millis(200))
}

/// At most eight digits and a unit (gRPC over HTTP/2, `Timeout`).
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(header: Option<&str>) -> Duration {
        let mut metadata = MetadataMap::new();
        if let Some(header) = header {
            metadata.insert("grpc-timeout", header.parse().unwrap());
        }
        timeout(&metadata, &ServerOptions::default())
    }

    #[test]
    fn a_client_has_the_time_it_names_within_bounds() {
        assert_eq!(of(None), Duration::from_secs(15));
        assert_eq!(of(Some("1500m")), Duration::from_millis(1500));
        assert_eq!(of(Some("99999999H")), Duration::from_secs(60));
        for nonsense in ["", "S", "1", "-1S", "123456789S", "1x", "é"] {
            assert_eq!(parse(nonsense), None, "{nonsense:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_timeout_or_none(text in ".{0,12}|[0-9]{0,10}[HMSmun]") {
            let _ = parse(&text);
        }
    }
}
