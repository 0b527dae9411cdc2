use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use carrick_types::Connection;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::{Element, Error, Kind, Next};

/// Finds out that nobody has been served for a while (NSM `onidle`).
///
/// [`OnIdle::idle`] ends then, and from that moment on Requests are refused:
/// the endpoint is about to leave.
#[derive(Clone)]
pub struct OnIdle {
    period: Duration,
    activity: watch::Sender<Activity>,
    counts: Arc<dyn Fn(&Connection) -> bool + Send + Sync>,
}

impl fmt::Debug for OnIdle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnIdle")
            .field("period", &self.period)
            .field("activity", &self.activity)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Activity {
    connections: usize,
    expired: bool,
}

/// The endpoint has been idle for too long and is leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("endpoint expired")]
pub struct EndpointExpired;

impl OnIdle {
    /// Allows `period` without a connection; `None` for zero, which means
    /// forever.
    #[must_use]
    pub fn new(period: Duration) -> Option<Self> {
        let activity = watch::Sender::default();
        (!period.is_zero()).then(|| Self {
            period,
            activity,
            counts: Arc::new(|_| true),
        })
    }

    /// Lets a connection count only if `counts` says so. All are refused once
    /// the endpoint is leaving.
    #[must_use]
    pub fn counting(
        mut self,
        counts: impl Fn(&Connection) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.counts = Arc::new(counts);
        self
    }

    /// Ends when there has been no connection for the period, counted from the
    /// end of the last one or from the first time this is polled. A Request
    /// being served is a connection.
    pub async fn idle(self) {
        let mut activity = self.activity.subscribe();
        loop {
            let idle = |activity: &Activity| activity.connections == 0;
            // The sender is ours, so neither of these ends for want of one.
            let _ = activity.wait_for(idle).await.map(drop);
            if timeout(self.period, activity.changed()).await.is_err() && self.expire() {
                return;
            }
        }
    }

    fn expire(&self) -> bool {
        self.activity.send_if_modified(|activity| {
            activity.expired = activity.connections == 0;
            activity.expired
        })
    }

    fn look(&self) -> Result<(), EndpointExpired> {
        if self.activity.borrow().expired {
            return Err(EndpointExpired);
        }
        Ok(())
    }

    fn enter(&self) -> Result<Active, EndpointExpired> {
        let entered = self.activity.send_if_modified(|activity| {
            activity.connections += usize::from(!activity.expired);
            !activity.expired
        });
        entered
            .then(|| Active(self.activity.clone()))
            .ok_or(EndpointExpired)
    }
}

/// A connection that is being served, as long as it lives.
#[derive(Debug)]
pub struct Active(watch::Sender<Activity>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.send_modify(|activity| activity.connections -= 1);
    }
}

impl Element for OnIdle {
    const NAME: &'static str = "onidle";
    type State = Active;

    async fn request(
        &self,
        connection: Connection,
        active: &mut Option<Active>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        let entered = match active {
            Some(_) => Ok(()),
            None if (self.counts)(&connection) => self.enter().map(|entered| {
                *active = Some(entered);
            }),
            None => self.look(),
        };
        entered.map_err(|gone| Error::request(Self::NAME, &connection, Kind::Unavailable, gone))?;
        next.request(connection).await
    }

    async fn close(&self, _: &Connection, _: &mut Active) -> Result<(), Error> {
        Ok(()) // dropping it is what counts
    }
}
