//! What the programs say of themselves, asked at their admin sockets.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use super::fetch::Pod;
use super::fleet::Fleet;
use super::plan::{NODES, SERVICE, client_admin, pods};

/// Longest wait for the mesh and all clients.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until every endpoint is ready and linked to every other, and every pod
/// has its address.
pub(crate) async fn pods_up(fleet: &mut Fleet) -> Result<Vec<Pod>> {
    let begin = Instant::now();
    loop {
        fleet.check()?;
        let error = match look().await {
            Ok(pods) => {
                println!("  up after {:.1} s", begin.elapsed().as_secs_f64());
                return Ok(pods);
            }
            Err(error) => error,
        };
        ensure!(
            begin.elapsed() < PATIENCE,
            "not up after {PATIENCE:?}: {error:#}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

async fn look() -> Result<Vec<Pod>> {
    for node in &NODES {
        let status = status(&node.admin()).await?;
        let up = array(&status, "peers")
            .iter()
            .filter(|peer| peer["state"] == "linked")
            .count();
        ensure!(
            up == NODES.len() - 1,
            "{} has {up} of {} links",
            node.name,
            NODES.len() - 1
        );
    }
    let mut found = Vec::new();
    for (_, pod) in pods() {
        found.push(
            pod_status(pod)
                .await
                .with_context(|| format!("{pod} is not up"))?,
        );
    }
    Ok(found)
}

async fn pod_status(name: &'static str) -> Result<Pod> {
    let status = status(&client_admin(name)).await?;
    let connections = array(&status, "connections");
    let connection = connections
        .iter()
        .find(|connection| connection["state"] == "Up");
    let connection = connection.context("no connection is up")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let address = text(&connection["src_addrs"][0]);
    let name_server = text(&connection["dns"][0]["server_ips"][0]);
    Ok(Pod {
        name,
        address: address
            .split('/')
            .next()
            .unwrap_or_default()
            .parse()
            .context("no address")?,
        name_server: name_server.parse().context("no name server")?,
        domain_name: format!("{name}.{SERVICE}."),
    })
}

/// The prefix of each endpoint.
pub(crate) async fn prefixes() -> Result<BTreeMap<String, String>> {
    let mut prefixes = BTreeMap::new();
    for node in &NODES {
        let status = status(&node.admin()).await?;
        let prefix = status["prefixes"][0].as_str().unwrap_or("?");
        prefixes.insert(node.endpoint(), prefix.to_owned());
    }
    Ok(prefixes)
}

async fn status(socket: &str) -> Result<Value> {
    let (code, body) = crate::http::get_unix(Path::new(socket), "/status").await?;
    ensure!(code.is_success(), "{socket} answers {code}");
    Ok(serde_json::from_slice(&body)?)
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// Waits for Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
