//! The closed list of reasons for a refusal, and the error that bad input
//! becomes. The one place that says what a reason means for a caller.

use crate::wire;
use std::fmt;

/// The domain of `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "gosync";

/// The gRPC status codes that the protocol uses, by number. Kept apart from
/// any gRPC library, so that this crate needs none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs)]
pub enum Status {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// What a replica does about a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Action {
    /// Send the same again, after the delay given or a backoff.
    Retry,
    /// Start a new session with Hello; it tells what to reconcile.
    Resync,
    /// Get another token, once; then wait for the user.
    Authenticate,
    /// Give the refused write a new version and send that.
    Restamp,
    /// Keep the write, show it to the user, go on with the others.
    Report,
    /// Stop: the software has to be upgraded.
    Upgrade,
    /// Stop for this space.
    Stop,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:ident, $action:ident;)*) => {
        /// Why something was refused. See the comments of `gosync.v1.Reason`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All of them, in the order of the schema.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),*];

            /// The name on the wire (`google.rpc.ErrorInfo.reason`).
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            /// The gRPC status that goes with it when a call fails for it.
            pub fn status(self) -> Status {
                match self { $(Reason::$name => Status::$status,)* }
            }

            /// What the replica must do.
            pub fn action(self) -> Action {
                match self { $(Reason::$name => Action::$action,)* }
            }

            /// The reason of that wire name.
            pub fn from_name(name: &str) -> Option<Reason> {
                match name { $($text => Some(Reason::$name),)* _ => None }
            }

            /// As an enum value of the schema.
            pub fn to_wire(self) -> wire::Reason {
                match self { $(Reason::$name => wire::Reason::$name,)* }
            }

            /// From an enum value of the schema; `None` for 0 and for values
            /// that this version does not know.
            pub fn from_wire(value: i32) -> Option<Reason> {
                match wire::Reason::try_from(value).ok()? {
                    wire::Reason::Unspecified => None,
                    $(wire::Reason::$name => Some(Reason::$name),)*
                }
            }
        }
    };
}

reasons! {
    /// No protocol version in common.
    UnsupportedVersion = "UNSUPPORTED_VERSION", FailedPrecondition, Upgrade;
    /// A field is missing, malformed or contradicts another.
    Malformed = "MALFORMED", InvalidArgument, Report;
    /// Over an advertised limit.
    LimitExceeded = "LIMIT_EXCEEDED", ResourceExhausted, Report;
    /// No token, or one that is not valid.
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated, Authenticate;
    /// The token was valid and is no longer.
    TokenExpired = "TOKEN_EXPIRED", Unauthenticated, Authenticate;
    /// No grant covers it, or it does not exist.
    NoAccess = "NO_ACCESS", PermissionDenied, Report;
    /// The version is too far in the future.
    ClockSkew = "CLOCK_SKEW", OutOfRange, Restamp;
    /// The version is below the horizon and the pusher is behind compaction.
    BehindCompaction = "BEHIND_COMPACTION", FailedPrecondition, Resync;
    /// The replica must reconcile first.
    HistoryChanged = "HISTORY_CHANGED", FailedPrecondition, Resync;
    /// The fingerprints name another horizon than the server's.
    HorizonChanged = "HORIZON_CHANGED", FailedPrecondition, Resync;
    /// This server has not caught up with the cursor.
    Lagging = "LAGGING", Unavailable, Retry;
    /// Another record of the atomic batch was refused.
    BatchAborted = "BATCH_ABORTED", Aborted, Report;
    /// The space is full.
    QuotaExceeded = "QUOTA_EXCEEDED", ResourceExhausted, Report;
    /// Too many requests.
    RateLimited = "RATE_LIMITED", ResourceExhausted, Retry;
    /// The space was deleted for good.
    SpaceRetired = "SPACE_RETIRED", FailedPrecondition, Stop;
    /// Shutting down or shedding load.
    Unavailable = "UNAVAILABLE", Unavailable, Retry;
    /// A stream reached its greatest lifetime.
    StreamExpired = "STREAM_EXPIRED", Unavailable, Retry;
    /// The reader took too long.
    SlowReader = "SLOW_READER", Unavailable, Retry;
    /// The server's storage failed; nothing was acknowledged.
    Storage = "STORAGE", Unavailable, Retry;
    /// A fault of the server itself.
    Internal = "INTERNAL", Internal, Retry;
}

