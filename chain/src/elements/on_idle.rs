use std::time::Duration;

use carrick_types::Connection;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::{Element, Error, Kind, Next};

/// Finds out that nobody has been served for a while (NSM `onidle`).
///
/// [`OnIdle::idle`] ends then, and from that moment on Requests are refused:
/// the endpoint is about to leave.
#[derive(Clone, Debug)]
pub struct OnIdle {
    period: Duration,
    activity: watch::Sender<Activity>,
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
        (!period.is_zero()).then_some(Self { period, activity })
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
        if active.is_none() {
            let entered = self.enter();
            *active = Some(entered.map_err(|expired| {
                Error::request(Self::NAME, &connection, Kind::Unavailable, expired)
            })?);
        }
        next.request(connection).await
    }

    async fn close(&self, _: &Connection, _: &mut Active) -> Result<(), Error> {
        Ok(()) // dropping it is what counts
    }
}
