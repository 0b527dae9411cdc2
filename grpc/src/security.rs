/// How the two ends of a connection know each other.
///
/// Every way to listen or to dial asks for one, so that plaintext never happens
/// by leaving something out. [`Security::insecure`] is the only way so far; the
/// other will be mutual TLS with SPIFFE identities (NSM's default).
#[derive(Clone, Debug)]
pub struct Security(Mode);

#[derive(Clone, Debug)]
enum Mode {
    Insecure,
}

impl Security {
    /// No encryption and no identity: who reaches the socket is let in. For
    /// unix sockets, whose file mode decides, and for trusted networks.
    #[must_use]
    pub fn insecure() -> Self {
        Self(Mode::Insecure)
    }

    /// Whether connections are plaintext.
    #[must_use]
    pub fn is_insecure(&self) -> bool {
        matches!(self.0, Mode::Insecure)
    }
}