impl Reason {
    /// The types of the status details that go with it besides
    /// `google.rpc.ErrorInfo`, when a call fails for it. `RetryInfo` is there
    /// where the server knows a delay.
    pub fn details(self) -> &'static [&'static str] {
        match self {
            Reason::UnsupportedVersion => &["gosync.v1.ServerDetail"],
            Reason::ClockSkew => &["gosync.v1.ServerDetail"],
            Reason::Malformed => &["google.rpc.BadRequest"],
            Reason::LimitExceeded => &["google.rpc.BadRequest", "gosync.v1.LimitDetail"],
            Reason::QuotaExceeded => &["google.rpc.QuotaFailure", "gosync.v1.LimitDetail"],
            Reason::RateLimited => &[
                "google.rpc.RetryInfo",
                "google.rpc.QuotaFailure",
                "gosync.v1.LimitDetail",
            ],
            Reason::BehindCompaction | Reason::HistoryChanged | Reason::HorizonChanged => {
                &["gosync.v1.HistoryDetail"]
            }
            _ if self.retryable() => &["google.rpc.RetryInfo"],
            _ => &[],
        }
    }

    /// Whether the same request may succeed later without a change.
    pub fn retryable(self) -> bool {
        self.action() == Action::Retry
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Input that the peer (or the caller) got wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field} {problem}")]
pub struct Invalid {
    /// Why it is refused.
    pub reason: Reason,
    /// Which field, as a path of the schema.
    pub field: String,
    /// What is wrong with it, as the rest of a sentence that begins with the
    /// field.
    pub problem: String,
    /// The limit that was exceeded.
    pub limit: Option<ExceededLimit>,
}

/// A limit and by how much it was exceeded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExceededLimit {
    /// Name of the field of `gosync.v1.Limits`, or of a fixed limit.
    pub name: &'static str,
    /// The most that is allowed.
    pub allowed: u64,
    /// What came.
    pub actual: u64,
}

impl Invalid {
    /// Any reason.
    pub fn new(reason: Reason, field: impl Into<String>, problem: impl Into<String>) -> Invalid {
        Invalid {
            reason,
            field: field.into(),
            problem: problem.into(),
            limit: None,
        }
    }

    /// [`Reason::Malformed`].
    pub fn malformed(field: impl Into<String>, problem: impl Into<String>) -> Invalid {
        Invalid::new(Reason::Malformed, field, problem)
    }

    /// [`Reason::LimitExceeded`].
    pub fn limit(
        field: impl Into<String>,
        name: &'static str,
        allowed: u64,
        actual: u64,
    ) -> Invalid {
        Invalid {
            reason: Reason::LimitExceeded,
            field: field.into(),
            problem: format!("is over the limit {name}: {actual}, allowed {allowed}"),
            limit: Some(ExceededLimit {
                name,
                allowed,
                actual,
            }),
        }
    }

    /// The same error, seen from one level further out.
    #[must_use]
    pub fn within(mut self, outer: impl fmt::Display) -> Invalid {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_distinct_name_and_survives_the_wire() {
        let names: std::collections::HashSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for &r in Reason::ALL {
            assert_eq!(Reason::from_name(r.as_str()), Some(r));
            assert_eq!(Reason::from_wire(r.to_wire() as i32), Some(r));
            assert_eq!(r.to_wire().as_str_name(), format!("REASON_{}", r.as_str()));
        }
    }

    #[test]
    fn every_reason_of_the_schema_is_known() {
        let values = (1..).map_while(|value| crate::wire::Reason::try_from(value).ok());
        assert_eq!(values.count(), Reason::ALL.len());
    }

    #[test]
    fn an_unknown_reason_is_none() {
        assert_eq!(Reason::from_wire(0), None);
        assert_eq!(Reason::from_wire(9999), None);
        assert_eq!(Reason::from_name("NOT_A_REASON"), None);
    }

    #[test]
    fn a_limit_error_names_the_limit_and_both_numbers() {
        let e = Invalid::limit("key", "max_key_bytes", 512, 513).within("records[3]");
        assert_eq!(
            e.to_string(),
            "records[3].key is over the limit max_key_bytes: 513, allowed 512"
        );
    }
}
