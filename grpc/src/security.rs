use crate::Url;

/// How the two ends of a connection know each other.
///
/// Every way to listen or to dial asks for one, so that plaintext over a
/// network never happens by leaving something out. Mutual TLS with SPIFFE
/// identities (NSM's default) is not among them yet.
#[derive(Clone, Debug)]
pub struct Security(Mode);

#[derive(Clone, Debug)]
enum Mode {
    Insecure,
    UnixOnly,
}

impl Security {
    /// No encryption and no identity: who reaches the socket is let in. For
    /// unix sockets, whose file mode decides, and for trusted networks.
    #[must_use]
    pub fn insecure() -> Self {
        Self(Mode::Insecure)
    }

    /// Unix sockets alone, whose file mode decides who is let in; TCP is
    /// neither listened on nor dialled, whoever names such a URL.
    #[must_use]
    pub fn unix_only() -> Self {
        Self(Mode::UnixOnly)
    }

    /// [`Security::insecure`] where that is asked for, else [`Security::unix_only`].
    #[must_use]
    pub fn plaintext(insecure: bool) -> Self {
        if insecure {
            Self::insecure()
        } else {
            Self::unix_only()
        }
    }

    /// Whether connections over TCP are plaintext.
    #[must_use]
    pub fn is_insecure(&self) -> bool {
        matches!(self.0, Mode::Insecure)
    }

    /// Whether `url` may be listened on and dialled.
    pub(crate) fn allows(&self, url: &Url) -> bool {
        self.is_insecure() || !matches!(url, Url::Tcp { .. })
    }
}
