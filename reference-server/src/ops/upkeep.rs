//! What a running server does by itself: it reports its health and removes old
//! tombstones. Knows no calls.

use super::Readiness;
use crate::clock::WallClock;
use crate::config::HistoryConfig;
use crate::maintenance::{self, CompactOptions};
use crate::service::Service;
use crate::store::StoreError;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The name under which health is reported.
const SERVICE: &str = "gosync.v1.SyncService";

/// Keeps gRPC health as the probes see it, until the server stops.
pub async fn report_health(health: HealthReporter, readiness: Readiness, stop: CancellationToken) {
    loop {
        let status = match readiness() {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        };
        for service in ["", SERVICE] {
            health.set_service_status(service, status).await;
        }
        if stop.is_cancelled() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Removes old tombstones of every space now and then.
pub async fn compact_regularly(service: Service, config: HistoryConfig, clock: WallClock) {
    if config.compact_every.is_zero() {
        return;
    }
    let options = CompactOptions::keeping(config.retention);
    loop {
        tokio::time::sleep(config.compact_every).await;
        let (service, now_ms) = (service.clone(), clock.now_ms());
        let work = move || {
            for space in service.store().spaces()? {
                let done = maintenance::compact(service.store(), &space, now_ms, options)?;
                if done.removed > 0 {
                    tracing::info!(%space, removed = done.removed, "old tombstones removed");
                }
            }
            Ok::<_, StoreError>(())
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "old tombstones could not be removed"),
            Err(error) => tracing::error!(%error, "compaction broke down"),
        }
    }
}
