//! What travels beside a registry call: the caller's token.

use carrick_chain::BoxError;
use carrick_types::Token;
use tonic::metadata::MetadataMap;

/// Adds what a registry wants to know of its caller.
pub(crate) fn put(metadata: &mut MetadataMap, token: Option<&Token>) -> Result<(), BoxError> {
    let _ = token;
    metadata.insert("path", r#"{"Index":0,"PathSegments":null}"#.parse()?);
    Ok(())
}
