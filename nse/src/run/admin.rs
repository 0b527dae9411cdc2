//! What the admin listener shows.

use std::sync::Arc;

use carrick_ipam::PrefixClient;
use carrick_telemetry::{Admin, Metrics, Readiness};
use carrick_types::ServiceName;
use serde_json::json;
use tracing::{error, info};

use super::stages::Stages;
use crate::parts::Parts;
use crate::{Error, status};

pub(super) async fn admin(
    parts: &Parts,
    metrics: &Metrics,
    readiness: &Readiness,
    prefix_client: Option<Arc<PrefixClient>>,
    stages: &Stages,
) -> Result<(), Error> {
    let Some(address) = &parts.config.admin else {
        return Ok(());
    };
    let name = parts.config.name.to_string();
    let services: Vec<String> = parts
        .config
        .services
        .iter()
        .map(ServiceName::to_string)
        .collect();
    let (ready, of) = (readiness.clone(), parts.clone());
    let status = |show: fn(&Parts) -> serde_json::Value| {
        let parts = of.clone();
        move || show(&parts)
    };
    let node = parts.config.node.name.clone();
    let bound = Admin::new(metrics.clone(), readiness.clone())
        .with_status("name", move || json!(name))
        .with_status("network_services", move || json!(services))
        .with_status("node", move || json!(node))
        .with_status("security", status(|parts| json!(parts.security.status())))
        .with_status("ready", move || json!(ready.is_ready()))
        .with_status("prefixes", status(|parts| json!(parts.prefixes.current())))
        .with_status("connections", status(Parts::connections_status))
        .with_status("leases", status(Parts::leases_status))
        .with_status(
            "peers",
            status(|parts| status::json(parts.peers_status().into_iter())),
        )
        .with_status("routes", status(Parts::routes_status))
        .with_status("prefix_servers", move || {
            json!(prefix_client.as_ref().map(|client| client.status()))
        })
        .bind(address)
        .await
        .map_err(Error::Admin)?;
    info!(address = %bound.address(), "serving /metrics, /healthz, /readyz and /status");
    let stop = stages.admin.token();
    stages.admin.spawn("admin listener", async move {
        if let Err(error) = bound.serve(stop).await {
            error!(
                error = &error as &dyn std::error::Error,
                "the admin listener ended"
            );
        }
    });
    Ok(())
}
