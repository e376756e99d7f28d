//! What becomes of fields that no version of the schema names: decoding drops
//! them, so nothing here acts but mutants.

use crate::service::Refusal;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use gosync_proto::{Reason, mutant, wire};
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, decode_varint, skip_field};

/// The schema's own numbers are far below.
const STRANGE: u32 = 100;
/// Of PushRequest.
const RECORDS: u32 = 2;
/// Of a frame, before its message.
const PREFIX_BYTES: usize = 5;

/// A Push as the mutants of this file read it.
pub async fn met(request: Request) -> Result<Request, Refusal> {
    if !(mutant!(UnknownFieldsRefused) || mutant!(UnknownFieldsKept)) {
        return Ok(request);
    }
    let (head, body) = request.into_parts();
    let frame = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let message = frame.get(PREFIX_BYTES..).unwrap_or_default();
    let all = fields(message).unwrap_or_default();
    let records: Vec<&[u8]> = all
        .iter()
        .filter(|f| f.number == RECORDS)
        .filter_map(|f| f.message())
        .collect();
    let strangers = |message| -> Vec<u8> {
        let fields = fields(message).unwrap_or_default();
        let strange = fields.iter().filter(|f| f.number >= STRANGE);
        strange.flat_map(|f| f.bytes).copied().collect()
    };
    if mutant!(UnknownFieldsRefused) {
        let mut read = std::iter::once(message).chain(records);
        if read.any(|message| !strangers(message).is_empty()) {
            return Err(Refusal::new(Reason::Malformed, "there is no such field"));
        }
    } else if let Ok(mut push) = wire::PushRequest::decode(message) {
        for (record, bytes) in push.records.iter_mut().zip(records) {
            record.value = [&record.value[..], &strangers(bytes)].concat().into();
        }
        let message = push.encode_to_vec();
        let length = (message.len() as u32).to_be_bytes();
        let frame = [&[0], &length[..], &message].concat();
        return Ok(Request::from_parts(head, Body::from(frame)));
    }
    Ok(Request::from_parts(head, Body::from(frame)))
}

/// A field with its bytes, the key among them.
struct Field<'a> {
    number: u32,
    bytes: &'a [u8],
}

impl<'a> Field<'a> {
    /// What it holds, if that is a message.
    fn message(&self) -> Option<&'a [u8]> {
        let mut rest = self.bytes;
        decode_key(&mut rest).ok()?;
        decode_varint(&mut rest).ok()?;
        Some(rest)
    }
}

/// All fields of a message; `None` when it is none.
fn fields(mut bytes: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let mut rest = bytes;
        let (number, kind) = decode_key(&mut rest).ok()?;
        skip_field(kind, number, &mut rest, DecodeContext::default()).ok()?;
        let (field, after) = bytes.split_at(bytes.len() - rest.len());
        all.push(Field {
            number,
            bytes: field,
        });
        bytes = after;
    }
    Some(all)
}
