//! Why a call is refused, with everything the wire says about it. Knows no
//! gRPC: the shell packs it into a status or a StreamEnd.

use crate::store::StoreError;
use gosync_proto::wire;
use gosync_proto::{Invalid, Reason, mutant};

/// A refused call, or the end of a stream.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Refusal {
    /// Why; it decides the gRPC status.
    pub reason: Reason,
    /// One sentence for people, without secrets.
    pub detail: String,
    /// The field of the request that is to blame, as a path of the schema.
    pub field: Option<String>,
    /// Wait at least so long before the next try, milliseconds; 0: nothing
    /// is known.
    pub retry_after_ms: u64,
    /// With reasons of history.
    pub history: Option<Box<wire::HistoryDetail>>,
    /// With LIMIT_EXCEEDED and QUOTA_EXCEEDED.
    pub limit: Option<wire::LimitDetail>,
}

impl Refusal {
    /// Without details.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Refusal {
        Refusal {
            reason,
            detail: detail.into(),
            field: None,
            retry_after_ms: 0,
            history: None,
            limit: None,
        }
    }

    /// With the history that explains it.
    pub fn with_history(mut self, history: wire::HistoryDetail) -> Refusal {
        self.history = Some(Box::new(history));
        self
    }

    /// As the last message of a stream.
    pub fn to_stream_end(&self) -> wire::StreamEnd {
        wire::StreamEnd {
            reason: self.reason.to_wire() as i32,
            detail: self.detail.clone(),
            retry_after_ms: self.retry_after_ms,
            history: match mutant!(EndWithoutHistory) {
                false => self.history.as_deref().cloned(),
                true => None,
            },
        }
    }
}

impl From<Invalid> for Refusal {
    fn from(e: Invalid) -> Refusal {
        Refusal {
            detail: e.to_string(),
            field: Some(e.field),
            limit: e.limit.map(|l| wire::LimitDetail {
                limit: l.name.to_owned(),
                allowed: l.allowed,
                actual: Some(l.actual),
            }),
            ..Refusal::new(e.reason, "")
        }
    }
}

/// The details stay in the server's log: they name files.
impl From<StoreError> for Refusal {
    fn from(e: StoreError) -> Refusal {
        match &e {
            StoreError::Busy(_) => {
                tracing::warn!(error = %e, "a call found the store busy");
                Refusal {
                    retry_after_ms: 200,
                    ..Refusal::new(Reason::Unavailable, "the server's store is busy; retry")
                }
            }
            StoreError::Misuse(_) => {
                tracing::error!(error = %e, "a call met a fault of the server");
                Refusal::new(
                    Reason::Internal,
                    "the server made an error; nothing was stored",
                )
            }
            _ => {
                tracing::error!(error = %e, "a call failed in the store");
                Refusal {
                    retry_after_ms: 1_000,
                    ..Refusal::new(
                        Reason::Storage,
                        "the server's storage failed; nothing was acknowledged",
                    )
                }
            }
        }
    }
}
