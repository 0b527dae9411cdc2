use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use carrick_types::Invalid;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{self, Channel, Endpoint, Uri};
use tower::service_fn;

/// Where a Workload API is (`SPIFFE_ENDPOINT_SOCKET`; SPIFFE Workload Endpoint §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadEndpoint {
    /// `tcp://127.0.0.1:8081`; the host must be an address.
    Tcp(SocketAddr),
    /// `unix:///run/spire/sockets/agent.sock`.
    Unix(PathBuf),
}

impl WorkloadEndpoint {
    /// The variable's name.
    pub const VARIABLE: &'static str = "SPIFFE_ENDPOINT_SOCKET";

    pub(crate) async fn connect(&self) -> Result<Channel, transport::Error> {
        match self {
            Self::Tcp(address) => {
                let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
                endpoint.connect().await
            }
            Self::Unix(path) => {
                let path = path.clone();
                let connect = service_fn(move |_: Uri| {
                    let path = path.clone();
                    async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
                });
                let endpoint = Endpoint::from_static("http://localhost");
                endpoint.connect_with_connector(connect).await
            }
        }
    }
}

impl FromStr for WorkloadEndpoint {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || {
            let expected = "unix:///absolute/path, or tcp:// with an address and a port";
            Invalid::new(Self::VARIABLE, text, expected)
        };
        match text.split_once(':').ok_or_else(bad)? {
            ("unix", path) => {
                let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
                if path.is_absolute() {
                    Ok(Self::Unix(path))
                } else {
                    Err(bad())
                }
            }
            ("tcp", rest) => {
                let address = rest.strip_prefix("//").and_then(|text| text.parse().ok());
                address.map(Self::Tcp).ok_or_else(bad)
            }
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for WorkloadEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_api_is_a_socket_or_an_address() {
        for text in [
            "unix:///run/agent.sock",
            "tcp://127.0.0.1:8081",
            "tcp://[::1]:1",
        ] {
            assert_eq!(text.parse::<WorkloadEndpoint>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "/run/agent.sock",
            "unix://agent.sock",
            "tcp://localhost:1",
            "http://a",
        ] {
            assert!(text.parse::<WorkloadEndpoint>().is_err(), "{text}");
        }
    }
}
