//! Around every gRPC call, whatever it is: who calls, its version, its
//! deadline, its measurement, and the refusals that the transport library makes before a handler runs, put
//! into this protocol's terms.

use super::rate::RateLimit;
use super::status::{refine_transport_code, to_status};
use crate::auth::{Auth, Caller};
use crate::clock::WallClock;
use crate::listen::Connection;
use crate::ops::metrics::Metrics;
use crate::service::Refusal;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use gosync_proto::limits::Limits;
use gosync_proto::{PROTOCOL_VERSION, Reason, mutant};
use http::{HeaderMap, HeaderValue, header};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// What the guard needs to know.
pub struct Guard {
    /// Recognises callers.
    pub auth: Arc<Auth>,
    /// For the details of refusals.
    pub limits: Limits,
    /// For the details of refusals.
    pub clock: WallClock,
    /// How often one address may show tokens that nobody has; `None` where all
    /// callers come from one, that of a proxy.
    pub wrong_tokens: Option<RateLimit<IpAddr>>,
    /// The longest time to an answer's head.
    pub request_timeout: Duration,
    /// Where calls are counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the server stops.
    pub drain: CancellationToken,
}

const DETAILS: &str = "grpc-status-details-bin";

/// Runs one call. Who may not call learns nothing, and nothing of the request
/// is read.
pub async fn guard(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let Some(method) = method_name(request.uri().path()) else {
        if mutant!(UnknownMethodsMissing) {
            return axum::response::IntoResponse::into_response(http::StatusCode::NOT_FOUND);
        }
        // health and reflection
        return guard.in_time(request, next).await;
    };
    let begun = Instant::now();
    let peer = request
        .extensions()
        .get::<Connection>()
        .map(|c| c.peer.ip());
    let place = mutant!(FewAtOnce).then(|| {
        static PLACES: Semaphore = Semaphore::const_new(8);
        PLACES.try_acquire()
    });
    let mut response = match guard.let_in(method, request.headers(), peer) {
        Ok(_) if matches!(place, Some(Err(_))) => {
            guard.refused(&Refusal::new(Reason::Unavailable, "others are calling"))
        }
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            if mutant!(CompressedUnasked) {
                let gzip = HeaderValue::from_static("gzip");
                request.headers_mut().insert("grpc-accept-encoding", gzip);
            }
            guard.refine(guard.in_time(request, next).await)
        }
        Err(refusal) => guard.refused(&refusal),
    };
    // proxies must neither buffer a stream nor keep an answer
    if !mutant!(StreamsBuffered) {
        response.headers_mut().insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store, no-transform"),
        );
    }
    if mutant!(EncodingsUntold) {
        response.headers_mut().remove("grpc-accept-encoding");
    }
    let code = status_code(response.headers()).unwrap_or(Code::Ok);
    let took = begun.elapsed();
    guard.metrics.call(method, code as i32, took);
    tracing::debug!(method, ?code, ?took, "call");
    response
}

impl Guard {
    /// What can be judged before the request is read.
    fn let_in(
        &self,
        method: &str,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
    ) -> Result<Caller, Refusal> {
        if self.drain.is_cancelled() {
            return Err(Refusal {
                retry_after_ms: 500,
                ..Refusal::new(Reason::Unavailable, "the server is stopping; retry")
            });
        }
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
        let legal_refused = mutant!(UnknownMetadataRefused)
            && headers.keys().any(|k| k.as_str().starts_with("x-any"))
            || mutant!(LongContentTypeRefused)
                && text("content-type").is_some_and(|t| t.ends_with("+proto"))
            || mutant!(PlainRefused) && !headers.contains_key("grpc-encoding");
        if legal_refused {
            return Err(Refusal::new(Reason::Malformed, "this is not taken here"));
        }
        let mut shown = text("authorization");
        if mutant!(TokenAnywhere) {
            shown = shown.or(text("x-authorization"));
        }
        let caller = self.identify(shown, peer)?;
        if method != "Hello" && mutant!(NoVersionSpoken) {
            check_version(None)?;
        }
        if method != "Hello" && !mutant!(AnyVersionSpoken) {
            check_version(text("gosync-version"))?;
        }
        Ok(caller)
    }

