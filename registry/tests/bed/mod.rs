//! A registry and its clients in one process, over pipes, so that paused time
//! works and the transport can be cut.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carrick_registry::{
    Client, ClientOptions, Endpoint, EndpointWatch, Event, Server, ServerOptions,
};
use carrick_types::{EndpointName, ServiceName};
use hyper_util::rt::TokioIo;
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Uri};

const PIPE: usize = 64 << 10;

/// A place where a registry may be reached.
pub(crate) struct Bed {
    pub(crate) server: Option<Server>,
    line: Arc<Mutex<Line>>,
}

/// Where connections go, and those there are.
#[derive(Default)]
struct Line {
    server: Option<mpsc::Sender<DuplexStream>>,
    relays: JoinSet<()>,
}

impl Bed {
    pub(crate) fn start(options: ServerOptions) -> Self {
        let mut bed = Self {
            server: None,
            line: Arc::default(),
        };
        bed.restart(options);
        bed
    }

    pub(crate) fn restart(&mut self, options: ServerOptions) {
        let server = Server::start(options).expect("a readable store");
        let (sender, incoming) = mpsc::channel(16);
        let incoming = ReceiverStream::new(incoming).map(Ok::<_, io::Error>);
        let serving = tonic::transport::Server::builder().add_routes(server.routes());
        tokio::spawn(serving.serve_with_incoming(incoming));
        self.line.lock().expect("no panic under the lock").server = Some(sender);
        self.server = Some(server);
    }

    /// Ends the server and every connection to it, without a word.
    pub(crate) fn kill(&mut self) {
        let mut line = self.line.lock().expect("no panic under the lock");
        line.server = None;
        line.relays = JoinSet::new();
        self.server = None;
    }

    pub(crate) fn channel(&self) -> Channel {
        let line = self.line.clone();
        let connect = move |_: Uri| {
            let line = line.clone();
            async move { Self::connect(&line).map(TokioIo::new) }
        };
        Channel::from_static("http://registry")
            .connect_with_connector_lazy(tower::service_fn(connect))
    }

    fn connect(line: &Mutex<Line>) -> io::Result<DuplexStream> {
        let mut line = line.lock().expect("no panic under the lock");
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let server = line.server.clone().ok_or_else(refused)?;
        let (client, mut near) = duplex(PIPE);
        let (mut far, other_end) = duplex(PIPE);
        server.try_send(other_end).map_err(|_| refused())?;
        line.relays.spawn(async move {
            let _ = copy_bidirectional(&mut near, &mut far).await;
        });
        Ok(client)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.channel(), ClientOptions::default())
    }
}

pub(crate) fn name(text: &str) -> EndpointName {
    EndpointName::new(text).expect("a name")
}

pub(crate) fn service(text: &str) -> ServiceName {
    ServiceName::new(text).expect("a name")
}

/// An endpoint of the service `vl3`.
pub(crate) fn endpoint(text: &str) -> Endpoint {
    Endpoint {
        url: Some(format!("tcp://{text}:5003")),
        ..Endpoint::new(name(text), [service("vl3")])
    }
}

/// The next event, in words; how often the registry was asked in vain in
/// between is a matter of timing.
pub(crate) async fn next(watch: &mut EndpointWatch) -> String {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(600), watch.recv()).await;
        return match event.expect("an event") {
            Event::Updated(endpoint) => format!("+{}", endpoint.name),
            Event::Deleted(name) => format!("-{name}"),
            Event::Failed => continue,
            Event::Synced => "synced".into(),
        };
    }
}

/// All events up to the next that is `last`.
pub(crate) async fn until(watch: &mut EndpointWatch, last: &str) -> Vec<String> {
    let mut events = vec![next(watch).await];
    while events.last().is_some_and(|event| event != last) {
        events.push(next(watch).await);
    }
    events
}
