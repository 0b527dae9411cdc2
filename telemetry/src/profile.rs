mod encode;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use pprof::{ProfilerGuard, ProfilerGuardBuilder};
use tokio::net::{TcpListener, lookup_host};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::Error;

/// Samples in a second of CPU time.
const FREQUENCY: i32 = 100;

/// Seconds that are profiled unless the request says otherwise, as in Go.
const SECONDS: u64 = 30;

/// Longest profile; whoever wants more asks again.
const MOST: u64 = 300;

const INDEX: &str = "CPU profiles of this process, in the format of pprof:

  /debug/pprof/profile?seconds=30   what ran in the next 30 seconds (1 to 300)
  /debug/pprof/cmdline              how it was started

go tool pprof http://<this address>/debug/pprof/profile
";

/// Serves CPU profiles where NSM's programs serve Go's (`net/http/pprof`).
///
/// While one is taken the process is interrupted a hundred times in each second
/// that it computes. One is taken at a time. It has no authentication.
#[derive(Debug)]
pub struct Profiles {
    listener: TcpListener,
    address: SocketAddr,
}

impl Profiles {
    /// Listens on `address`, `host:port` or `:port`.
    ///
    /// # Errors
    ///
    /// [`Error::Profiles`] when there is no such host, or its port is taken.
    pub async fn bind(address: &str) -> Result<Self, Error> {
        let failed = |source| Error::Profiles {
            address: address.to_owned(),
            source,
        };
        let full = match address.strip_prefix(':') {
            Some(port) => format!("[::]:{port}"),
            None => address.to_owned(),
        };
        let hosts: Vec<_> = lookup_host(full).await.map_err(failed)?.collect();
        let listener = TcpListener::bind(&hosts[..]).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is cancelled; a profile under way is given up then.
    ///
    /// # Errors
    ///
    /// What the operating system said when the listener broke.
    pub async fn serve(self, stop: CancellationToken) -> std::io::Result<()> {
        let routes = Router::new()
            .route("/debug/pprof/", get(async || INDEX))
            .route("/debug/pprof/cmdline", get(async || command_line()))
            .route("/debug/pprof/profile", get(profile));
        let served = stop.run_until_cancelled(async { axum::serve(self.listener, routes).await });
        served.await.unwrap_or(Ok(()))
    }
}

fn command_line() -> String {
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    words.collect::<Vec<_>>().join("\0")
}

async fn profile(uri: Uri) -> Response {
    let Some(seconds) = seconds(uri.query().unwrap_or_default()) else {
        let said = "seconds must be a whole number from 1 to 300\n";
        return (StatusCode::BAD_REQUEST, said).into_response();
    };
    // Unwinding is unsafe while these hold their locks.
    let guard = ProfilerGuardBuilder::default()
        .frequency(FREQUENCY)
        .blocklist(&["libc", "libgcc", "pthread", "vdso"])
        .build();
    let guard = match guard {
        Ok(guard) => guard,
        Err(error) => {
            let said = format!("cannot profile now: {error}\n");
            return (StatusCode::SERVICE_UNAVAILABLE, said).into_response();
        }
    };
    sleep(Duration::from_secs(seconds)).await;
    // Names are looked up in the executable, which takes a while.
    match tokio::task::spawn_blocking(move || finish(guard)).await {
        Ok(Ok(bytes)) => {
            let file = "attachment; filename=\"profile\"";
            let head = [
                (CONTENT_TYPE, "application/octet-stream"),
                (CONTENT_DISPOSITION, file),
            ];
            (head, bytes).into_response()
        }
        Ok(Err(error)) => {
            warn!(%error, "a profile is lost");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn finish(guard: ProfilerGuard<'static>) -> Result<Vec<u8>, pprof::Error> {
    let report = guard.report().build()?;
    drop(guard);
    Ok(encode::encode(&report))
}

fn seconds(query: &str) -> Option<u64> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    match pairs.find(|(key, _)| *key == "seconds") {
        None => Some(SECONDS),
        Some((_, text)) => text.parse().ok().filter(|s| (1..=MOST).contains(s)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_bounded_and_has_a_default() {
        assert_eq!(seconds(""), Some(30));
        assert_eq!(seconds("debug=1&seconds=5"), Some(5));
        for bad in ["seconds=0", "seconds=301", "seconds=", "seconds=1.5"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
