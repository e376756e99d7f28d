//! A failed call as the engine sees it, decoded from a gRPC status and the
//! `google.rpc` messages packed into it. Knows no gRPC library.

use gosync_proto::reason::{Action, ERROR_DOMAIN};
use gosync_proto::{Reason, mutant, wire};
use prost::Message;

/// Why a call or a stream failed.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("{cause}: {message}")]
pub struct CallError {
    /// What the engine decides by.
    pub cause: Cause,
    /// For people.
    pub message: String,
    /// Wait at least this long before the next try, milliseconds.
    pub retry_after_ms: Option<u64>,
    /// With HISTORY_CHANGED, HORIZON_CHANGED and BEHIND_COMPACTION.
    pub history: Option<Box<wire::HistoryDetail>>,
    /// With LIMIT_EXCEEDED and QUOTA_EXCEEDED.
    pub limit: Option<Box<wire::LimitDetail>>,
    /// With CLOCK_SKEW and UNSUPPORTED_VERSION.
    pub server: Option<Box<wire::ServerDetail>>,
}

/// The kind of a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The server said why.
    Refused(Reason),
    /// No answer, or one without a reason of ours: by its gRPC code. Browsers
    /// report every network failure as UNKNOWN (2).
    Status(i32),
    /// The server answered something that the protocol does not allow.
    Misbehaved,
    /// The engine gave up waiting.
    TimedOut,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::Refused(reason) => write!(f, "refused with {reason}"),
            Cause::Status(code) => write!(f, "failed with gRPC status {code}"),
            Cause::Misbehaved => f.write_str("the server broke the protocol"),
            Cause::TimedOut => f.write_str("no answer in time"),
        }
    }
}

/// UNAUTHENTICATED of gRPC.
const UNAUTHENTICATED: i32 = 16;
/// PERMISSION_DENIED of gRPC.
const PERMISSION_DENIED: i32 = 7;
/// UNIMPLEMENTED of gRPC.
const UNIMPLEMENTED: i32 = 12;

impl CallError {
    /// A failure without details.
    pub fn new(cause: Cause, message: impl Into<String>) -> CallError {
        CallError {
            cause,
            message: message.into(),
            retry_after_ms: None,
            history: None,
            limit: None,
            server: None,
        }
    }

    /// The server broke the protocol.
    pub fn misbehaved(message: impl Into<String>) -> CallError {
        CallError::new(Cause::Misbehaved, message)
    }

    /// From a gRPC status: its code, its message and the bytes of
    /// `grpc-status-details-bin` (a `google.rpc.Status`). Details that do not
    /// decode are passed over: the code alone decides then.
    pub fn from_grpc(code: i32, message: &str, details: &[u8]) -> CallError {
        let mut error = CallError::new(Cause::Status(code), message);
        let status = RpcStatus::decode(details).unwrap_or_default();
        for any in &status.details {
            let name = any.type_url.rsplit('/').next().unwrap_or_default();
            match name {
                "google.rpc.ErrorInfo" => {
                    if let Some(reason) = decode::<ErrorInfo>(any)
                        .filter(|info| info.domain == ERROR_DOMAIN)
                        .and_then(|info| Reason::from_name(&info.reason))
                    {
                        error.cause = Cause::Refused(reason);
                    }
                }
                "google.rpc.RetryInfo" => {
                    error.retry_after_ms = decode::<RetryInfo>(any)
                        .and_then(|info| info.retry_delay)
                        .and_then(|d| {
                            let seconds = u64::try_from(d.seconds).ok()?;
                            let millis = u64::try_from(d.nanos).ok()? / 1_000_000;
                            Some(seconds.saturating_mul(1000).saturating_add(millis))
                        });
                }
                "gosync.v1.HistoryDetail" => error.history = decode(any).map(Box::new),
                "gosync.v1.LimitDetail" => error.limit = decode(any).map(Box::new),
                "gosync.v1.ServerDetail" => error.server = decode(any).map(Box::new),
                _ if mutant!(UnknownDetailsStop) => error.cause = Cause::Status(UNIMPLEMENTED),
                _ => {}
            }
        }
        if mutant!(TextDecides) {
            let named = message.split([' ', ':', ',']).find_map(Reason::from_name);
            error.cause = named.map_or(error.cause, Cause::Refused);
        }
        error
    }

