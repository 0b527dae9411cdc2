//! Sockets that go along with registrations (NSM `registry/common/sendfd`).

use carrick_grpc::{Attachment, Attachments, Url};
use carrick_proto::registry::NetworkServiceEndpoint;
use tracing::debug;

/// The socket of an endpoint, lent for one call.
pub(crate) struct Lent {
    attached: Attachment,
    url: String,
}

impl Lent {
    /// Attaches the socket that `endpoint` listens on, if it is a unix socket
    /// that is there, and names it by its inode: who receives it need not see
    /// its path.
    pub(crate) fn attach(
        on: Option<&Attachments>,
        endpoint: &mut NetworkServiceEndpoint,
    ) -> Option<Self> {
        let Ok(Url::Unix(path)) = endpoint.url.parse() else {
            return None;
        };
        let attached = on?.attach_path(&path);
        let failed = |error: &_| debug!(%error, url = endpoint.url, "the socket does not go along");
        let attached = attached.inspect_err(failed).ok()?;
        let url = std::mem::replace(&mut endpoint.url, attached.url().to_string());
        Some(Self { attached, url })
    }

    /// Names the socket by its path again.
    pub(crate) fn restore(self, answer: &mut NetworkServiceEndpoint) {
        if answer.url == self.attached.url().to_string() {
            answer.url = self.url;
        }
    }
}
