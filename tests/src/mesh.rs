//! What endpoints say of the mesh that they make.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::Lab;

/// A link, seen from the end that dialled it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dialled {
    /// Who dialled.
    pub from: String,
    /// The peer, by the name under which it is known there.
    pub to: String,
    /// The connection, by its id at the dialling end.
    pub connection: String,
    /// The peer's prefixes.
    pub prefixes: Vec<String>,
}

impl Lab {
    /// Waits until each of `nses` has a working link to each other one; how
    /// long that took.
    ///
    /// # Panics
    ///
    /// They are not, within `patience`.
    pub async fn meshed(&self, nses: &[String], patience: Duration) -> Duration {
        let start = Instant::now();
        for nse in nses {
            let left = patience.saturating_sub(start.elapsed());
            let what = format!("{nse} has {} links", nses.len() - 1);
            self.wait_within(left, &what, async || {
                // The kernel is asked first: whoever is asked has less time to mesh.
                if self.devices(nse) < nses.len() - 1 {
                    return None;
                }
                let linked = linked_peers(&self.status(nse).await?);
                (linked == nses.len() - 1).then_some(())
            })
            .await;
        }
        start.elapsed()
    }

    /// Number of devices in an endpoint's router but for the loopback device;
    /// zero while there is no router.
    #[must_use]
    pub fn devices(&self, nse: &str) -> usize {
        let router = self.router(nse);
        if !is_namespace(&router.path()) {
            return 0;
        }
        let table = router.within(|| fs::read_to_string("/proc/thread-self/net/dev"));
        let lines = table.unwrap_or_default().lines().count();
        lines.saturating_sub(HEADINGS + 1)
    }

    /// Whether each of `nses` has exactly one link to each other one, in what
    /// it says and in its router; `clients` is how many clients each has. The
    /// links, or what is wrong.
    ///
    /// # Errors
    ///
    /// What is wrong.
    ///
    /// # Panics
    ///
    /// A router is gone.
    pub async fn one_link_per_pair(
        &self,
        nses: &[String],
        clients: usize,
    ) -> Result<BTreeSet<Dialled>, String> {
        let (mut dialled, mut served) = (BTreeSet::new(), 0);
        for nse in nses {
            let status = self.status(nse).await.ok_or("it does not answer")?;
            dialled.extend(dialled_by(nse, &status));
            served += array(&status, "connections")
                .iter()
                .filter(|connection| !connection["peer"].is_null())
                .count();
            let devices = self.devices(nse);
            if devices != nses.len() - 1 + clients {
                return Err(format!("{nse} has {devices} devices: {status:#}"));
            }
        }
        let pair = |link: &Dialled| {
            let peer = link.to.split('@').next().unwrap_or_default().to_owned();
            BTreeSet::from([link.from.clone(), peer])
        };
        let pairs: BTreeSet<_> = dialled.iter().map(pair).collect();
        let links = nses.len() * (nses.len() - 1) / 2;
        if [dialled.len(), served, pairs.len()] != [links; 3] {
            let (dialled, pairs) = (dialled.len(), pairs.len());
            return Err(format!(
                "{dialled} links dialled, {served} served, {pairs} pairs linked"
            ));
        }
        Ok(dialled)
    }

    /// Waits until [`Lab::one_link_per_pair`] holds: of links that crossed, one
    /// is closed a moment after the other is up.
    ///
    /// # Panics
    ///
    /// It does not hold within 5 s.
    pub async fn settled(&self, nses: &[String], clients: usize) -> BTreeSet<Dialled> {
        let end = Instant::now() + Duration::from_secs(5);
        self.wait("there is one link per pair", async || {
            match self.one_link_per_pair(nses, clients).await {
                Ok(links) => Some(links),
                Err(wrong) => {
                    assert!(Instant::now() < end, "{wrong}");
                    None
                }
            }
        })
        .await
    }

    /// An endpoint's prefixes, as it says.
    pub async fn prefixes(&self, nse: &str) -> Vec<String> {
        self.wait(&format!("{nse} has a prefix"), async || {
            let prefixes = texts(&self.status(nse).await?["prefixes"]);
            (!prefixes.is_empty()).then_some(prefixes)
        })
        .await
    }
}

/// How many peers an endpoint has working links to.
#[must_use]
pub fn linked_peers(status: &Value) -> usize {
    let peers = array(status, "peers").iter();
    peers.filter(|peer| peer["state"] == "linked").count()
}

/// Lines of `/proc/net/dev` before the first device.
const HEADINGS: usize = 2;

/// A name is there a moment before its namespace.
fn is_namespace(path: &Path) -> bool {
    use nix::sys::statfs::{FsType, statfs};
    statfs(path).is_ok_and(|found| found.filesystem_type() == FsType(0x6e73_6673))
}

fn dialled_by(nse: &str, status: &Value) -> Vec<Dialled> {
    let peers = array(status, "peers").iter();
    let dialled = peers.filter(|peer| peer["direction"] == "outgoing" && peer["state"] == "linked");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    dialled
        .map(|peer| Dialled {
            from: nse.to_owned(),
            to: text(&peer["name"]),
            connection: text(&peer["connection"]),
            prefixes: texts(&peer["prefixes"]),
        })
        .collect()
}

fn array<'a>(status: &'a Value, key: &str) -> &'a [Value] {
    status[key].as_array().map_or(&[], Vec::as_slice)
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items
        .filter_map(|item| Some(item.as_str()?.to_owned()))
        .collect()
}
