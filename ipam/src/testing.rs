use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use carrick_grpc::Channel;
use carrick_grpc::{Security, Url, dial, listen};
use carrick_store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Clock;
use crate::server::{Server, ServerOptions};

/// A clock that is moved by hand.
#[derive(Clone, Debug)]
pub(crate) struct HandClock(Arc<Mutex<SystemTime>>);

impl Default for HandClock {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(SystemTime::UNIX_EPOCH)))
    }
}

impl HandClock {
    pub(crate) fn clock(&self) -> Clock {
        let time = Arc::clone(&self.0);
        Arc::new(move || *time.lock().unwrap())
    }

    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

/// A server on a socket of its own, and the way to it.
pub(crate) struct Served {
    pub(crate) server: Server,
    pub(crate) channel: Channel,
    pub(crate) shutdown: CancellationToken,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Served {
    /// Waits for the end of a server that was shut down.
    pub(crate) async fn ended(self) {
        drop((self.server, self.channel));
        self.task.await.unwrap();
    }
}

pub(crate) async fn served(store: &Store, options: ServerOptions) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let url = Url::Unix(directory.path().join("ipam.socket"));
    let (server, task) = serve(store, &url, options.clone()).await;
    Served {
        server,
        channel: dial(&url, &Security::insecure(), Duration::from_secs(5))
            .await
            .unwrap(),
        shutdown: options.shutdown,
        task,
        _directory: directory,
    }
}

/// Serves at `url` until `options.shutdown`.
pub(crate) async fn serve(
    store: &Store,
    url: &Url,
    options: ServerOptions,
) -> (Server, JoinHandle<()>) {
    let listener = listen(url, &Security::insecure()).await.unwrap();
    let shutdown = options.shutdown.clone();
    let server = Server::open(store, options).unwrap();
    let router = tonic::transport::Server::builder()
        .add_service(server.ipam())
        .add_service(server.allocator());
    let task = tokio::spawn(async move {
        router
            .serve_with_incoming_shutdown(listener, shutdown.cancelled_owned())
            .await
            .unwrap();
    });
    (server, task)
}
