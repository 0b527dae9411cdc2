//! The shell around a flow: a socket, questions, a clock.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::{Event, Flow, Shared};
use crate::Transport;
use crate::client::{Gone, fate, host};

/// What is asked; the answer is the server's name.
const QUESTION: &[u8] = b"?";
const NAME_MAX: usize = 256;

/// Opens a flow and keeps it until it ends or the watch does.
pub(super) async fn keep(
    shared: Arc<Shared>,
    number: u64,
    source: Option<IpAddr>,
    events: mpsc::Sender<Event>,
) -> Flow {
    let opened = shared.stop.run_until_cancelled(open(&shared, source)).await;
    let Some(Ok((line, first))) = opened else {
        shared.gauge.failed.fetch_add(1, Ordering::Relaxed);
        return Flow::failed(number);
    };
    shared.gauge.opened.fetch_add(1, Ordering::Relaxed);
    let mut talk = Talk {
        flow: Flow::new(number, host(&first)),
        length: first.len(),
        line,
        shared,
        events,
    };
    let stop = talk.shared.stop.clone();
    let _ = stop.run_until_cancelled(talk.ask_again_and_again()).await;
    talk.flow.stop(talk.now());
    talk.flow
}

/// A socket of either kind.
enum Line {
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

async fn open(shared: &Shared, source: Option<IpAddr>) -> io::Result<(Line, Vec<u8>)> {
    let _turn = shared.opening.acquire().await.map_err(io::Error::other)?;
    let watch = &shared.watch;
    let opening = async {
        let mut line = match watch.transport {
            Transport::Udp => Line::Datagrams(Transport::connect_datagrams(watch.target, source)?),
            _ => Line::Stream(watch.transport.connect(watch.target, source).await?),
        };
        // A stream's server speaks first.
        if matches!(line, Line::Datagrams(_)) {
            line.ask().await?;
        }
        let mut name = [0; NAME_MAX];
        let length = line.hear(&mut name).await?;
        Ok((line, name[..length].to_vec()))
    };
    timeout(watch.open_timeout, opening)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Line {
    async fn ask(&mut self) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.write_all(QUESTION).await,
            Self::Datagrams(socket) => socket.send(QUESTION).await.map(drop),
        }
    }

    async fn hear(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = match self {
            Self::Stream(stream) => stream.read(bytes).await?,
            Self::Datagrams(socket) => socket.recv(bytes).await?,
        };
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(length)
    }
}

struct Talk {
    flow: Flow,
    /// Of the name, in bytes: more may come at once if answers were held up.
    length: usize,
    line: Line,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
}

impl Talk {
    fn now(&self) -> Duration {
        self.shared.start.elapsed()
    }

    async fn tell(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.shared.gauge.follow(&event);
            // Nobody listens any more once the watch is over.
            let _ = self.events.send(event).await;
        }
    }

    async fn ask_again_and_again(&mut self) {
        let interval = self.shared.watch.interval.max(Duration::from_millis(1));
        // Flows take their turns, so that not all ask in the same moment.
        let turn = interval.mul_f64(fraction(self.flow.number(), self.shared.watch.flows));
        let mut tick = interval_at(Instant::now() + turn, interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // An end is heard at once, not only with the next question.
            let mut early = [0; NAME_MAX];
            let heard = tokio::select! {
                _ = tick.tick() => Ok(0),
                heard = self.line.hear(&mut early) => heard,
            };
            if let Err(error) = heard {
                return self.end(&error).await;
            }
            if let Err(error) = self.exchange().await {
                return self.end(&error).await;
            }
        }
    }

    async fn end(&mut self, error: &io::Error) {
        let at = self.now();
        if self.flow.is_silent() {
            self.shared.gauge.stalled.fetch_sub(1, Ordering::Relaxed);
        }
        let event = self.flow.ended(fate(error) == Gone::Reset, at);
        self.tell([event]).await;
    }

    /// One question and its answer, however late.
    async fn exchange(&mut self) -> io::Result<()> {
        let since = self.now();
        self.line.ask().await?;
        let mut name = [0; NAME_MAX];
        let stall = self.shared.watch.stall;
        let length = loop {
            if let Ok(heard) = timeout(stall, self.line.hear(&mut name)).await {
                break heard?;
            }
            let event = self.flow.silent(since, self.now());
            self.tell(event).await;
            // What is lost of a stream is sent again by the kernel.
            if matches!(self.line, Line::Datagrams(_)) {
                self.line.ask().await?;
            }
        };
        let known = self.flow.host().as_bytes();
        let same = name[..length].starts_with(known) && length % self.length == 0;
        let answered_by = if same {
            self.flow.host().to_owned()
        } else {
            host(&name[..length])
        };
        self.length = if same { self.length } else { length };
        self.shared.gauge.exchanges.fetch_add(1, Ordering::Relaxed);
        let events = self.flow.answered(&answered_by, self.now());
        self.tell(events).await;
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a turn need not be exact")]
fn fraction(number: u64, flows: u64) -> f64 {
    number as f64 / flows.max(1) as f64
}
