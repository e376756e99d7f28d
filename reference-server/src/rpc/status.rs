//! From a refusal to what gRPC carries: a status with `google.rpc` details.
//! The one place that knows how errors are packed; what a reason means stands
//! in the protocol crate.

use crate::service::Refusal;
use gosync_proto::limits::Limits;
use gosync_proto::reason::ERROR_DOMAIN;
use gosync_proto::{PROTOCOL_VERSION, Reason, mutant, wire};
use prost::Message;
use prost_types::Any;
use std::collections::BTreeMap;
use tonic::{Code, Status};

/// `google.rpc`: the parts that are used here.
mod google {
    use super::{Any, BTreeMap};

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Status {
        #[prost(int32, tag = "1")]
        pub code: i32,
        #[prost(string, tag = "2")]
        pub message: String,
        #[prost(message, repeated, tag = "3")]
        pub details: Vec<Any>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ErrorInfo {
        #[prost(string, tag = "1")]
        pub reason: String,
        #[prost(string, tag = "2")]
        pub domain: String,
        #[prost(btree_map = "string, string", tag = "3")]
        pub metadata: BTreeMap<String, String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        pub retry_delay: Option<prost_types::Duration>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct BadRequest {
        #[prost(message, repeated, tag = "1")]
        pub field_violations: Vec<FieldViolation>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct FieldViolation {
        #[prost(string, tag = "1")]
        pub field: String,
        #[prost(string, tag = "2")]
        pub description: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct QuotaFailure {
        #[prost(message, repeated, tag = "1")]
        pub violations: Vec<QuotaViolation>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct QuotaViolation {
        #[prost(string, tag = "1")]
        pub subject: String,
        #[prost(string, tag = "2")]
        pub description: String,
    }
}

fn any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{name}"),
        value: message.encode_to_vec(),
    }
}

/// A refused call as a gRPC status with its details.
pub fn to_status(refusal: &Refusal, limits: &Limits, now_ms: u64) -> Status {
    let code = match mutant!(AlwaysUnknown) {
        false => refusal.reason.status() as i32,
        true => Code::Unknown as i32,
    };
    let mut metadata = BTreeMap::new();
    if let Some(field) = &refusal.field {
        metadata.insert("field".to_owned(), field.clone());
    }
    let mut details = vec![any(
        "google.rpc.ErrorInfo",
        &google::ErrorInfo {
            reason: match mutant!(ReasonsUnnamed) {
                false if mutant!(ReasonsMadeUp) => "SOMETHING_ELSE".to_owned(),
                false => refusal.reason.as_str().to_owned(),
                true => String::new(),
            },
            domain: ERROR_DOMAIN.to_owned(),
            metadata,
        },
    )];
    details.extend(
        refusal
            .reason
            .details()
            .iter()
            .filter_map(|name| detail(name, refusal, limits, now_ms)),
    );
    let packed = google::Status {
        code,
        message: refusal.detail.clone(),
        details,
    };
    Status::with_details(
        Code::from_i32(code),
        refusal.detail.clone(),
        packed.encode_to_vec().into(),
    )
}

/// A further detail of a refusal. `None` where the refusal does not know it.
fn detail(name: &str, refusal: &Refusal, limits: &Limits, now_ms: u64) -> Option<Any> {
    Some(match name {
        "google.rpc.RetryInfo" => {
            let ms = refusal.retry_after_ms;
            let retry_delay = (ms > 0).then_some(prost_types::Duration {
                seconds: (ms / 1000) as i64,
                nanos: (ms % 1000) as i32 * 1_000_000,
            });
            any(
                name,
                &google::RetryInfo {
                    retry_delay: Some(retry_delay?),
                },
            )
        }
        "google.rpc.BadRequest" => {
            let violation = google::FieldViolation {
                field: refusal.field.clone().unwrap_or_default(),
                description: refusal.detail.clone(),
            };
            any(
                name,
                &google::BadRequest {
                    field_violations: vec![violation],
                },
            )
        }
        "google.rpc.QuotaFailure" => {
            let limit = refusal.limit.as_ref();
            let violation = google::QuotaViolation {
                subject: limit.map_or_else(|| "caller".to_owned(), |l| l.limit.clone()),
                description: refusal.detail.clone(),
            };
            any(
                name,
                &google::QuotaFailure {
                    violations: vec![violation],
                },
            )
        }
        "gosync.v1.ServerDetail" => any(
            name,
            &wire::ServerDetail {
                server_time_ms: now_ms,
                max_clock_skew_ms: limits.max_clock_skew_ms,
                versions: match mutant!(VersionsUntold) {
                    false => vec![PROTOCOL_VERSION],
                    true => Vec::new(),
                },
            },
        ),
        "gosync.v1.HistoryDetail" if mutant!(HistoryUntold) => return None,
        "gosync.v1.HistoryDetail" => any(name, refusal.history.as_deref()?),
        "gosync.v1.LimitDetail" if mutant!(LimitsUnnamed) => return None,
        "gosync.v1.LimitDetail" => any(name, refusal.limit.as_ref()?),
        _ => return None,
    })
}

/// What the transport library refused before a handler saw it, in this
/// protocol's terms. `None` where its status says enough.
pub fn refine_transport_code(code: Code, message: &str, limits: &Limits) -> Option<Refusal> {
    match code {
        // the decoder's only uses of these: too long, before and after
        // decompression
        Code::OutOfRange | Code::ResourceExhausted => Some(Refusal {
            limit: Some(wire::LimitDetail {
                limit: "max_message_bytes".to_owned(),
                allowed: limits.max_message_bytes,
                actual: None,
            }),
            ..Refusal::new(
                Reason::LimitExceeded,
                format!(
                    "the request is over the limit max_message_bytes: allowed {}",
                    limits.max_message_bytes
                ),
            )
        }),
        Code::Internal => Some(Refusal::new(
            Reason::Malformed,
            format!("the request could not be decoded: {message}"),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(status: &Status) -> google::Status {
        google::Status::decode(status.details()).unwrap()
    }

    fn unpacked<M: Message + Default>(status: &Status, name: &str) -> M {
        let found = unpack(status)
            .details
            .into_iter()
            .find(|d| d.type_url == format!("type.googleapis.com/{name}"));
        M::decode(&*found.unwrap_or_else(|| panic!("no {name}")).value).unwrap()
    }

    #[test]
    fn every_reason_travels_with_its_name_and_status() {
        for &reason in Reason::ALL {
            let status = to_status(&Refusal::new(reason, "because"), &Limits::default(), 7);
            assert_eq!(status.code() as i32, reason.status() as i32);
            let info: google::ErrorInfo = unpacked(&status, "google.rpc.ErrorInfo");
            assert_eq!(status.message(), "because");
            assert_eq!((&*info.reason, &*info.domain), (reason.as_str(), "gosync"));
            assert_eq!(unpack(&status).code, reason.status() as i32);
        }
    }

    #[test]
    fn every_reason_carries_the_details_that_the_protocol_lists_for_it() {
        for &reason in Reason::ALL {
            let refusal = Refusal {
                field: Some("f".into()),
                retry_after_ms: 5,
                history: Some(Box::default()),
                limit: Some(wire::LimitDetail::default()),
                ..Refusal::new(reason, "because")
            };
            let status = to_status(&refusal, &Limits::default(), 7);
            let got: Vec<String> = unpack(&status)
                .details
                .into_iter()
                .skip(1)
                .map(|d| d.type_url.replace("type.googleapis.com/", ""))
                .collect();
            assert_eq!(got, reason.details(), "{reason}");
        }
    }

    #[test]
    fn a_limit_names_field_limit_and_numbers() {
        let invalid = gosync_proto::Invalid::limit("key", "max_key_bytes", 512, 600);
        let status = to_status(&invalid.into(), &Limits::default(), 7);
        let limit: wire::LimitDetail = unpacked(&status, "gosync.v1.LimitDetail");
        assert_eq!((limit.allowed, limit.actual), (512, Some(600)));
        let bad: google::BadRequest = unpacked(&status, "google.rpc.BadRequest");
        assert_eq!(bad.field_violations[0].field, "key");
    }

    #[test]
    fn a_delay_is_a_retry_info() {
        let refusal = Refusal {
            retry_after_ms: 1_250,
            ..Refusal::new(Reason::RateLimited, "slow down")
        };
        let status = to_status(&refusal, &Limits::default(), 7);
        let retry: google::RetryInfo = unpacked(&status, "google.rpc.RetryInfo");
        let delay = retry.retry_delay.unwrap();
        assert_eq!((delay.seconds, delay.nanos), (1, 250_000_000));
        let _: google::QuotaFailure = unpacked(&status, "google.rpc.QuotaFailure");
    }
}
