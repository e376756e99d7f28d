//! What an operator sees and does: logs, metrics, probes, signals. Knows no
//! calls; they report to it.

pub mod logs;
pub mod metrics;
pub mod signals;
pub mod upkeep;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::Arc;

/// Says why the server takes no calls, where that is so.
pub type Readiness = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

/// `/healthz`: the process runs. `/readyz`: it takes calls; otherwise 503.
pub fn probes(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                match readiness() {
                    Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                    Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
                }
            }),
        )
}

/// The router of the operator's listener: probes and `/metrics`.
pub fn operator_page(
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    readiness: Readiness,
) -> Router {
    probes(readiness).route(
        "/metrics",
        get(move || async move {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], metrics()).into_response()
        }),
    )
}
