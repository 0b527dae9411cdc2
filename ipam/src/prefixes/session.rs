use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use carrick_grpc::trace;
use carrick_proto::ipam::ipam_client::IpamClient;
use carrick_proto::ipam::{PrefixRequest, PrefixResponse, Type};
use carrick_types::{Invalid, IpFamily, Prefix};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};
use tracing::{Instrument, Span, debug, debug_span, info, info_span, warn};

use super::client::{Asked, PrefixServer, Shared, StoredPrefix, key};
use super::{Further, Grant};
use crate::server::{LEASE_HEADER, OWNER_HEADER};

/// Requests that may wait to be sent: one is under way at a time, and at the
/// end there is a DELETE for each prefix.
const REQUESTS: usize = 64;

/// After a refusal, further prefixes are not asked for this long.
const REFUSED: Duration = Duration::from_secs(10);

/// How long the server has to take the DELETEs at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Keeps the prefixes of one server.
pub(super) struct Link {
    shared: Arc<Shared>,
    index: usize,
    /// What the server granted, and what of an earlier run is to be asked for.
    prefixes: Vec<StoredPrefix>,
    asked: Asked,
    release: watch::Receiver<bool>,
    refused_until: Option<Instant>,
    failures: u32,
}

/// What the answer under way is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// One more.
    New,
    /// That at this position, again.
    Again(usize),
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the server's answer is not valid")]
    Answer(#[from] Invalid),
    #[error("the server does not answer")]
    Late,
    #[error("the server ended the stream")]
    Over,
    #[error("the grant cannot be written down")]
    Store(#[from] carrick_store::Error),
    #[error("{:?}: {}", .0.code(), .0.message())]
    Status(#[from] Box<Status>),
}

impl Link {
    pub(super) fn new(
        shared: Arc<Shared>,
        index: usize,
        prefixes: Vec<StoredPrefix>,
        asked: Asked,
        release: watch::Receiver<bool>,
    ) -> Self {
        Self {
            shared,
            index,
            prefixes,
            asked,
            release,
            refused_until: None,
            failures: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let end = self.shared.end.clone();
        while !end.is_cancelled() {
            let Err(ended) = self.session().await else {
                break;
            };
            self.failures = self.failures.saturating_add(1);
            self.shared.options.metrics.stream_failures.inc();
            let server = &self.server().name;
            warn!(
                server,
                error = &ended as &dyn std::error::Error,
                "no stream to the prefix server"
            );
            self.shared.update(self.index, |link| {
                link.connected = false;
                link.last_error = Some(ended.to_string());
            });
            end.run_until_cancelled(sleep(self.pause())).await;
        }
        self.shared
            .update(self.index, |link| link.connected = false);
    }

    fn server(&self) -> &PrefixServer {
        &self.shared.options.servers[self.index]
    }

    /// Doubles from failure to failure; half of it is random.
    fn pause(&self) -> Duration {
        let options = &self.shared.options;
        let factor = 1u32
            .checked_shl(self.failures.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let most = options
            .back_off
            .saturating_mul(factor)
            .min(options.back_off_max);
        most.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// One stream, from the first request to its end; `Ok` if we ended it.
    async fn session(&mut self) -> Result<(), Ended> {
        let (requests, stream) = mpsc::channel(REQUESTS);
        let span =
            info_span!("prefix stream", otel.kind = "client", prefix_server = %self.server().name);
        let session = Session {
            link: self,
            requests,
            waiting: VecDeque::new(),
            current: None,
            exchange: Span::none(),
            asker: None,
            lease: None,
        };
        session.run(stream).instrument(span).await
    }
}

/// One stream to the server.
struct Session<'a> {
    link: &'a mut Link,
    requests: mpsc::Sender<PrefixRequest>,
    waiting: VecDeque<Ask>,
    /// What the answer under way is for, and when it is late.
    current: Option<(Ask, Instant)>,
    /// The answer under way, in the stream's trace.
    exchange: Span,
    /// The Request that wants the next new prefix.
    asker: Option<Span>,
    lease: Option<Duration>,
}

impl Session<'_> {
    async fn run(mut self, stream: mpsc::Receiver<PrefixRequest>) -> Result<(), Ended> {
        self.ask_for_all();
        // The Go server answers with headers only once it has been asked.
        self.next();
        let mut answers = self.open(stream).await?;
        let end = self.link.shared.end.clone();
        let broken = end.run_until_cancelled(self.serve(&mut answers)).await;
        if let Some(ended) = broken {
            return Err(ended);
        }
        self.farewell(&mut answers).await;
        Ok(())
    }

    async fn open(
        &mut self,
        stream: mpsc::Receiver<PrefixRequest>,
    ) -> Result<Streaming<PrefixResponse>, Ended> {
        let options = &self.link.shared.options;
        let mut request = Request::new(ReceiverStream::new(stream));
        let owner = MetadataValue::try_from(options.owner.as_str())
            .map_err(|_| Invalid::new("owner", &options.owner, "printable ASCII characters"))?;
        request.metadata_mut().insert(OWNER_HEADER, owner);
        trace::inject(request.metadata_mut());
        let mut client = IpamClient::new(self.link.server().channel.clone());
        let opened = timeout(options.answer_timeout, client.manage_prefixes(request));
        let opened = match self.link.shared.end.run_until_cancelled(opened).await {
            Some(opened) => opened.map_err(|_| Ended::Late)?.map_err(Box::new)?,
            None => return Err(Ended::Over),
        };
        let lease = opened.metadata().get(LEASE_HEADER);
        let millis = lease.and_then(|value| value.to_str().ok()?.parse().ok());
        self.lease = millis.map(Duration::from_millis);
        self.link
            .shared
            .update(self.link.index, |link| link.connected = true);
        Ok(opened.into_inner())
    }

    /// Serves the stream until it breaks.
    async fn serve(&mut self, answers: &mut Streaming<PrefixResponse>) -> Ended {
        let mut renewal = self.next_renewal();
        loop {
            let late = self.current.map(|(_, late)| late);
            tokio::select! {
                answer = answers.message() => {
                    let ended = match answer {
                        Ok(Some(answer)) => self.take(answer).await,
                        Ok(None) => Err(Ended::Over),
                        Err(status) => Err(self.refused(status)),
                    };
                    if let Err(ended) = ended {
                        return ended;
                    }
                    self.next();
                }
                () = until(late), if late.is_some() => return Ended::Late,
                () = until(renewal), if renewal.is_some() => {
                    renewal = self.next_renewal();
                    self.ask_for_all();
                    self.next();
                }
                Some(further) = self.link.asked.recv() => {
                    self.further(&further);
                    self.next();
                }
            }
        }
    }

    /// Without a lease nothing is renewed: to a Go server, asking again for a
    /// prefix means to ask for another one.
    fn next_renewal(&self) -> Option<Instant> {
        self.lease
            .map(|lease| Instant::now() + (lease / 3).max(Duration::from_millis(10)))
    }

    fn ask_for_all(&mut self) {
        if !self.waiting.is_empty() {
            return;
        }
        self.waiting
            .extend((0..self.link.prefixes.len()).map(Ask::Again));
        if self.waiting.is_empty() {
            self.waiting.push_back(Ask::New);
        }
    }

    fn further(&mut self, further: &Further) {
        let link = &self.link;
        let serves = link
            .prefixes
            .iter()
            .any(|stored| stored.grant.prefix.family() == further.family);
        if !serves || !Arc::ptr_eq(&further.seen, &link.shared.grants()) {
            return;
        }
        let refused = link
            .refused_until
            .is_some_and(|until| Instant::now() < until);
        if refused || link.prefixes.len() >= link.shared.options.most {
            let reason = if refused {
                "it had none a moment ago"
            } else {
                "the limit is reached"
            };
            link.shared.refuse(further.family, reason.to_owned());
        } else if !self.waiting.contains(&Ask::New)
            && self.current.is_none_or(|(ask, _)| ask != Ask::New)
        {
            self.waiting.push_back(Ask::New);
            self.asker = Some(further.asker.clone());
        }
    }

    /// Sends the next request if none is under way.
    fn next(&mut self) {
        if self.current.is_some() {
            return;
        }
        let Some(ask) = self.waiting.pop_front() else {
            return;
        };
        let prefix = match ask {
            Ask::Again(position) => self.link.prefixes[position].grant.prefix.to_string(),
            Ask::New => String::new(),
        };
        let request = PrefixRequest {
            r#type: Type::Allocate.into(),
            prefix,
            exclude_prefixes: self.excluded(),
        };
        let options = &self.link.shared.options;
        self.current = Some((ask, Instant::now() + options.answer_timeout));
        // One stream carries what many ask for, so its trace cannot be theirs:
        // the two are linked.
        self.exchange = debug_span!("ask for a prefix", prefix = request.prefix);
        if ask == Ask::New
            && let Some(asker) = self.asker.take()
        {
            self.exchange.follows_from(&asker);
        }
        // One request is under way at a time, so there is room; a closed
        // channel shows as the end of the stream.
        let _ = self.requests.try_send(request);
    }

    /// What the server shall not grant; the other family, where one is wanted.
    fn excluded(&self) -> Vec<String> {
        let options = &self.link.shared.options;
        let other = match self.link.server().family {
            None => None,
            Some(IpFamily::V4) => Some("::/0"),
            Some(IpFamily::V6) => Some("0.0.0.0/0"),
        };
        let configured = options.excluded.iter().map(ToString::to_string);
        configured.chain(other.map(str::to_owned)).collect()
    }

    async fn take(&mut self, answer: PrefixResponse) -> Result<(), Ended> {
        let Some((ask, _)) = self.current.take() else {
            debug!(prefix = answer.prefix, "an answer to nothing is ignored");
            return Ok(());
        };
        self.exchange = Span::none();
        let stored = self.stored(&answer)?;
        self.claim(ask, stored.grant.prefix)?;
        let believed = self.believe(ask, stored).await;
        self.link.shared.settle(self.link.index);
        believed
    }

    /// Writes a grant down, then lets it be used.
    async fn believe(&mut self, ask: Ask, stored: StoredPrefix) -> Result<(), Ended> {
        let link = &mut *self.link;
        let mut prefixes = link.prefixes.clone();
        match ask {
            Ask::Again(position) => {
                let before = std::mem::replace(&mut prefixes[position], stored.clone());
                if before.grant.prefix == stored.grant.prefix {
                    link.shared.options.metrics.renewals.inc();
                } else {
                    let (had, has) = (before.grant.prefix, stored.grant.prefix);
                    warn!(%had, %has, "the prefix server gave another prefix");
                }
            }
            Ask::New => {
                info!(prefix = %stored.grant.prefix, "the prefix server gave a prefix");
                prefixes.push(stored);
            }
        }
        // Known after a crash before anybody uses it.
        let scope = &link.shared.options.scope;
        link.shared
            .store
            .put(&key(scope, link.index), &prefixes)
            .await?;
        link.prefixes = prefixes;
        link.failures = 0;
        self.publish();
        Ok(())
    }

    /// Publishes what the server has confirmed or surely still keeps; what of
    /// an earlier run is still to be asked for is not ours yet.
    fn publish(&self) {
        let link = &*self.link;
        let asking = |position: &usize| self.waiting.contains(&Ask::Again(*position));
        let now = (link.shared.options.clock)();
        link.shared.update(link.index, |status| {
            let known = std::mem::take(&mut status.prefixes);
            let used = |stored: &StoredPrefix| {
                stored.valid_until > Some(now)
                    || known
                        .iter()
                        .any(|known| known.grant.prefix == stored.grant.prefix)
            };
            let ours = link.prefixes.iter().enumerate();
            let ours = ours.filter(|(position, stored)| !asking(position) || used(stored));
            status.prefixes = ours.map(|(_, stored)| stored.clone()).collect();
            status.last_error = None;
        });
    }

    fn stored(&self, answer: &PrefixResponse) -> Result<StoredPrefix, Invalid> {
        let prefix: Prefix = answer.prefix.parse()?;
        if prefix.length() == 0 || prefix.length() == prefix.width() {
            return Err(Invalid::new(
                "prefix",
                prefix,
                "a prefix with room for a client",
            ));
        }
        let mut excluded = Vec::new();
        for text in &answer.exclude_prefixes {
            let exclude: Prefix = text.parse()?;
            if exclude.overlaps(prefix) {
                excluded.push(exclude);
            }
        }
        let now: SystemTime = (self.link.shared.options.clock)();
        Ok(StoredPrefix {
            grant: Grant { prefix, excluded },
            valid_until: self.lease.map(|lease| now + lease),
        })
    }

    /// No two prefixes of an endpoint may overlap, whoever gave them.
    fn claim(&self, ask: Ask, prefix: Prefix) -> Result<(), Invalid> {
        let link = &*self.link;
        let own = link.prefixes.iter().enumerate();
        let mut own = own.filter(|(position, _)| ask != Ask::Again(*position));
        let taken = own.any(|(_, stored)| stored.grant.prefix.overlaps(prefix));
        if taken || !link.shared.claim(link.index, prefix) {
            let expected = "a prefix that overlaps no other of this endpoint";
            return Err(Invalid::new("prefix", prefix, expected));
        }
        Ok(())
    }

    /// The server ended the stream with a status.
    fn refused(&mut self, status: Status) -> Ended {
        if status.code() == Code::ResourceExhausted && matches!(self.current, Some((Ask::New, _))) {
            self.link.refused_until = Some(Instant::now() + REFUSED);
            if let Some(stored) = self.link.prefixes.first() {
                let family = stored.grant.prefix.family();
                self.link.shared.refuse(family, status.message().to_owned());
            }
        }
        Box::new(status).into()
    }

    /// Gives all prefixes back if that is wanted, and waits for the server to
    /// have seen it.
    async fn farewell(self, answers: &mut Streaming<PrefixResponse>) {
        let Self { link, requests, .. } = self;
        let release = *link.release.borrow();
        if release {
            for stored in &mut link.prefixes {
                stored.valid_until = None;
                let request = PrefixRequest {
                    r#type: Type::Delete.into(),
                    prefix: stored.grant.prefix.to_string(),
                    exclude_prefixes: Vec::new(),
                };
                let _ = requests.try_send(request);
            }
            // Asked for again by the next run, but not used unasked.
            let scope = &link.shared.options.scope;
            if let Err(error) = link
                .shared
                .store
                .put(&key(scope, link.index), &link.prefixes)
                .await
            {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "released prefixes cannot be written down"
                );
            }
        }
        drop(requests);
        let over = async { while let Ok(Some(_)) = answers.message().await {} };
        if timeout(FAREWELL, over).await.is_err() {
            debug!("the prefix server did not end the stream in time");
        }
    }
}

/// Waits until `instant`; only asked for where there is one.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
