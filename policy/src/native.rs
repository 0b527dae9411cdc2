use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::input::{About, Prepared};
use crate::token::Token;
use crate::verify::{Checked, Distrusted};

/// With what the paths of NSM's own policies begin.
pub(crate) const FOLDER: &str = "etc/nsm/opa/";
pub(crate) const EXTENSION: &str = ".rego";

/// A policy of NSM (`pkg/tools/opa/policies`), known by the path of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Native {
    /// `registry/client_allowed`: a name is its first registrant's.
    ClientAllowed,
    /// `client/next_token_signed`: the server signed the token of the segment
    /// behind ours, and it is of the identity in the server's certificate.
    NextTokenSigned,
    /// `server/prev_token_signed`: the caller signed the token of the segment
    /// before ours, and it is of the identity in the caller's certificate.
    ///
    /// NSM compares no identities here, so that a caller could sign with its
    /// own key that it is another.
    PrevTokenSigned,
    /// `monitor/service_connection`: a caller follows only what it requested.
    ServiceConnection,
    /// `common/tokens_chained`: each token was made for whom the next one is of.
    TokensChained,
    /// `common/tokens_expired`: no token has ended.
    TokensExpired,
    /// `common/tokens_valid`: each token is a JWT.
    TokensValid,
}

/// Why a call may not be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    #[error("the token of segment {segment} ended {} s ago", .ago.as_secs())]
    Expired { segment: usize, ago: Duration },
    #[error("{name} is registered by {holder}, and {asking} asks")]
    Held {
        name: String,
        holder: String,
        asking: String,
    },
    #[error("the token of segment {0} does not say when it ends")]
    NoEnd(usize),
    #[error("none of the connections that are named was requested by {0}")]
    NotCallers(String),
    #[error("the token of segment {segment} was not made for {}, which is the next hop", .next.as_deref().unwrap_or("nobody"))]
    NotFor {
        segment: usize,
        next: Option<String>,
    },
    #[error("the path has no segment of the hop that is connected")]
    NoSegment,
    #[error("the token of segment {0} is no JWT")]
    NoToken(usize),
    #[error("the token of segment {segment} is of {}, and the certificate of {certificate}", .token.as_deref().unwrap_or("nobody"))]
    OtherSubject {
        segment: usize,
        token: Option<String>,
        certificate: String,
    },
    #[error("the file could not be evaluated")]
    Rego(#[source] crate::RegoError),
    #[error("the file says so")]
    RegoSaysNo,
    #[error("the token of segment {segment} is not to be trusted")]
    Signature {
        segment: usize,
        #[source]
        why: Distrusted,
    },
}

// === impl Native ===

impl Native {
    /// All of them, by path.
    pub const ALL: [Self; 7] = [
        Self::NextTokenSigned,
        Self::TokensChained,
        Self::TokensExpired,
        Self::TokensValid,
        Self::ServiceConnection,
        Self::ClientAllowed,
        Self::PrevTokenSigned,
    ];

    /// The path of NSM's file.
    #[must_use]
    pub fn path(self) -> String {
        format!("{FOLDER}{}{EXTENSION}", self.name())
    }

    /// The path without what all have in common.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientAllowed => "registry/client_allowed",
            Self::NextTokenSigned => "client/next_token_signed",
            Self::PrevTokenSigned => "server/prev_token_signed",
            Self::ServiceConnection => "monitor/service_connection",
            Self::TokensChained => "common/tokens_chained",
            Self::TokensExpired => "common/tokens_expired",
            Self::TokensValid => "common/tokens_valid",
        }
    }

    pub(crate) fn check(self, prepared: &Prepared<'_>, checked: &Checked) -> Result<(), Reason> {
        let index = prepared.input.index;
        match self {
            Self::ClientAllowed => prepared.client_allowed(),
            Self::NextTokenSigned => prepared.signed_by_peer(index.checked_add(1), checked),
            Self::PrevTokenSigned => prepared.signed_by_peer(index.checked_sub(1), checked),
            Self::ServiceConnection => prepared.service_connection(),
            Self::TokensChained => prepared.tokens_chained(),
            Self::TokensExpired => prepared.tokens_expired(),
            Self::TokensValid => prepared.tokens().try_for_each(|token| token.map(drop)),
        }
    }
}

// === impl Prepared: the rules ===

impl Prepared<'_> {
    /// The tokens, each of which must be one.
    fn tokens(&self) -> impl Iterator<Item = Result<(usize, &Token<'_>), Reason>> {
        let tokens = self.tokens.iter().enumerate();
        tokens.map(|(at, token)| Ok((at, token.as_ref().ok_or(Reason::NoToken(at))?)))
    }

    fn tokens_expired(&self) -> Result<(), Reason> {
        let now = self.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        for token in self.tokens() {
            let (segment, token) = token?;
            let end = token.end().ok_or(Reason::NoEnd(segment))?;
            let ago = now.as_secs_f64() - end;
            if ago >= 0.0 {
                let ago = Duration::try_from_secs_f64(ago).unwrap_or(now);
                return Err(Reason::Expired { segment, ago });
            }
        }
        Ok(())
    }

    fn tokens_chained(&self) -> Result<(), Reason> {
        for (segment, pair) in self.tokens.windows(2).enumerate() {
            let [token, next] = pair else { continue };
            let token = token.as_ref().ok_or(Reason::NoToken(segment))?;
            let next = next.as_ref().ok_or(Reason::NoToken(segment + 1))?;
            let next = next.subject();
            if !next.is_some_and(|next| token.is_for(next)) {
                let next = next.map(str::to_owned);
                return Err(Reason::NotFor { segment, next });
            }
        }
        Ok(())
    }

    fn signed_by_peer(&self, segment: Option<usize>, checked: &Checked) -> Result<(), Reason> {
        let segment = segment.ok_or(Reason::NoSegment)?;
        let text = self.input.segments.get(segment).ok_or(Reason::NoSegment)?;
        let token = self.tokens.get(segment).and_then(Option::as_ref);
        let token = token.ok_or(Reason::NoToken(segment))?;
        let caller = self.input.caller;
        checked
            .verify(text.token, token, caller.certificate)
            .map_err(|why| Reason::Signature { segment, why })?;
        if token.subject() != Some(caller.id) {
            return Err(Reason::OtherSubject {
                segment,
                token: token.subject().map(str::to_owned),
                certificate: caller.id.to_owned(),
            });
        }
        Ok(())
    }

    fn client_allowed(&self) -> Result<(), Reason> {
        let About::Resource { name, id, holder } = self.input.about else {
            return Ok(());
        };
        let Some(holder) = holder else { return Ok(()) };
        let holder = holder.first().map(String::as_str);
        if holder == Some(id) {
            return Ok(());
        }
        Err(Reason::Held {
            name: name.to_owned(),
            holder: holder.unwrap_or("somebody unknown").to_owned(),
            asking: id.to_owned(),
        })
    }

    fn service_connection(&self) -> Result<(), Reason> {
        let caller = self.input.caller.id;
        let owns = match self.input.about {
            About::Monitor {
                selected,
                is_callers,
                ..
            } => selected.iter().any(|id| !id.is_empty() && is_callers(id)),
            _ => false,
        };
        owns.then_some(())
            .ok_or_else(|| Reason::NotCallers(caller.to_owned()))
    }
}

/// Nanoseconds since 1970, as policies in Rego count.
pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
