//! Counters and gauges of one server, in Prometheus' text format. No
//! process-wide state: two servers in one process count apart.

use gosync_proto::wire::Outcome;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: i64,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// What one server counts.
pub struct Metrics {
    registry: Registry,
    calls: Family<CallLabels, Counter>,
    seconds: Family<MethodLabels, Histogram>,
    streams: Family<MethodLabels, Gauge>,
    verdicts: Family<OutcomeLabels, Counter>,
    refusals: Family<OutcomeLabels, Counter>,
    sent: Family<MethodLabels, Counter>,
    connections: Gauge,
    damage_found: Gauge,
    open_connections: Arc<AtomicUsize>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("gosync");
        let calls = Family::default();
        registry.register("calls", "Calls by method and gRPC status", calls.clone());
        let seconds = Family::<MethodLabels, Histogram>::new_with_constructor(|| {
            // 0.25 ms to 8 s
            Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
        });
        registry.register_with_unit(
            "call",
            "Time from the request's head to the answer's",
            Unit::Seconds,
            seconds.clone(),
        );
        let streams = Family::default();
        registry.register("streams", "Open streams by method", streams.clone());
        let verdicts = Family::default();
        registry.register(
            "pushed_records",
            "Pushed records by outcome",
            verdicts.clone(),
        );
        let refusals = Family::default();
        registry.register(
            "refusals",
            "Refused calls and ended streams by reason",
            refusals.clone(),
        );
        let sent = Family::default();
        registry.register("sent_records", "Records sent in streams", sent.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        let damage_found = Gauge::default();
        registry.register(
            "damaged_records_found",
            "Records that calls found damaged and set aside since the start",
            damage_found.clone(),
        );
        Metrics {
            damage_found,
            registry,
            calls,
            seconds,
            streams,
            verdicts,
            refusals,
            sent,
            connections,
            open_connections: Arc::default(),
        }
    }
}

impl Metrics {
    /// A call's answer has begun.
    pub fn call(&self, method: &'static str, code: i32, took: Duration) {
        let code = i64::from(code);
        self.calls.get_or_create(&CallLabels { method, code }).inc();
        self.seconds
            .get_or_create(&MethodLabels { method })
            .observe(took.as_secs_f64());
    }

    /// Counts a stream until the guard is dropped.
    pub fn stream(&self, method: &'static str) -> StreamGuard {
        let gauge = self.streams.get_or_create(&MethodLabels { method }).clone();
        gauge.inc();
        StreamGuard(gauge)
    }

    /// Pushed records that got this outcome.
    pub fn verdicts(&self, outcome: Outcome, n: u64) {
        if n > 0 {
            let outcome = outcome.as_str_name();
            self.verdicts
                .get_or_create(&OutcomeLabels { outcome })
                .inc_by(n);
        }
    }

    /// A call was refused, or a stream ended, for this reason.
    pub fn refused(&self, reason: gosync_proto::Reason) {
        let outcome = reason.as_str();
        self.refusals
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// Records that a stream has sent.
    pub fn sent(&self, method: &'static str, n: u64) {
        self.sent.get_or_create(&MethodLabels { method }).inc_by(n);
    }

    /// Where the accept loop counts connections.
    pub fn open_connections(&self) -> Arc<AtomicUsize> {
        self.open_connections.clone()
    }

    /// Everything, as text. `damage_found` is what the request logic counted.
    pub fn encode(&self, damage_found: u64) -> String {
        self.damage_found
            .set(i64::try_from(damage_found).unwrap_or(i64::MAX));
        let open = self.open_connections.load(Ordering::Relaxed);
        self.connections
            .set(i64::try_from(open).unwrap_or(i64::MAX));
        let mut text = String::new();
        // writing to a String cannot fail
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// See [`Metrics::stream`].
pub struct StreamGuard(Gauge);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_shows_up_in_the_text() {
        let metrics = Metrics::default();
        metrics.call("Push", 0, Duration::from_millis(3));
        metrics.verdicts(Outcome::Applied, 7);
        let open = metrics.stream("Watch");
        let text = metrics.encode(3);
        assert!(
            text.contains("gosync_calls_total{method=\"Push\",code=\"0\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("gosync_pushed_records_total{outcome=\"OUTCOME_APPLIED\"} 7"),
            "{text}"
        );
        assert!(
            text.contains("gosync_streams{method=\"Watch\"} 1"),
            "{text}"
        );
        drop(open);
        assert!(
            metrics
                .encode(3)
                .contains("gosync_streams{method=\"Watch\"} 0")
        );
    }
}
