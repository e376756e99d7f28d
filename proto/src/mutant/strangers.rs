//! What becomes of fields that no version of the schema names. Decoding drops
//! them, so only here can a mutant do anything else.

use crate::mutant;
use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{self, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// The schema's own numbers are far below.
const STRANGE: u32 = 32;
/// Of a Record.
const VALUE: u32 = 4;

/// The codec of the stubs where there are mutants.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Codec<T, U> {
        Codec(PhantomData)
    }
}

impl<T, U> codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Reader<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Reader<U> {
        Reader(PhantomData)
    }
}

/// Reads messages.
pub struct Reader<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for Reader<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let mut bytes = buf.copy_to_bytes(buf.remaining());
        if mutant!(UnknownFieldsRefused) && holds_strangers(&bytes) {
            return Err(Status::internal("there is no such field"));
        }
        if mutant!(UnknownFieldsKept) {
            bytes = kept(&bytes, 0).map_or(bytes, Bytes::from);
        }
        let read = U::decode(bytes).map_err(|e| Status::internal(e.to_string()))?;
        Ok(Some(read))
    }
}

fn holds_strangers(message: &[u8]) -> bool {
    fields(message).is_some_and(|all| {
        all.iter()
            .any(|f| f.number >= STRANGE || f.content().is_some_and(holds_strangers))
    })
}

/// The message with the strange fields of what it holds, at any depth, behind
/// the values there; `None` when there are none.
fn kept(message: &[u8], depth: usize) -> Option<Vec<u8>> {
    let (mut out, mut value, mut strange) = (Vec::new(), Vec::new(), Vec::new());
    let mut changed = false;
    for field in fields(message)? {
        let inner = field.content();
        if field.number >= STRANGE && depth > 0 {
            strange.extend_from_slice(field.bytes);
        } else if let Some(inner) = inner.and_then(|i| kept(i, depth + 1)) {
            changed = true;
            put(field.number, &inner, &mut out);
        } else {
            out.extend_from_slice(field.bytes);
            if field.number == VALUE {
                value = inner.unwrap_or_default().to_vec();
            }
        }
    }
    if !strange.is_empty() {
        changed = true;
        // the last of a field counts
        put(VALUE, &[value, strange].concat(), &mut out);
    }
    changed.then_some(out)
}

fn put(number: u32, content: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// A field with its bytes, the key among them.
struct Field<'a> {
    number: u32,
    wire: WireType,
    bytes: &'a [u8],
}

impl<'a> Field<'a> {
    /// What it holds, if it has a length.
    fn content(&self) -> Option<&'a [u8]> {
        let mut rest = self.bytes;
        decode_key(&mut rest).ok()?;
        if self.wire != WireType::LengthDelimited {
            return None;
        }
        decode_varint(&mut rest).ok()?;
        Some(rest)
    }
}

/// All fields of a message; `None` when it is none.
fn fields(mut bytes: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let mut rest = bytes;
        let (number, wire) = decode_key(&mut rest).ok()?;
        skip_field(wire, number, &mut rest, DecodeContext::default()).ok()?;
        let (field, after) = bytes.split_at(bytes.len() - rest.len());
        all.push(Field {
            number,
            wire,
            bytes: field,
        });
        bytes = after;
    }
    Some(all)
}
