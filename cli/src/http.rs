//! One HTTP GET, over whatever the bytes go.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// Longest body that is read.
const BODY_MAX: usize = 64 << 20;

/// Asks for `path` over `io`.
pub(crate) async fn get<I>(io: I, host: &str, path: &str) -> Result<(StatusCode, Bytes)>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    let request = Request::get(path)
        .header("host", host)
        .body(Empty::<Bytes>::new())?;
    // Dropping the sender at its end is what ends the connection.
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
        Ok((status, body.map_err(io::Error::other)?.to_bytes()))
    };
    let (response, _) = tokio::join!(biased; exchange, connection);
    response
}

/// Asks for `path` at a program's admin socket.
pub(crate) async fn get_unix(socket: &Path, path: &str) -> Result<(StatusCode, Bytes)> {
    let io = UnixStream::connect(socket)
        .await
        .with_context(|| format!("nothing listens on {}", socket.display()))?;
    get(io, "carrick", path).await
}
