//! The identities of servers and load generator, for mutual TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use carrick_grpc::Security;

/// How both ends know each other.
#[derive(Clone)]
pub(crate) struct Identities {
    security: Security,
    /// The Workload API's socket, and what keeps it there.
    api: Option<(PathBuf, Arc<dyn Send + Sync>)>,
}

impl Identities {
    /// Plaintext.
    pub(crate) fn none() -> Self {
        Self {
            security: Security::insecure(),
            api: None,
        }
    }

    /// An authority, and a Workload API that gives everybody the same identity.
    #[cfg(feature = "mtls")]
    pub(crate) async fn mutual_tls() -> Result<Self> {
        use carrick_spiffe::WorkloadEndpoint;
        use carrick_spiffe::testing::{Authority, WorkloadApi};

        let api = WorkloadApi::start(Authority::new("bench.test").answer("bench", &[]));
        let WorkloadEndpoint::Unix(socket) = api.endpoint() else {
            anyhow::bail!("the Workload API is on no unix socket");
        };
        let source = api.follow();
        source.ready().await;
        Ok(Self {
            security: Security::mutual_tls(source, &carrick_grpc::TokenOptions::default()),
            api: Some((socket, Arc::new(api))),
        })
    }

    /// Without the feature there is no authority.
    #[cfg(not(feature = "mtls"))]
    #[expect(clippy::unused_async, reason = "as with the feature")]
    pub(crate) async fn mutual_tls() -> Result<Self> {
        anyhow::bail!("--mtls: build with `--features mtls`")
    }

    pub(crate) fn security(&self) -> &Security {
        &self.security
    }

    /// Where servers get their identity.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.api.as_ref().map(|(socket, _)| socket.as_path())
    }
}
