use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use carrick_chain::Tokens;
use carrick_spiffe::{NoSvid, Source, WorkloadEndpoint};
use carrick_types::Invalid;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::tls::{Refused, Side};
use crate::token::SvidTokens;
use crate::{TokenOptions, Url, rfc3339};

/// How a program was told to secure its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecuritySettings {
    /// `NSM_INSECURE=true`: plaintext, also over TCP.
    Insecure,
    /// `SPIFFE_ENDPOINT_SOCKET`: mutual TLS on every socket.
    Mutual(WorkloadEndpoint),
    /// Neither: unix sockets alone, whose file mode decides.
    UnixOnly,
}

impl SecuritySettings {
    /// Of the values of `NSM_INSECURE` and `SPIFFE_ENDPOINT_SOCKET`.
    ///
    /// # Errors
    ///
    /// Both are set: neither may override the other silently.
    pub fn new(insecure: bool, workload_api: Option<WorkloadEndpoint>) -> Result<Self, Invalid> {
        match (insecure, workload_api) {
            (true, Some(_)) => {
                let expected =
                    "set together with SPIFFE_ENDPOINT_SOCKET: it is plaintext or mutual TLS";
                Err(Invalid::new("NSM_INSECURE", "true", expected))
            }
            (true, None) => Ok(Self::Insecure),
            (false, Some(endpoint)) => Ok(Self::Mutual(endpoint)),
            (false, None) => Ok(Self::UnixOnly),
        }
    }

    /// Whether TCP may be used.
    #[must_use]
    pub fn allows_tcp(&self) -> bool {
        !matches!(self, Self::UnixOnly)
    }

    /// That a setting asks for plaintext over TCP, which nobody allowed.
    #[must_use]
    pub fn plaintext(variable: &str, url: &Url) -> Invalid {
        let expected = "allowed without SPIFFE_ENDPOINT_SOCKET (mutual TLS) or NSM_INSECURE=true: it would be plaintext over TCP, which must be asked for";
        Invalid::new(variable, url, expected)
    }

    /// That a mesh is to be joined without any security. Within a mesh others
    /// decide who reaches a socket, so its file mode does not protect it.
    #[must_use]
    pub fn unprotected(variable: &str, url: &Url) -> Invalid {
        let expected = "allowed without SPIFFE_ENDPOINT_SOCKET (mutual TLS) or NSM_INSECURE=true: in a mesh connections are secured, or plaintext is asked for";
        Invalid::new(variable, url, expected)
    }
}

/// The text of `SPIFFE_ENDPOINT_SOCKET`; empty is none.
///
/// # Errors
///
/// It names no socket.
pub fn workload_api(text: &str) -> Result<Option<WorkloadEndpoint>, Invalid> {
    Some(text)
        .filter(|text| !text.is_empty())
        .map(str::parse)
        .transpose()
}

/// How the two ends of a connection know each other.
///
/// Every way to listen or to dial asks for one, so that plaintext over a
/// network never happens by leaving something out.
#[derive(Clone, Debug)]
pub struct Security(Mode);

#[derive(Clone, Debug)]
enum Mode {
    Insecure,
    Mutual(Arc<Mtls>),
    UnixOnly,
}

/// What mutual TLS is made of.
#[derive(Debug)]
pub(crate) struct Mtls {
    pub(crate) source: Source,
    pub(crate) tokens: Arc<SvidTokens>,
    pub(crate) refused: Refused,
}

/// How connections are secured now, for people.
#[derive(Clone, Debug, Serialize)]
pub struct SecurityStatus {
    /// `mutual TLS`, `unix sockets` or `INSECURE`.
    pub mode: &'static str,
    /// The own SPIFFE id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When the own certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
    /// Whose identities are believed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trust_domains: Vec<String>,
    /// Where identities come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_api: Option<String>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

impl Security {
    /// As it was told; with mutual TLS, begins to follow the Workload API,
    /// for which it needs a tokio runtime, and signs path tokens as `tokens` says.
    #[must_use]
    pub fn new(settings: &SecuritySettings, tokens: &TokenOptions) -> Self {
        match settings {
            SecuritySettings::Insecure => Self::insecure(),
            SecuritySettings::Mutual(endpoint) => {
                Self::mutual_tls(Source::follow(endpoint.clone()), tokens)
            }
            SecuritySettings::UnixOnly => Self::unix_only(),
        }
    }

