//! What an operator sees and does: logs, metrics, probes, signals. Knows no
//! calls; they report to it.

pub mod logs;
pub mod metrics;
pub mod signals;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics::Metrics;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// `/healthz`: the process runs. `/readyz`: it takes calls (503 while it
/// stops). Neither touches the store.
pub fn probes(drain: CancellationToken) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                if drain.is_cancelled() {
                    (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
                } else {
                    (StatusCode::OK, "ready\n")
                }
            }),
        )
}

/// The router of the operator's listener: probes and `/metrics`.
pub fn operator_page(metrics: Arc<Metrics>, drain: CancellationToken) -> Router {
    probes(drain).route(
        "/metrics",
        get(move || async move {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], metrics.encode()).into_response()
        }),
    )
}
