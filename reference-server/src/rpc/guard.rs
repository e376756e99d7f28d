//! Around every gRPC call, whatever it is: its deadline, its measurement, and
//! the refusals that the transport library makes before a handler runs, put
//! into this protocol's terms.

use super::status::{refine_transport_code, to_status};
use crate::clock::WallClock;
use crate::ops::metrics::Metrics;
use crate::service::Refusal;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use gosync_proto::Reason;
use gosync_proto::limits::Limits;
use http::{HeaderMap, HeaderValue, header};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// What the guard needs to know.
pub struct Guard {
    /// For the details of refusals.
    pub limits: Limits,
    /// For the details of refusals.
    pub clock: WallClock,
    /// The longest time to an answer's head.
    pub request_timeout: Duration,
    /// Where calls are counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the server stops.
    pub drain: CancellationToken,
}

const DETAILS: &str = "grpc-status-details-bin";

/// Runs one call.
pub async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = method_name(request.uri().path());
    let own = method.is_some();
    if own && guard.drain.is_cancelled() {
        let refusal = Refusal {
            retry_after_ms: 500,
            ..Refusal::new(Reason::Unavailable, "the server is stopping; retry")
        };
        return http_response(&to_status(&refusal, &guard.limits, guard.clock.now_ms()));
    }
    let limit = grpc_timeout(request.headers()).map_or(guard.request_timeout, |asked| {
        asked.min(guard.request_timeout)
    });
    let mut response = match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) if own => refine(response, &guard),
        Ok(response) => response,
        Err(_) => http_response(&Status::deadline_exceeded(format!(
            "the call took longer than {} ms",
            limit.as_millis()
        ))),
    };
    let code = status_code(response.headers()).unwrap_or(Code::Ok);
    let took = begun.elapsed();
    if let Some(method) = method {
        guard.metrics.call(method, code as i32, took);
        tracing::debug!(method, ?code, ?took, "call");
        // proxies must neither buffer a stream nor keep an answer
        response.headers_mut().insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store, no-transform"),
        );
    }
    response
}

fn method_name(path: &str) -> Option<&'static str> {
    const METHODS: [&str; 5] = ["Hello", "Push", "Watch", "Reconcile", "Snapshot"];
    let name = path.strip_prefix("/gosync.v1.SyncService/")?;
    METHODS.into_iter().find(|m| *m == name)
}

/// A refusal without details comes from the library's decoder.
fn refine(response: Response, guard: &Guard) -> Response {
    let headers = response.headers();
    if headers.contains_key(DETAILS) {
        return response;
    }
    let refused = status_code(headers).and_then(|code| {
        let status = Status::from_header_map(headers)?;
        refine_transport_code(code, status.message(), &guard.limits)
    });
    match refused {
        Some(refusal) => http_response(&to_status(&refusal, &guard.limits, guard.clock.now_ms())),
        None => response,
    }
}

fn status_code(headers: &HeaderMap) -> Option<Code> {
    headers
        .get("grpc-status")
        .map(|v| Code::from_bytes(v.as_bytes()))
}

fn http_response(status: &Status) -> Response {
    status.clone().into_http()
}

/// The caller's deadline. `None` when there is none or it is not one.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3_600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

/// The deadline of a stream, from its request's metadata.
pub fn stream_timeout(metadata: &tonic::metadata::MetadataMap) -> Option<Duration> {
    grpc_timeout(metadata.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_in_every_unit_and_nonsense_is_none() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            grpc_timeout(&headers)
        };
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "S", "5", "-1S", "123456789S", "1.5S", "1x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