    /// From the last message of a stream, when it names a reason.
    pub fn from_end(end: wire::StreamEnd) -> CallError {
        let cause = match Reason::from_wire(end.reason) {
            Some(reason) => Cause::Refused(reason),
            // an unknown reason: by the status alone, which was OK
            None => Cause::Status(0),
        };
        CallError {
            retry_after_ms: (end.retry_after_ms > 0).then_some(end.retry_after_ms),
            history: end.history.map(Box::new),
            ..CallError::new(cause, end.detail)
        }
    }

    /// The server's reason.
    pub fn reason(&self) -> Option<Reason> {
        match self.cause {
            Cause::Refused(reason) => Some(reason),
            _ => None,
        }
    }

    /// What the replica does about it. Without a reason the status decides;
    /// an unknown status may pass, so it is tried again.
    pub fn action(&self) -> Action {
        match self.cause {
            Cause::Refused(_) if mutant!(ReasonsIgnored) => Action::Retry,
            Cause::Status(_) if mutant!(UnknownReasonsStop) => Action::Stop,
            Cause::Misbehaved if mutant!(MisbehaviourStops) => Action::Stop,
            Cause::Refused(reason) => reason.action(),
            Cause::Status(UNAUTHENTICATED) => Action::Authenticate,
            Cause::Status(PERMISSION_DENIED) => Action::Report,
            Cause::Status(UNIMPLEMENTED) => Action::Upgrade,
            Cause::Status(_) | Cause::Misbehaved | Cause::TimedOut => Action::Retry,
        }
    }
}

fn decode<M: Message + Default>(any: &prost_types::Any) -> Option<M> {
    M::decode(&any.value[..]).ok()
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.ErrorInfo`, without its metadata.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(name: &str, message: impl Message) -> prost_types::Any {
        prost_types::Any {
            type_url: format!("type.googleapis.com/{name}"),
            value: message.encode_to_vec(),
        }
    }

    fn info(reason: &str, domain: &str) -> prost_types::Any {
        any(
            "google.rpc.ErrorInfo",
            ErrorInfo {
                reason: reason.into(),
                domain: domain.into(),
            },
        )
    }

    fn decoded(code: i32, details: Vec<prost_types::Any>) -> CallError {
        let status = RpcStatus {
            code,
            message: "m".into(),
            details,
        };
        CallError::from_grpc(code, "m", &status.encode_to_vec())
    }

    #[test]
    fn the_reason_the_delay_and_our_details_are_found() {
        let detail = wire::HistoryDetail {
            position: None,
            held: vec![],
            restore_points: vec![wire::RestorePoint {
                epoch: 1,
                sequence: 2,
            }],
        };
        let delay = RetryInfo {
            retry_delay: Some(prost_types::Duration {
                seconds: 1,
                nanos: 500_000_000,
            }),
        };
        let e = decoded(
            9,
            vec![
                info("HISTORY_CHANGED", "gosync"),
                any("google.rpc.RetryInfo", delay),
                any("gosync.v1.HistoryDetail", detail.clone()),
            ],
        );
        assert_eq!(e.reason(), Some(Reason::HistoryChanged));
        assert_eq!(e.retry_after_ms, Some(1500));
        assert_eq!(e.history, Some(Box::new(detail)));
    }

    #[test]
    fn a_reason_of_another_domain_or_version_leaves_the_status_to_decide() {
        for foreign in [info("TOKEN_EXPIRED", "example.com"), info("NEWS", "gosync")] {
            let e = decoded(14, vec![foreign]);
            assert_eq!(e.cause, Cause::Status(14));
            assert_eq!(e.action(), Action::Retry);
        }
    }

    #[test]
    fn details_that_do_not_decode_are_passed_over() {
        let e = CallError::from_grpc(2, "network", &[0xff, 0xff, 0xff]);
        assert_eq!(e.action(), Action::Retry);
        let broken = prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
            value: vec![0xff],
        };
        assert_eq!(decoded(16, vec![broken]).action(), Action::Authenticate);
    }

    #[test]
    fn a_negative_delay_is_no_delay() {
        let delay = RetryInfo {
            retry_delay: Some(prost_types::Duration {
                seconds: -5,
                nanos: 0,
            }),
        };
        assert_eq!(
            decoded(14, vec![any("google.rpc.RetryInfo", delay)]).retry_after_ms,
            None
        );
    }
}
