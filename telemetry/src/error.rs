use std::path::PathBuf;

use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::error::OTelSdkError;

use crate::Address;

/// Why telemetry could not be set up, served or sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The admin listener could not be opened.
    #[error("cannot listen on {address} for the admin requests")]
    Bind {
        /// Where it was to listen.
        address: Address,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },

    /// The collector's address cannot be used.
    #[error(
        "the collector's endpoint {endpoint:?} is not of the form `host:port` or `http://host:port`"
    )]
    Endpoint {
        /// What was given.
        endpoint: String,
    },

    /// The exporter of traces could not be built.
    #[error("cannot export traces to {endpoint}")]
    Exporter {
        /// Where they were to go.
        endpoint: String,
        /// What the exporter said.
        #[source]
        source: ExporterBuildError,
    },

    /// The last spans did not reach the collector.
    #[error("the last traces were not delivered")]
    Flush(#[source] OTelSdkError),

    /// Logs are set up already in this process.
    #[error("another part of the process has set up the logs already")]
    Installed(#[source] tracing::subscriber::SetGlobalDefaultError),

    /// Profiles cannot be served.
    #[error("cannot serve profiles on {address}")]
    Profiles {
        /// Where they were to be served.
        address: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },

    /// A handler for SIGUSR1 or SIGUSR2 was refused.
    #[error("cannot handle the signals that change the log level")]
    Signals(#[source] std::io::Error),

    /// Another process answers on the admin socket.
    #[error(
        "another process answers on the admin socket {}; stop it or choose another path",
        path.display()
    )]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
}
