//! Connections: the name at once, and for each read.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Name;
use crate::{Error, Transport};

/// Pause after the process ran out of files, so that connections that end can give some back.
const BREATH: Duration = Duration::from_millis(20);

pub(super) async fn serve(
    transport: Transport,
    listener: TcpListener,
    name: Arc<Name>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let address = listener
        .local_addr()
        .unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return Ok(()),
        };
        match accepted {
            Ok((stream, _)) => {
                let (name, stop) = (name.clone(), stop.clone());
                tokio::spawn(async move {
                    let _ = stop.run_until_cancelled(talk(stream, &name)).await;
                });
            }
            Err(error) if is_passing(&error) => tokio::time::sleep(BREATH).await,
            Err(source) => {
                return Err(Error::Serve {
                    address,
                    transport,
                    source,
                });
            }
        }
    }
}

/// A connection that was gone before it was accepted, or no file left for it.
fn is_passing(error: &io::Error) -> bool {
    let files = [
        nix::libc::EMFILE,
        nix::libc::ENFILE,
        nix::libc::ENOBUFS,
        nix::libc::ENOMEM,
    ];
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    ) || error
        .raw_os_error()
        .is_some_and(|code| files.contains(&code))
}

async fn talk(mut stream: TcpStream, name: &Name) -> io::Result<()> {
    let name = name.for_local(|| stream.local_addr().ok().map(|address| address.ip()));
    let _ = stream.set_nodelay(true);
    stream.write_all(name.as_bytes()).await?;
    let mut heard = [0; 256];
    while stream.read(&mut heard).await? > 0 {
        stream.write_all(name.as_bytes()).await?;
    }
    Ok(())
}