    /// Who calls. An address that has guessed too often is not listened to,
    /// whatever it says: only so do its guesses tell it nothing.
    fn identify(
        &self,
        authorization: Option<&str>,
        peer: Option<IpAddr>,
    ) -> Result<Caller, Refusal> {
        let limit = self.wrong_tokens.as_ref().zip(peer.map(network));
        let limit = limit.filter(|_| authorization.is_some() && !mutant!(GuessesUnlimited));
        let now = Instant::now();
        if let Some((limit, peer)) = &limit {
            limit.look(peer, now).map_err(|wait| Refusal {
                retry_after_ms: (wait.as_millis() as u64).max(1),
                ..Refusal::new(
                    Reason::RateLimited,
                    "too many wrong tokens came from this address; wait and retry",
                )
            })?;
        }
        let caller = self.auth.identify(authorization);
        if let (Err(refusal), Some((limit, peer))) = (&caller, limit)
            && refusal.reason == Reason::Unauthenticated
        {
            // an empty bucket is seen by the next call
            let _ = limit.take(peer, now);
        }
        caller
    }

    /// The answer; or DEADLINE_EXCEEDED, which is the caller's doing, or
    /// UNAVAILABLE, which is this server's.
    async fn in_time(&self, request: Request, next: Next) -> Response {
        let asked = grpc_timeout(request.headers()).filter(|_| !mutant!(DeadlineIgnored));
        let asked = asked.map(|asked| match mutant!(DeadlineAtOnce) {
            false => asked,
            true => Duration::ZERO,
        });
        let limit = asked.map_or(self.request_timeout, |asked| {
            asked.min(self.request_timeout)
        });
        let own = asked.is_none_or(|asked| asked > limit);
        let begun = Instant::now();
        tokio::time::timeout(limit, next.run(request))
            .await
            .ok()
            // timers are coarser than deadlines may be
            .filter(|_| begun.elapsed() <= limit)
            .unwrap_or_else(|| {
                let took = format!("the call took longer than {} ms", limit.as_millis());
                match own {
                    true => self.refused(&Refusal::new(Reason::Unavailable, took)),
                    false => Status::deadline_exceeded(took).into_http(),
                }
            })
    }

    /// A refusal without details comes from the library's decoder.
    fn refine(&self, response: Response) -> Response {
        let headers = response.headers();
        if headers.contains_key(DETAILS) {
            return response;
        }
        let code = status_code(headers).filter(|_| !mutant!(UndecodableInternal));
        let refused = code.and_then(|code| {
            let status = Status::from_header_map(headers)?;
            refine_transport_code(code, status.message(), &self.limits)
        });
        if mutant!(GarbageStops) && refused.is_some() {
            self.drain.cancel();
        }
        match refused {
            Some(_) if mutant!(GarbageWelcome) => Status::ok("").into_http(),
            Some(refusal) => self.refused(&refusal),
            None => response,
        }
    }

    fn refused(&self, refusal: &Refusal) -> Response {
        self.metrics.refused(refusal.reason);
        to_status(refusal, &self.limits, self.clock.now_ms()).into_http()
    }
}

/// Whom an address stands for: of IPv6 everybody has a /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
        v4 => v4,
    }
}

fn check_version(version: Option<&str>) -> Result<(), Refusal> {
    if version == Some(&*PROTOCOL_VERSION.to_string()) {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::UnsupportedVersion,
        match version {
            Some(v) => {
                format!("version {v:?} is not spoken here; this server speaks {PROTOCOL_VERSION}")
            }
            None => "no version came; send the one that Hello chose as metadata `gosync-version`"
                .to_owned(),
        },
    ))
}

fn method_name(path: &str) -> Option<&'static str> {
    const METHODS: [&str; 5] = ["Hello", "Push", "Watch", "Reconcile", "Snapshot"];
    let name = path.strip_prefix("/gosync.v1.SyncService/")?;
    METHODS.into_iter().find(|m| *m == name)
}

fn status_code(headers: &HeaderMap) -> Option<Code> {
    headers
        .get("grpc-status")
        .map(|v| Code::from_bytes(v.as_bytes()))
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
    fn the_addresses_of_one_household_are_one() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2::3"), network("2001:db8:1:2:f::"));
        assert_ne!(network("2001:db8:1:2::3"), network("2001:db8:1:3::3"));
        assert_ne!(network("10.0.0.1"), network("10.0.0.2"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
    }

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
