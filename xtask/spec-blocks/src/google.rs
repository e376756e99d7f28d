//! The few messages of `google.rpc` that refusals are packed into: their fields, and one refusal with every byte.
//! They stand here because a reader of the specification need not have their `.proto` files.

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use gosync_proto::limits::Limits;
use gosync_proto::reason::{ERROR_DOMAIN, Reason};
use gosync_proto::{PROTOCOL_VERSION, wire};
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{Any, DescriptorProto, FieldDescriptorProto};

use crate::dump;
use crate::world::{NOW_MS, position};

/// The epoch before the restore of the example.
const BEFORE: u64 = 0x3c6e_f372_fe94_f82b;

type Field = (&'static str, &'static str);

/// Each message with its fields in the order of their numbers, which begin with 1.
const MESSAGES: [(&str, &[Field]); 9] = [
    (
        "google.rpc.Status",
        &[
            ("int32", "code"),
            ("string", "message"),
            ("repeated google.protobuf.Any", "details"),
        ],
    ),
    (
        "google.protobuf.Any",
        &[("string", "type_url"), ("bytes", "value")],
    ),
    (
        "google.rpc.ErrorInfo",
        &[("string", "reason"), ("string", "domain")],
    ),
    (
        "google.rpc.RetryInfo",
        &[("google.protobuf.Duration", "retry_delay")],
    ),
    (
        "google.protobuf.Duration",
        &[("int64", "seconds"), ("int32", "nanos")],
    ),
    (
        "google.rpc.BadRequest",
        &[(
            "repeated google.rpc.BadRequest.FieldViolation",
            "field_violations",
        )],
    ),
    (
        "google.rpc.BadRequest.FieldViolation",
        &[("string", "field"), ("string", "description")],
    ),
    (
        "google.rpc.QuotaFailure",
        &[("repeated google.rpc.QuotaFailure.Violation", "violations")],
    ),
    (
        "google.rpc.QuotaFailure.Violation",
        &[("string", "subject"), ("string", "description")],
    ),
];

/// The messages as a schema, as far as refusals use them.
pub fn schema() -> String {
    let mut out = String::from("```proto\n");
    for (name, fields) in MESSAGES {
        out += &format!("message {name} {{\n");
        for (i, (kind, field)) in fields.iter().enumerate() {
            out += &format!("  {kind} {field} = {};\n", i + 1);
        }
        out += "}\n";
    }
    out + "```"
}

/// The same for programs, by full name.
pub fn descriptors() -> Vec<(String, DescriptorProto)> {
    let field = |(i, (kind, name)): (usize, &Field)| {
        let (repeated, kind) = match kind.strip_prefix("repeated ") {
            Some(kind) => (true, kind),
            None => (false, *kind),
        };
        let scalar = match kind {
            "int32" => Type::Int32,
            "int64" => Type::Int64,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            _ => Type::Message,
        };
        let label = if repeated {
            Label::Repeated
        } else {
            Label::Optional
        };
        FieldDescriptorProto {
            name: Some((*name).to_owned()),
            number: i32::try_from(i + 1).ok(),
            label: Some(label as i32),
            r#type: Some(scalar as i32),
            type_name: (scalar == Type::Message).then(|| format!(".{kind}")),
            ..Default::default()
        }
    };
    let message = |(name, fields): (&str, &[Field])| {
        let descriptor = DescriptorProto {
            field: fields.iter().enumerate().map(field).collect(),
            ..Default::default()
        };
        (format!(".{name}"), descriptor)
    };
    MESSAGES.into_iter().map(message).collect()
}

/// One field of a message, as bytes: a length-delimited one.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend(content);
    out
}

fn any(name: &str, value: Vec<u8>) -> Vec<u8> {
    let any = Any {
        type_url: format!("type.googleapis.com/{name}"),
        value,
    };
    field(3, &any.encode_to_vec())
}

/// A call that was refused for a reason, by its name: trailers, and the details in three ways.
pub fn refusal(reason: &str) -> Result<String> {
    let (code, text, bytes) = example(reason)?;
    let trailers = format!(
        "```\ngrpc-status: {code}\ngrpc-message: {text}\ngrpc-status-details-bin: {}\n```",
        STANDARD_NO_PAD.encode(&bytes)
    );
    Ok(format!(
        "The trailers:\n\n{trailers}\n\nThe details, decoded from base64:\n\n{}",
        dump::render_full("google.rpc.Status", &bytes)?
    ))
}

/// The status code, the message, and the `google.rpc.Status` of such a call.
pub fn example(reason: &str) -> Result<(u8, &'static str, Vec<u8>)> {
    let reason = Reason::from_name(reason).context("there is no such reason")?;
    let (text, details) = match reason {
        Reason::LimitExceeded => {
            let text = "max_push_records is 5000, this push has 5001: send less at once";
            let violation = [field(1, b"records"), field(2, text.as_bytes())];
            let limit = wire::LimitDetail {
                limit: "max_push_records".to_owned(),
                allowed: 5_000,
                actual: Some(5_001),
            };
            let bad = any("google.rpc.BadRequest", field(1, &violation.concat()));
            (
                text,
                [bad, any("gosync.v1.LimitDetail", limit.encode_to_vec())].concat(),
            )
        }
        Reason::HistoryChanged => {
            let history = wire::HistoryDetail {
                position: Some(position(6)),
                held: vec![wire::HistoryStatus {
                    lineage: wire::Lineage::Rewound as i32,
                    mapped_sequence: 5,
                    behind_compaction: false,
                }],
                restore_points: vec![wire::RestorePoint {
                    epoch: BEFORE,
                    sequence: 5,
                }],
            };
            let detail = any("gosync.v1.HistoryDetail", history.encode_to_vec());
            (
                "the history was restored: begin with Hello and reconcile",
                detail,
            )
        }
        Reason::UnsupportedVersion => {
            let server = wire::ServerDetail {
                server_time_ms: NOW_MS,
                max_clock_skew_ms: Limits::default().max_clock_skew_ms,
                versions: vec![PROTOCOL_VERSION],
            };
            let detail = any("gosync.v1.ServerDetail", server.encode_to_vec());
            ("no version in common; this server speaks 1", detail)
        }
        other => bail!("there is no example of {other}"),
    };
    let info = [
        field(1, reason.as_str().as_bytes()),
        field(2, ERROR_DOMAIN.as_bytes()),
    ];
    let code = reason.status() as u8;
    let bytes = [
        vec![1 << 3, code],
        field(2, text.as_bytes()),
        any("google.rpc.ErrorInfo", info.concat()),
        details,
    ];
    Ok((code, text, bytes.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_shows_what_is_inside_of_its_details() {
        let shown = refusal("LIMIT_EXCEEDED").unwrap();
        for part in [
            "reason: \"LIMIT_EXCEEDED\"",
            "domain: \"gosync\"",
            "allowed: 5000",
            "field: \"records\"",
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
    }
}
