use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::token::Token;
use crate::verify;

/// One hop of a path, as far as policies look at it.
#[derive(Clone, Copy, Default)]
pub struct Segment<'a> {
    /// The component's name; empty where it is not told.
    pub name: &'a str,
    /// The connection's id at this hop; empty where there is none.
    pub id: &'a str,
    /// The hop's token, a JWT.
    pub token: &'a str,
    /// When the token ends, as it was told beside the token.
    pub expires: Option<SystemTime>,
}

/// Leaves the token out: it is a credential.
impl fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("name", &self.name)
            .field("id", &self.id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Who is at the other end of the connection over which a call or its answer
/// came, as the TLS handshake proved it.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// Its SPIFFE id.
    pub id: &'a str,
    /// Its leaf certificate, in DER.
    pub certificate: &'a [u8],
}

impl fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A [`Caller`] that whoever ended the TLS connection puts into the extensions
/// of a request or an answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Proven {
    id: Arc<str>,
    certificate: Arc<[u8]>,
}

impl Proven {
    /// The identity `id` with its leaf certificate, in DER.
    #[must_use]
    pub fn new(id: &str, certificate: &[u8]) -> Self {
        Self {
            id: id.into(),
            certificate: certificate.into(),
        }
    }

    /// As policies want it.
    #[must_use]
    pub fn caller(&self) -> Caller<'_> {
        Caller {
            id: &self.id,
            certificate: &self.certificate,
        }
    }
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.caller().fmt(f)
    }
}

/// Lists of texts by a name.
pub(crate) type Lists = BTreeMap<String, Vec<String>>;

/// What a call is about, besides its path.
#[derive(Clone, Copy, Default)]
pub enum About<'a> {
    /// A Request or Close: there is nothing besides.
    #[default]
    Connection,
    /// `MonitorConnections`.
    Monitor {
        /// Ids of the selector's segments.
        selected: &'a [&'a str],
        /// Whether the caller requested a connection under this id of its own.
        is_callers: &'a dyn Fn(&str) -> bool,
        /// All such ids by the SPIFFE id of who requested; asked by `.rego`
        /// policies only.
        by_caller: &'a dyn Fn() -> Lists,
    },
    /// The registration of a network service or an endpoint.
    Resource {
        /// Its name.
        name: &'a str,
        /// Whose call it is: the SPIFFE id of the path's first token.
        id: &'a str,
        /// Path ids of who registered that name, if anybody did.
        holder: Option<&'a [String]>,
    },
}

impl fmt::Debug for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection => f.write_str("Connection"),
            Self::Monitor { selected, .. } => f
                .debug_struct("Monitor")
                .field("selected", selected)
                .finish_non_exhaustive(),
            Self::Resource { name, id, holder } => f
                .debug_struct("Resource")
                .field("name", name)
                .field("id", id)
                .field("holder", holder)
                .finish(),
        }
    }
}

/// What policies judge: a call with its path, or the path of an answer.
///
/// A server judges the segments up to and including its own, at `index`; a
/// client all there are, its own being at `index`.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// Position of the own segment.
    pub index: usize,
    /// The hops, first caller first.
    pub segments: Vec<Segment<'a>>,
    /// The other end of the connection.
    pub caller: Caller<'a>,
    /// What the call is about.
    pub about: About<'a>,
}

/// An input whose tokens are taken apart, once for all policies.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    pub(crate) input: &'a Input<'a>,
    pub(crate) tokens: Vec<Option<Token<'a>>>,
    pub(crate) now: SystemTime,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(input: &'a Input<'a>, now: SystemTime) -> Self {
        let decode = |segment: &Segment<'a>| Token::decode(segment.token);
        Self {
            tokens: input.segments.iter().map(decode).collect(),
            input,
            now,
        }
    }

    /// As NSM hands it to a `.rego` policy.
    pub(crate) fn to_json(&self) -> Value {
        let Input {
            index,
            segments,
            caller,
            about,
        } = self.input;
        let segments: Vec<Value> = segments.iter().map(segment).collect();
        let mut json = json!({
            "index": index,
            "path_segments": segments,
            "auth_info": { "certificate": verify::to_pem(caller.certificate) },
        });
        match about {
            About::Connection => {}
            About::Monitor {
                selected,
                by_caller,
                ..
            } => {
                json["selector_connection_ids"] = json!(selected);
                json["service_spiffe_id"] = json!(caller.id);
                json["spiffe_id_connection_map"] = json!(by_caller());
            }
            About::Resource { name, id, holder } => {
                json["resource_name"] = json!(name);
                json["resource_id"] = json!(id);
                let holders = holder.map(|holder| (*name, holder));
                let holders: BTreeMap<_, _> = holders.into_iter().collect();
                json["resource_path_ids_map"] = json!(holders);
            }
        }
        json
    }
}

/// Go leaves empty fields out.
fn segment(segment: &Segment<'_>) -> Value {
    let mut json = json!({});
    let texts = [
        ("name", segment.name),
        ("id", segment.id),
        ("token", segment.token),
    ];
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        json[key] = json!(text);
    }
    if let Some(since) = segment
        .expires
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
    {
        json["expires"] = json!({ "seconds": since.as_secs(), "nanos": since.subsec_nanos() });
    }
    json
}
