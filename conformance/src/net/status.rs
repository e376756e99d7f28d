//! A gRPC status with its details, to and from headers.

use crate::oracle::Code;
use crate::schema::v1;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose};
use prost::Message;
use std::fmt;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    /// "type.googleapis.com/" and the message's name.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    /// As `grpc-status`.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// As `grpc-message`.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Typed details.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Message)]
pub struct ErrorInfo {
    /// The protocol's reason.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// "gosync".
    #[prost(string, tag = "2")]
    pub domain: String,
    /// More for people and logs.
    #[prost(btree_map = "string, string", tag = "3")]
    pub metadata: std::collections::BTreeMap<String, String>,
}

/// `google.rpc.RetryInfo`, its delay in parts.
#[derive(Clone, PartialEq, Message)]
pub struct RetryInfo {
    /// How long to wait.
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Delay {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// And nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Status {
    /// `grpc-status`.
    pub code: u32,
    /// `grpc-message`, decoded.
    pub message: String,
    /// The reason of the `ErrorInfo` in domain "gosync"; empty if none.
    pub reason: String,
    /// The other details: name of the type and encoded message.
    pub details: Vec<Any>,
    /// What is wrong with the status itself.
    pub problems: Vec<String>,
}

impl Status {
    /// Success.
    pub fn ok() -> Status {
        Status::default()
    }

    /// A refusal for a reason of the protocol.
    pub fn refused(code: Code, reason: &str, message: &str) -> Status {
        Status {
            code: code as u32,
            message: message.to_owned(),
            reason: reason.to_owned(),
            ..Status::default()
        }
    }

    /// With one more typed detail of package `gosync.v1`.
    #[must_use]
    pub fn with(mut self, name: &str, detail: &impl Message) -> Status {
        self.details.push(Any {
            type_url: format!("type.googleapis.com/{name}"),
            value: detail.encode_to_vec(),
        });
        self
    }

    /// The detail of that type.
    pub fn detail<T: Message + Default>(&self, name: &str) -> Option<T> {
        let any = self
            .details
            .iter()
            .find(|d| d.type_url.rsplit('/').next() == Some(name))?;
        T::decode(any.value.as_slice()).ok()
    }

    /// The detail about history.
    pub fn history(&self) -> Option<v1::HistoryDetail> {
        self.detail("gosync.v1.HistoryDetail")
    }

    /// As header fields.
    pub fn to_headers(&self) -> Vec<(String, String)> {
        let mut headers = vec![("grpc-status".to_owned(), self.code.to_string())];
        if !self.message.is_empty() {
            headers.push(("grpc-message".to_owned(), percent_encode(&self.message)));
        }
        if !self.reason.is_empty() || !self.details.is_empty() {
            let mut details = Vec::new();
            if !self.reason.is_empty() {
                let info = ErrorInfo {
                    reason: self.reason.clone(),
                    domain: "gosync".into(),
                    ..ErrorInfo::default()
                };
                details.push(Any {
                    type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
                    value: info.encode_to_vec(),
                });
            }
            details.extend(self.details.iter().cloned());
            let status = RpcStatus {
                code: self.code as i32,
                message: self.message.clone(),
                details,
            };
            headers.push((
                "grpc-status-details-bin".to_owned(),
                general_purpose::STANDARD_NO_PAD.encode(status.encode_to_vec()),
            ));
        }
        headers
    }

    /// From header fields; `None` when there is no `grpc-status`.
    pub fn from_headers(headers: &[(String, String)]) -> Option<Status> {
        let get = |name: &str| {
            headers
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        let text = get("grpc-status")?;
        let mut status = Status::default();
        if headers.iter().filter(|(n, _)| n == "grpc-status").count() > 1 {
            status.problems.push("grpc-status comes twice".into());
        }
        match text.parse::<u32>() {
            Ok(code) => status.code = code,
            Err(_) => {
                status.code = Code::Unknown as u32;
                status
                    .problems
                    .push(format!("grpc-status {text:?} is no number"));
            }
        }
        status.message = percent_decode(get("grpc-message").unwrap_or(""));
        if let Some(encoded) = get("grpc-status-details-bin") {
            match LENIENT
                .decode(encoded.trim())
                .map_err(|e| e.to_string())
                .and_then(|b| RpcStatus::decode(b.as_slice()).map_err(|e| e.to_string()))
            {
                Ok(details) => status.take_details(details),
                Err(e) => status
                    .problems
                    .push(format!("grpc-status-details-bin cannot be read: {e}")),
            }
        }
        Some(status)
    }

    fn take_details(&mut self, details: RpcStatus) {
        if details.code != self.code as i32 {
            self.problems.push(format!(
                "grpc-status is {}, but its details say {}",
                self.code, details.code
            ));
        }
        for any in details.details {
            if any.type_url.rsplit('/').next() == Some("google.rpc.ErrorInfo") {
                match ErrorInfo::decode(any.value.as_slice()) {
                    Ok(info) if info.domain == "gosync" => self.reason = info.reason,
                    Ok(_) => {}
                    Err(e) => self.problems.push(format!("ErrorInfo cannot be read: {e}")),
                }
            } else {
                self.details.push(any);
            }
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Code::from_number(self.code) {
            Some(code) => write!(f, "{code:?}")?,
            None => write!(f, "status {}", self.code)?,
        }
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b' '..=b'~' if b != b'%' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes
            .get(i + 1..i + 3)
            .filter(|_| bytes[i] == b'%')
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match hex {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_its_headers() {
        let limit = v1::LimitDetail {
            limit: "max_ranges".into(),
            allowed: 3,
            actual: Some(9),
        };
        let status = Status::refused(Code::ResourceExhausted, "LIMIT_EXCEEDED", "zu groß: 100 %")
            .with("gosync.v1.LimitDetail", &limit);
        let back = Status::from_headers(&status.to_headers()).unwrap();
        assert_eq!(back, status);
        assert_eq!(back.detail("gosync.v1.LimitDetail"), Some(limit));
    }

    #[test]
    fn details_that_contradict_the_status_are_a_problem() {
        let mut headers = Status::refused(Code::Aborted, "BATCH_ABORTED", "").to_headers();
        headers[0].1 = "3".into();
        assert_eq!(Status::from_headers(&headers).unwrap().problems.len(), 1);
    }

    #[test]
    fn no_status_is_none() {
        assert_eq!(Status::from_headers(&[]), None);
    }
}
