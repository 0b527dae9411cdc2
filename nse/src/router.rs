//! The router of the service: its addresses follow the prefixes, and what a
//! former process left in it is adopted or removed.

use std::collections::HashSet;
use std::time::Duration;

use carrick_agent::{Change, Found, Router, Side};
use carrick_types::ConnectionId;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::parts::{Parts, Plane};

/// First pause after the agent could not do something; it doubles up to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(10)];

/// How long links of a former process to peers wait to be taken up again.
const ADOPTION: Duration = Duration::from_secs(60);

impl Plane {
    /// Makes the router as the prefixes want it; tries until it succeeds.
    pub(crate) async fn put_router(&self, parts: &Parts) {
        let mut pause = PAUSES[0];
        while let Err(error) = self.agent.apply(vec![self.wanted(parts)]).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "cannot make the router; trying again"
            );
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    fn wanted(&self, parts: &Parts) -> Change {
        Change::PutRouter(Router {
            netns: self.site.router.clone(),
            addresses: parts.vl3.addresses(),
            unreachable: parts.vl3.ground().networks,
        })
    }

    /// Removes the links of clients that no connection claims.
    pub(crate) async fn sweep_clients(&self, parts: &Parts) {
        let connections = parts.handle.connections();
        let claimed: HashSet<ConnectionId> = connections.iter().map(|c| c.id.clone()).collect();
        self.sweep(|found| found.side == Side::Endpoint && !claimed.contains(&found.id))
            .await;
    }

    /// Removes this end of links to peers that were not taken up again; the
    /// peers have had their time.
    pub(crate) async fn sweep_peers(&self) {
        sleep_until(Instant::now() + ADOPTION).await;
        let claimed: HashSet<ConnectionId> = self.book.link_ids().into_iter().collect();
        self.sweep(|found| found.side == Side::Client && !claimed.contains(&found.id))
            .await;
    }

    async fn sweep(&self, is_orphan: impl Fn(&Found) -> bool) {
        let found = match self.agent.list(&self.site.router, &self.site.owner).await {
            Ok(found) => found,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "cannot look for links of a former process");
                return;
            }
        };
        for orphan in found.into_iter().filter(is_orphan) {
            info!(link = %orphan.name, connection.id = %orphan.id, "removing a link that nobody claims");
            let (netns, id, side) = (self.site.router.clone(), orphan.id, orphan.side);
            let delete = Change::DeleteLink { netns, id, side };
            if let Err(error) = self.agent.apply(vec![delete]).await {
                let error: &dyn std::error::Error = &error;
                warn!(error, "cannot remove a link of a former process");
            }
        }
    }
}
