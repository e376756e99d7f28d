//! Why the peer refuses something.

use crate::net::Status;
use crate::oracle::Code;
use crate::oracle::status_of;
use crate::schema::v1;

/// A refusal by a reason of the protocol, with its detail.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// "MALFORMED".
    pub reason: &'static str,
    /// For people.
    pub text: String,
    /// A typed detail.
    pub detail: Option<Box<Detail>>,
}

/// The typed details of refusals.
#[derive(Clone, Debug)]
pub enum Detail {
    /// Where the replica stands.
    History(v1::HistoryDetail),
    /// Which limit.
    Limit(v1::LimitDetail),
    /// The server's clock and versions.
    Server(v1::ServerDetail),
    /// One of a type that nobody knows.
    Later(v1::LimitDetail),
}

impl Refusal {
    /// Without a typed detail.
    pub fn new(reason: &'static str, text: impl Into<String>) -> Refusal {
        Refusal {
            reason,
            text: text.into(),
            detail: None,
        }
    }

    /// LIMIT_EXCEEDED.
    pub fn limit(name: &str, allowed: u64, actual: u64) -> Refusal {
        Refusal {
            reason: "LIMIT_EXCEEDED",
            text: format!("{name} is {allowed}, this is {actual}"),
            detail: Some(Box::new(Detail::Limit(v1::LimitDetail {
                limit: name.to_owned(),
                allowed,
                actual: Some(actual),
            }))),
        }
    }

    /// As the end of a call.
    pub fn status(&self) -> Status {
        let code = status_of(self.reason).unwrap_or(Code::Unimplemented);
        let status = Status::refused(code, self.reason, &self.text);
        match self.detail.as_deref() {
            None => status,
            Some(Detail::History(d)) => status.with("gosync.v1.HistoryDetail", d),
            Some(Detail::Limit(d)) => status.with("gosync.v1.LimitDetail", d),
            Some(Detail::Server(d)) => status.with("gosync.v1.ServerDetail", d),
            Some(Detail::Later(d)) => status.with("gosync.v7.LaterDetail", d),
        }
    }
}
