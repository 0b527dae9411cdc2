use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use carrick_types::{Connection, ConnectionId, Token};
use futures::future::BoxFuture;

use super::Handle;

/// Whatever went wrong behind one of the traits here.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Where path tokens come from (NSM `token.GeneratorFunc`).
pub trait Tokens: Send + Sync + 'static {
    /// Makes a token for `audience`, the identity of the next hop where it is known.
    ///
    /// # Errors
    ///
    /// There is no identity to sign with, for now.
    fn token(&self, audience: Option<&str>) -> Result<Token, BoxError>;
}

impl<T: Tokens + ?Sized> Tokens for Arc<T> {
    fn token(&self, audience: Option<&str>) -> Result<Token, BoxError> {
        (**self).token(audience)
    }
}

/// Keeps last answers over a restart.
pub trait Journal: Send + Sync + 'static {
    /// Keeps an answer; it must be durable when this returns, since the client
    /// is told after that.
    fn put(&self, connection: &Connection) -> BoxFuture<'_, Result<(), BoxError>>;

    /// Forgets a connection that is closed; durable when the future has ended.
    /// What has begun with the call may happen without it: where the Close
    /// fails, the future is dropped and [`Journal::put`] comes, which must win.
    fn remove(&self, id: &ConnectionId) -> BoxFuture<'_, Result<(), BoxError>>;
}

/// Whether an answer is no longer right, as what it depends on has changed.
pub type IsStale = Arc<dyn Fn(&Connection) -> bool + Send + Sync>;

/// What an [`Endpoint`](super::Endpoint) needs besides its chain.
#[derive(Clone)]
pub struct EndpointOptions {
    pub(super) name: String,
    pub(super) tokens: Arc<dyn Tokens>,
    pub(super) max_connections: usize,
    pub(super) journal: Option<Arc<dyn Journal>>,
    pub(super) handle: Handle,
    pub(super) is_stale: Option<IsStale>,
    pub(super) knows_callers: bool,
}

impl fmt::Debug for EndpointOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointOptions")
            .field("name", &self.name)
            .field("max_connections", &self.max_connections)
            .field("journal", &self.journal.is_some())
            .finish_non_exhaustive()
    }
}

impl EndpointOptions {
    /// Connections that are served at a time unless said otherwise.
    pub const MAX_CONNECTIONS: usize = 65_536;

    /// Options of the endpoint `name`, which is also its name in the registry
    /// and in the path, with path tokens from `tokens`.
    #[must_use]
    pub fn new(name: impl Into<String>, tokens: impl Tokens) -> Self {
        Self {
            name: name.into(),
            tokens: Arc::new(tokens),
            max_connections: Self::MAX_CONNECTIONS,
            journal: None,
            handle: Handle::default(),
            is_stale: None,
            knows_callers: false,
        }
    }

    /// Knows a caller again that does not say its connection's id here, as it
    /// forgot it in a restart: under its own segment it has a connection
    /// already. NSM gives it a new one, which is right where a forwarder takes
    /// the old link away; who makes the links itself would find the client's
    /// interface taken by the connection that was forgotten.
    #[must_use]
    pub fn know_callers(mut self) -> Self {
        self.knows_callers = true;
        self
    }

    /// Looks at each answer once it is told to monitors; the client of one that
    /// is stale by then is asked for a refresh. Whoever changes what answers
    /// depend on changes it first and calls
    /// [`Endpoint::ask_refresh`](super::Endpoint::ask_refresh) then: a Request
    /// that is served meanwhile is caught by the one or by the other.
    #[must_use]
    pub fn is_stale(mut self, is_stale: IsStale) -> Self {
        self.is_stale = Some(is_stale);
        self
    }

    /// Most connections at a time, those being closed included. What was
    /// restored is not refused.
    #[must_use]
    pub fn max_connections(mut self, max: usize) -> Self {
        self.max_connections = max;
        self
    }

    /// Keeps last answers over a restart.
    #[must_use]
    pub fn journal(mut self, journal: impl Journal) -> Self {
        self.journal = Some(Arc::new(journal));
        self
    }

    /// Binds `handle`, of which elements of the chain may hold clones, to the
    /// endpoint that is made of these options.
    #[must_use]
    pub fn handle(mut self, handle: &Handle) -> Self {
        self.handle = handle.clone();
        self
    }
}

/// Time a chain has to take one connection up again.
pub(super) const RESTORE_TIMEOUT: Duration = Duration::from_secs(15);

/// A new connection id (NSM: a random UUID).
pub(crate) fn new_id() -> ConnectionId {
    ConnectionId::new(uuid::Uuid::new_v4().to_string()).expect("a UUID is a valid id")
}
