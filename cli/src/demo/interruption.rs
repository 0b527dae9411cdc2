//! How long each pair of pods cannot reach each other: a packet every 20 ms in
//! both directions, and the longest time between two that came back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::fetch::Pod;
use super::netns::within_async;
use super::plan::HELLO_PORT;

/// Time between two packets of a pair.
pub(crate) const PERIOD: Duration = Duration::from_millis(20);

/// Periods that the last packets have to come back.
const PATIENCE: u32 = 25;

/// What one pair saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    /// Longest time without a packet back.
    pub(crate) gap: Duration,
    /// Packets that did not come back.
    pub(crate) lost: u32,
}

/// A watch over all pairs.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<Vec<Seen>>>,
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn start(pods: &[Pod]) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for from in pods {
            let others: Vec<Pod> = pods
                .iter()
                .filter(|to| to.name != from.name)
                .cloned()
                .collect();
            let (name, stopped) = (from.name, stopped.clone());
            tasks.spawn(async move {
                within_async(name, move || watch_from(name, others, stopped)).await?
            });
        }
        Self { stop, tasks }
    }

    /// Ends the watch: what was seen.
    pub(crate) async fn stop(mut self) -> Result<Vec<Seen>> {
        self.stop.send_replace(true);
        let mut seen = Vec::new();
        while let Some(task) = self.tasks.join_next().await {
            seen.extend(task??);
        }
        seen.sort_by_key(|seen| (seen.from, seen.to));
        Ok(seen)
    }
}

async fn watch_from(
    from: &'static str,
    others: Vec<Pod>,
    mut stopped: watch::Receiver<bool>,
) -> Result<Vec<Seen>> {
    let mut pairs = Vec::new();
    for to in others {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        socket
            .connect(SocketAddr::new(to.address, HELLO_PORT))
            .await?;
        pairs.push(Pair::new(from, to.name, socket));
    }
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stopped.borrow_and_update() {
        tokio::select! {
            _ = tick.tick() => pairs.iter_mut().for_each(Pair::step),
            _ = stopped.changed() => {}
        }
    }
    for _ in 0..PATIENCE {
        if pairs.iter().all(Pair::is_answered) {
            break;
        }
        tick.tick().await;
        pairs.iter_mut().for_each(Pair::take);
    }
    Ok(pairs.into_iter().map(Pair::finish).collect())
}

struct Pair {
    seen: Seen,
    socket: UdpSocket,
    last_back: Instant,
    sent: u32,
    back: u32,
}

impl Pair {
    fn new(from: &'static str, to: &'static str, socket: UdpSocket) -> Self {
        Self {
            seen: Seen {
                from,
                to,
                gap: Duration::ZERO,
                lost: 0,
            },
            socket,
            last_back: Instant::now(),
            sent: 0,
            back: 0,
        }
    }

    /// Takes what came back and sends the next packet.
    fn step(&mut self) {
        self.take();
        // A refused or unroutable packet is a lost one; it is counted by not coming back.
        let _ = self.socket.try_send(&self.sent.to_be_bytes());
        self.sent += 1;
    }

    fn take(&mut self) {
        let mut packet = [0; 16];
        while let Ok(length) = self.socket.try_recv(&mut packet) {
            if length == size_of::<u32>() {
                self.back += 1;
                self.seen.gap = self.seen.gap.max(self.last_back.elapsed());
                self.last_back = Instant::now();
            }
        }
    }

    fn is_answered(&self) -> bool {
        self.back >= self.sent
    }

    fn finish(mut self) -> Seen {
        self.take();
        let gap = self.seen.gap.max(self.last_back.elapsed());
        let lost = self.sent - self.back.min(self.sent);
        Seen {
            gap,
            lost,
            ..self.seen
        }
    }
}
