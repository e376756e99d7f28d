//! The few messages of `google.rpc` that refusals are packed into: their fields, and one refusal with every byte.
//! They stand here because a reader of the specification need not have their `.proto` files.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use gosync_proto::reason::{ERROR_DOMAIN, Reason, Status};
use gosync_proto::wire;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{Any, DescriptorProto, FieldDescriptorProto};

use crate::dump;

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

/// A Push of too many records, refused: trailers, and the details in three ways.
pub fn refusal() -> Result<String> {
    let (reason, allowed, actual) = (Reason::LimitExceeded, 5_000, 5_001);
    let text = "max_push_records is 5000, this push has 5001: send less at once";
    let info = [
        field(1, reason.as_str().as_bytes()),
        field(2, ERROR_DOMAIN.as_bytes()),
    ];
    let violation = [field(1, b"records"), field(2, text.as_bytes())];
    let limit = wire::LimitDetail {
        limit: "max_push_records".to_owned(),
        allowed,
        actual: Some(actual),
    };
    let code = reason.status() as u8;
    ensure!(
        code == Status::ResourceExhausted as u8,
        "the page says which status it is"
    );
    let bytes = [
        vec![1 << 3, code],
        field(2, text.as_bytes()),
        any("google.rpc.ErrorInfo", info.concat()),
        any("google.rpc.BadRequest", field(1, &violation.concat())),
        any("gosync.v1.LimitDetail", limit.encode_to_vec()),
    ]
    .concat();
    let trailers = format!(
        "```\ngrpc-status: {code}\ngrpc-message: {text}\ngrpc-status-details-bin: {}\n```",
        STANDARD_NO_PAD.encode(&bytes)
    );
    Ok(format!(
        "The trailers:\n\n{trailers}\n\nThe details, decoded from base64:\n\n{}",
        dump::render_full("google.rpc.Status", &bytes)?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_shows_what_is_inside_of_its_details() {
        let shown = refusal().unwrap();
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
