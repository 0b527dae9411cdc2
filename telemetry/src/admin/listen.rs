use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::Router;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::Address;
use crate::Error;

/// An admin listener that is open, but does not answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    address: Address,
    routes: Router,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    pub(super) async fn new(routes: Router, address: &Address) -> Result<Self, Error> {
        let (listener, address) = match address {
            Address::Tcp(wanted) => {
                let listener = TcpListener::bind(wanted)
                    .await
                    .map_err(|e| failed(address, e))?;
                let found = listener.local_addr().map_err(|e| failed(address, e))?;
                (Listener::Tcp(listener), Address::Tcp(found))
            }
            Address::Unix(path) => {
                clear(path).await?;
                let listener = unix(path).map_err(|e| failed(address, e))?;
                (Listener::Unix(listener), address.clone())
            }
        };
        Ok(Self {
            listener,
            address,
            routes,
        })
    }

    /// Where it listens, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Answers until `stop` is cancelled and the requests under way are answered,
    /// then removes the socket.
    ///
    /// # Errors
    ///
    /// What the operating system said when the listener broke.
    pub async fn serve(self, stop: CancellationToken) -> io::Result<()> {
        let stopped = stop.cancelled_owned();
        match self.listener {
            Listener::Tcp(listener) => {
                axum::serve(listener, self.routes)
                    .with_graceful_shutdown(stopped)
                    .await?;
            }
            Listener::Unix(listener) => {
                axum::serve(listener, self.routes)
                    .with_graceful_shutdown(stopped)
                    .await?;
            }
        }
        if let Address::Unix(path) = &self.address {
            tokio::fs::remove_file(path).await?;
        }
        Ok(())
    }
}

fn unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Removes a socket on which nobody answers: its process was killed.
async fn clear(path: &Path) -> Result<(), Error> {
    match UnixStream::connect(path).await {
        Ok(_) => Err(Error::SocketInUse {
            path: path.to_owned(),
        }),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
            std::fs::remove_file(path).map_err(|e| failed(&Address::Unix(path.to_owned()), e))
        }
        // Whatever else is wrong, binding says it.
        Err(_) => Ok(()),
    }
}

/// Connecting to an ordinary file is refused as well, and that must stay.
fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.symlink_metadata()
        .is_ok_and(|m| m.file_type().is_socket())
}

fn failed(address: &Address, source: io::Error) -> Error {
    Error::Bind {
        address: address.clone(),
        source,
    }
}
