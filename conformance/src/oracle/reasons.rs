//! The closed list of reasons and the gRPC status that goes with each.

use crate::schema::v1;

/// gRPC status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
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

impl Code {
    /// By its number.
    pub fn from_number(number: u32) -> Option<Code> {
        use Code::*;
        const ALL: [Code; 17] = [
            Ok,
            Cancelled,
            Unknown,
            InvalidArgument,
            DeadlineExceeded,
            NotFound,
            AlreadyExists,
            PermissionDenied,
            ResourceExhausted,
            FailedPrecondition,
            Aborted,
            OutOfRange,
            Unimplemented,
            Internal,
            Unavailable,
            DataLoss,
            Unauthenticated,
        ];
        ALL.get(number as usize).copied()
    }
}

/// Each reason's name and status.
pub const REASONS: &[(&str, Code)] = &[
    ("UNSUPPORTED_VERSION", Code::FailedPrecondition),
    ("MALFORMED", Code::InvalidArgument),
    ("LIMIT_EXCEEDED", Code::ResourceExhausted),
    ("UNAUTHENTICATED", Code::Unauthenticated),
    ("TOKEN_EXPIRED", Code::Unauthenticated),
    ("NO_ACCESS", Code::PermissionDenied),
    ("CLOCK_SKEW", Code::OutOfRange),
    ("BEHIND_COMPACTION", Code::FailedPrecondition),
    ("HISTORY_CHANGED", Code::FailedPrecondition),
    ("HORIZON_CHANGED", Code::FailedPrecondition),
    ("LAGGING", Code::Unavailable),
    ("BATCH_ABORTED", Code::Aborted),
    ("QUOTA_EXCEEDED", Code::ResourceExhausted),
    ("RATE_LIMITED", Code::ResourceExhausted),
    ("SPACE_RETIRED", Code::FailedPrecondition),
    ("UNAVAILABLE", Code::Unavailable),
    ("STREAM_EXPIRED", Code::Unavailable),
    ("SLOW_READER", Code::Unavailable),
    ("STORAGE", Code::Unavailable),
    ("INTERNAL", Code::Internal),
];

/// The status that must go with a reason.
pub fn status_of(reason: &str) -> Option<Code> {
    REASONS
        .iter()
        .find(|(name, _)| *name == reason)
        .map(|(_, code)| *code)
}

/// The name of a reason on the wire, without the enum's prefix; empty for
/// "unspecified" and for values that version 1 does not have.
pub fn reason_name(value: i32) -> &'static str {
    match v1::Reason::try_from(value) {
        Ok(v1::Reason::Unspecified) | Err(_) => "",
        Ok(reason) => reason
            .as_str_name()
            .strip_prefix("REASON_")
            .unwrap_or_default(),
    }
}
