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

/// Bytes that end within a field of the message itself are `truncated`; within a nested message, whose length was told,
/// a field that goes on is `length_beyond_end`.
fn message(
    kind: &MessageDescriptor,
    mut bytes: &[u8],
    outermost: bool,
) -> Result<(), &'static str> {
    let short = match outermost {
        true => "truncated",
        false => "length_beyond_end",
    };
    while !bytes.is_empty() {
        let tag = varint(&mut bytes, short)?;
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
        let length = match wire {
            0 => {
                varint(&mut bytes, short)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes, short)?).unwrap_or(usize::MAX),
            3 => return Err("unclosed_group"),
            5 => 4,
            _ => return Err("invalid_wire_type"),
        };
        let (inside, rest) = bytes.split_at_checked(length).ok_or(short)?;
        bytes = rest;
        match field.map(|f| f.kind()) {
            Some(Kind::Message(inner)) => message(&inner, inside, false)?,
            Some(Kind::String) if std::str::from_utf8(inside).is_err() => {
                return Err("invalid_utf8");
            }
            _ => {}
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8], short: &'static str) -> Result<u64, &'static str> {
    let mut value = 0u64;
    for i in 0..10 {
        let Some((first, rest)) = bytes.split_first() else {
            return Err(short);
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