    /// No encryption and no identity: who reaches the socket is let in. For
    /// unix sockets, whose file mode decides, and for trusted networks.
    #[must_use]
    pub fn insecure() -> Self {
        Self(Mode::Insecure)
    }

    /// Mutual TLS on unix sockets as on TCP, with the identities of `source`
    /// (NSM's default). Who has an identity of a trust domain that is believed
    /// is let in; what they may do is decided by their path tokens.
    #[must_use]
    pub fn mutual_tls(source: Source, tokens: &TokenOptions) -> Self {
        let tokens = Arc::new(SvidTokens::new(source.clone(), tokens.clone()));
        Self(Mode::Mutual(Arc::new(Mtls {
            source,
            tokens,
            refused: Refused::default(),
        })))
    }

    /// Unix sockets alone, whose file mode decides who is let in; TCP is
    /// neither listened on nor dialled, whoever names such a URL.
    #[must_use]
    pub fn unix_only() -> Self {
        Self(Mode::UnixOnly)
    }

    /// Whether connections are plaintext wherever they lead.
    #[must_use]
    pub fn is_insecure(&self) -> bool {
        matches!(self.0, Mode::Insecure)
    }

    /// Path tokens of the own identity, where there is mutual TLS.
    #[must_use]
    pub fn tokens(&self) -> Option<Arc<dyn Tokens>> {
        let mutual = self.mutual()?;
        Some(Arc::clone(&mutual.tokens) as Arc<dyn Tokens>)
    }

    /// Where the identity comes from, where there is mutual TLS.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        Some(self.mutual()?.source.clone())
    }

    /// Calls `tell` whenever the own identity becomes usable or stops to be so,
    /// and once at the beginning; never without mutual TLS. Does not return.
    pub async fn tell_usable(self, tell: impl FnMut(Result<(), NoSvid>)) {
        match self.source() {
            Some(source) => source.tell_usable(tell).await,
            None => std::future::pending().await,
        }
    }

    /// Registers what is counted of connections: `refused_handshakes`, those
    /// that did not become mutual TLS, by our `side`. Without mutual TLS, and
    /// until the first, it is 0. To be called once for each registry.
    pub fn register(&self, section: &mut Registry) {
        let refused = self.mutual().map(|mtls| mtls.refused.clone());
        let refused = refused.unwrap_or_default();
        for side in [Side::CLIENT, Side::SERVER] {
            drop(refused.get_or_create(&side));
        }
        let help = "Handshakes that did not become mutual TLS";
        section.register("refused_handshakes", help, refused);
    }

    /// How it stands now.
    #[must_use]
    pub fn status(&self) -> SecurityStatus {
        let mode = match self.0 {
            Mode::Insecure => "INSECURE",
            Mode::Mutual(_) => "mutual TLS",
            Mode::UnixOnly => "unix sockets",
        };
        let mut status = SecurityStatus {
            mode,
            id: None,
            valid_until: None,
            trust_domains: Vec::new(),
            workload_api: None,
            fault: None,
        };
        let Some(source) = self.source() else {
            return status;
        };
        status.workload_api = Some(source.endpoint().to_string());
        status.fault = source.fault();
        match source.current() {
            Ok(context) => {
                let until: SystemTime = context.svid().not_after();
                status.id = Some(context.svid().id().to_string());
                status.valid_until = Some(rfc3339(until));
                let domains = context.verifier().trust_domains();
                status.trust_domains = domains.map(str::to_owned).collect();
            }
            Err(none) => status.fault = Some(none.to_string()),
        }
        status
    }

    pub(crate) fn mutual(&self) -> Option<Arc<Mtls>> {
        match &self.0 {
            Mode::Mutual(mtls) => Some(Arc::clone(mtls)),
            Mode::Insecure | Mode::UnixOnly => None,
        }
    }

    /// Whether `url` may be listened on and dialled.
    pub(crate) fn allows(&self, url: &Url) -> bool {
        !matches!((&self.0, url), (Mode::UnixOnly, Url::Tcp { .. }))
    }
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status().mode)
    }
}
