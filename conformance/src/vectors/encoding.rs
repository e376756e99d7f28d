//! Names what is wrong with bytes that are no protobuf message, which a
//! decoder only refuses.

use crate::schema::descriptor;
use prost_reflect::{Kind, MessageDescriptor};

/// The class of failure of an encoding; `None` when it can be decoded.
///
/// # Errors
/// When there is no message of that name.
pub fn failure(kind: &str, bytes: &[u8]) -> Result<Option<&'static str>, String> {
    Ok(message(&descriptor(kind)?, bytes, true).err())
}

/// `outermost`: a length beyond the end may be a message that was cut off.
fn message(
    kind: &MessageDescriptor,
    mut bytes: &[u8],
    outermost: bool,
) -> Result<(), &'static str> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let (number, wire) = (tag >> 3, tag & 7);
        if number == 0 {
            return Err("field_zero");
        }
        let field = u32::try_from(number).ok().and_then(|n| kind.get_field(n));
        if let Some(field) = &field
            && wire <= 5
            && wire != expected(&field.kind())
            && !(field.is_list() && wire == 2)
        {
            return Err("wrong_wire_type");
        }
        match wire {
            0 => {
                varint(&mut bytes)?;
            }
            1 => take(&mut bytes, 8, outermost)?,
            5 => take(&mut bytes, 4, outermost)?,
            2 => {
                let length = varint(&mut bytes)? as usize;
                if length > bytes.len() {
                    return Err(beyond(length, bytes, outermost));
                }
                let (inside, rest) = bytes.split_at(length);
                bytes = rest;
                match field.map(|f| f.kind()) {
                    Some(Kind::Message(inner)) => message(&inner, inside, false)?,
                    Some(Kind::String) if std::str::from_utf8(inside).is_err() => {
                        return Err("invalid_utf8");
                    }
                    _ => {}
                }
            }
            3 => return Err("unclosed_group"),
            _ => return Err("invalid_wire_type"),
        }
    }
    Ok(())
}

/// A few bytes short of the end: cut off. Otherwise the length is a lie.
fn beyond(length: usize, left: &[u8], outermost: bool) -> &'static str {
    if outermost && length - left.len() <= 16 && left.len() > 1 {
        "truncated"
    } else {
        "length_beyond_end"
    }
}

fn take(bytes: &mut &[u8], n: usize, outermost: bool) -> Result<(), &'static str> {
    match bytes.split_at_checked(n) {
        Some((_, rest)) => {
            *bytes = rest;
            Ok(())
        }
        None if outermost => Err("truncated"),
        None => Err("length_beyond_end"),
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0u64;
    for i in 0..10 {
        let Some((first, rest)) = bytes.split_first() else {
            return Err("truncated");
        };
        *bytes = rest;
        value |= u64::from(first & 127) << (7 * i).min(63);
        if first & 128 == 0 {
            return Ok(value);
        }
    }
    Err("varint_too_long")
}

fn expected(kind: &Kind) -> u64 {
    match kind {
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => 1,
        Kind::String | Kind::Bytes | Kind::Message(_) => 2,
        Kind::Fixed32 | Kind::Sfixed32 | Kind::Float => 5,
        _ => 0,
    }
}
