use std::time::SystemTime;

use carrick_types::{Invalid, Token};
use prost_types::Timestamp;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use super::TOKEN_MAX;
use crate::convert::{time_from_wire, time_to_wire};

/// The caller's token.
const TOKEN: &str = "nsm-client-token";
/// When it ends, RFC 3339 with nanoseconds.
const EXPIRES: &str = "nsm-client-token-expires";

/// The caller's token, as NSM's clients send it with each call. As in NSM,
/// what is not there exactly once is not there, nor is what makes no sense.
#[must_use]
pub fn token_from_metadata(metadata: &MetadataMap) -> Option<Token> {
    let value = only(metadata, TOKEN)?;
    let expires = rfc3339_from_str(only(metadata, EXPIRES)?).ok()?;
    (value.len() <= TOKEN_MAX).then(|| Token {
        value: value.to_owned(),
        expires,
    })
}

/// Whether a call brings a token.
pub(crate) fn has_token(metadata: &MetadataMap) -> bool {
    metadata.contains_key(TOKEN)
}

fn only<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    let mut values = metadata.get_all(key).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.to_str().ok())?
}

/// Sends a token with a call.
///
/// # Errors
///
/// The token has characters that no header can have; a JWT has none.
pub fn token_to_metadata(token: &Token, metadata: &mut MetadataMap) -> Result<(), Invalid> {
    let not_ascii = |_| Invalid::new(TOKEN, "(not shown)", "visible ASCII characters");
    let value = AsciiMetadataValue::try_from(&token.value).map_err(not_ascii)?;
    let expires = AsciiMetadataValue::try_from(rfc3339(token.expires)).map_err(not_ascii)?;
    metadata.insert(TOKEN, value);
    metadata.insert(EXPIRES, expires);
    Ok(())
}

/// A time as RFC 3339 text in UTC, with as many digits of a second as there
/// are.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    time_to_wire(time).to_string()
}

/// Reads RFC 3339 text with whatever offset: Go writes its local one.
///
/// # Errors
///
/// It is no such text, or a time outside the years 1 to 9999.
pub fn rfc3339_from_str(text: &str) -> Result<SystemTime, Invalid> {
    let wrong = || {
        Invalid::new(
            EXPIRES,
            text,
            "a time such as 2030-01-02T03:04:05.678901234Z",
        )
    };
    // The parser also takes dates without time and white space around.
    let plausible = (20..=64).contains(&text.len()) && text.is_ascii() && text.trim() == text;
    if !plausible {
        return Err(wrong());
    }
    let time: Timestamp = text.parse().map_err(|_| wrong())?;
    time_from_wire(EXPIRES, time)
}
