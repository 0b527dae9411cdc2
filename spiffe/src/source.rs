use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use carrick_proto::spiffe::X509svidRequest;
use carrick_proto::spiffe::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status, transport};
use tracing::{info, warn};

use crate::{ContextError, WorkloadEndpoint, X509Context};

/// Longest answer that is taken, in bytes: hundreds of federated bundles.
const ANSWER_MAX: usize = 4 << 20;

/// Time for the first answer on a new connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// There is no identity that could be used now.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoSvid {
    /// The last one ended and no other came.
    #[error("the X.509-SVID of {id} ended {} s ago and {endpoint} gave no other", .ago.as_secs())]
    Expired {
        /// Whose it was.
        id: String,
        /// How long ago.
        ago: Duration,
        /// Where others come from.
        endpoint: String,
    },
    /// None came yet.
    #[error("no X.509-SVID has come from {0} yet")]
    None(String),
}

/// Why the Workload API gives nothing now.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("it cannot be connected to")]
    Connect(#[source] transport::Error),
    #[error("its answer cannot be used")]
    Context(#[from] ContextError),
    #[error("it gave no answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("it ended the stream")]
    Ended,
    #[error("it refused")]
    Refused(#[source] Box<Status>),
}

#[derive(Clone, Debug, Default)]
struct State {
    context: Option<Arc<X509Context>>,
    /// Why there will be no news; `None` while the stream is open.
    fault: Option<String>,
}

/// Follows a Workload API: what it gave last holds until it gives something
/// else or ends. Cheap to clone; when the last clone is dropped nobody follows.
///
/// It may come late or go away: each time that is logged once, and it is tried
/// again for as long as it takes.
#[derive(Clone)]
pub struct Source {
    endpoint: WorkloadEndpoint,
    state: watch::Receiver<State>,
}

impl Source {
    /// Starts to follow. Needs a tokio runtime; does not wait for anything.
    #[must_use]
    pub fn follow(endpoint: WorkloadEndpoint) -> Self {
        let (sender, state) = watch::channel(State::default());
        let follower = Follower {
            endpoint: endpoint.clone(),
            sender,
            told: false,
        };
        tokio::spawn(follower.run());
        Self { endpoint, state }
    }

    /// Where the Workload API is.
    #[must_use]
    pub fn endpoint(&self) -> &WorkloadEndpoint {
        &self.endpoint
    }

    /// What holds now.
    ///
    /// # Errors
    ///
    /// There is no identity, or it has ended.
    pub fn current(&self) -> Result<Arc<X509Context>, NoSvid> {
        usable(&self.endpoint, self.state.borrow().context.clone())
    }

    /// Waits for an identity that can be used; for ever, if none comes.
    pub async fn ready(&self) -> Arc<X509Context> {
        let mut state = self.state.clone();
        loop {
            let context = state.borrow_and_update().context.clone();
            if let Ok(context) = usable(&self.endpoint, context) {
                return context;
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until something else holds than at the last call; the first call
    /// of a clone may return at once.
    pub async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Why the Workload API gives no news now, if it does not.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.state.borrow().fault.clone()
    }

    /// Calls `tell` whenever the identity becomes usable or stops to be so,
    /// also by its end alone; once at the beginning. Does not return.
    pub async fn tell_usable(mut self, mut tell: impl FnMut(Result<(), NoSvid>)) {
        let mut told = None;
        loop {
            let now = self.current();
            if told.replace(now.is_ok()) != Some(now.is_ok()) {
                tell(now.as_ref().map(|_| ()).map_err(Clone::clone));
            }
            let end = match &now {
                Ok(context) => until(context.svid().not_after()),
                Err(_) => Duration::from_secs(3600),
            };
            tokio::select! {
                () = self.changed() => {}
                // Clocks are set: looked at once a minute at least.
                () = sleep(end.clamp(Duration::from_millis(100), Duration::from_secs(60))) => {}
            }
        }
    }
}

fn until(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::now()).unwrap_or_default()
}

fn usable(
    endpoint: &WorkloadEndpoint,
    context: Option<Arc<X509Context>>,
) -> Result<Arc<X509Context>, NoSvid> {
    let context = context.ok_or_else(|| NoSvid::None(endpoint.to_string()))?;
    match SystemTime::now().duration_since(context.svid().not_after()) {
        Ok(ago) => Err(NoSvid::Expired {
            id: context.svid().id().to_string(),
            ago,
            endpoint: endpoint.to_string(),
        }),
        Err(_) => Ok(context),
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

struct Follower {
    endpoint: WorkloadEndpoint,
    sender: watch::Sender<State>,
    /// Whether it was said that the Workload API gives nothing.
    told: bool,
}

impl Follower {
    const PAUSE: Duration = Duration::from_millis(100);
    const PAUSE_MAX: Duration = Duration::from_secs(2);

    async fn run(mut self) {
        let closed = self.sender.clone();
        tokio::select! {
            () = closed.closed() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        let mut pause = Self::PAUSE;
        loop {
            let (news, fault) = self.once().await;
            if news {
                pause = Self::PAUSE;
            }
            self.tell(&fault);
            sleep(pause).await;
            pause = (pause * 2).min(Self::PAUSE_MAX);
        }
    }

    fn tell(&mut self, fault: &Fault) {
        let mut text = fault.to_string();
        let mut cause = std::error::Error::source(fault);
        while let Some(error) = cause {
            text = text + ": " + &error.to_string();
            cause = error.source();
        }
        if !std::mem::replace(&mut self.told, true) {
            warn!(
                endpoint = %self.endpoint,
                fault = text,
                "the SPIFFE Workload API gives no identity, trying on; what it gave before holds until it ends"
            );
        }
        let same = self.sender.borrow().fault.as_ref() == Some(&text);
        if !same {
            self.sender.send_modify(|state| state.fault = Some(text));
        }
    }

    /// One connection; whether it brought anything, and why it ended.
    async fn once(&mut self) -> (bool, Fault) {
        let mut news = false;
        let ended = self.stream(&mut news).await;
        (news, ended.err().unwrap_or(Fault::Ended))
    }

    async fn stream(&mut self, news: &mut bool) -> Result<(), Fault> {
        let refused = |status| Fault::Refused(Box::new(status));
        let first = async {
            let channel = self.endpoint.connect().await.map_err(Fault::Connect)?;
            let mut client =
                SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(ANSWER_MAX);
            let mut request = Request::new(X509svidRequest {});
            // Who is made to call by a stranger does not send it (SPIFFE Workload Endpoint §5).
            let metadata = request.metadata_mut();
            metadata.insert("workload.spiffe.io", MetadataValue::from_static("true"));
            let answer = client.fetch_x509svid(request).await.map_err(refused)?;
            let mut stream = answer.into_inner();
            let first = stream.message().await.map_err(refused)?;
            Ok::<_, Fault>((first, stream))
        };
        let first = tokio::time::timeout(PATIENCE, first).await;
        let (mut answer, mut stream) = first.map_err(|_| Fault::Late)??;
        while let Some(given) = answer {
            let context = X509Context::read(&given)?;
            *news = true;
            self.take(context);
            answer = stream.message().await.map_err(refused)?;
        }
        Ok(())
    }

    fn take(&mut self, context: X509Context) {
        let svid = context.svid();
        let domains: Vec<_> = context.verifier().trust_domains().collect();
        info!(
            id = %svid.id(),
            valid_s = until(svid.not_after()).as_secs(),
            trust_domains = ?domains,
            "has an X.509-SVID"
        );
        self.told = false;
        self.sender.send_replace(State {
            context: Some(Arc::new(context)),
            fault: None,
        });
    }
}
