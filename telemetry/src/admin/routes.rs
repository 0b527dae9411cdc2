use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::Value;

use crate::{Admin, METRICS_CONTENT_TYPE};

pub(super) fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(metrics))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .with_state(Arc::new(admin))
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    match admin.metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    let missing = admin.readiness.missing();
    if missing.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let mut lines = String::new();
    for condition in missing {
        writeln!(lines, "{condition}").expect("a String takes any text");
    }
    (StatusCode::SERVICE_UNAVAILABLE, lines)
}

async fn status(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let statuses = admin.statuses.iter();
    Json(
        statuses
            .map(|(name, status)| ((*name).to_owned(), status.status()))
            .collect(),
    )
}
