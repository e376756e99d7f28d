//! An encoded message shown three ways: as text, as bytes, and as bytes with an explanation of each. Knows the wire
//! format of Protocol Buffers and the compiled schema; knows no message by name.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, bail};
use gosync_proto::wire::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use crate::google;

/// Bytes of one line of a dump.
const WIDTH: usize = 16;

/// Renders `bytes`, the encoding of the message `name` of `gosync.v1`.
pub fn render(name: &str, bytes: &[u8]) -> Result<String> {
    render_full(&format!("gosync.v1.{name}"), bytes)
}

/// Renders `bytes`, the encoding of the message of that full name.
pub fn render_full(name: &str, bytes: &[u8]) -> Result<String> {
    let schema = Schema::load()?;
    let mut view = View::default();
    schema.message(&format!(".{name}"), bytes, 0, &mut view)?;
    Ok(format!(
        "As text:\n\n```\n{}```\n\nAs {} bytes:\n\n```\n{}```\n\nExplained:\n\n```\n{}```",
        view.text,
        bytes.len(),
        bytes
            .chunks(2 * WIDTH)
            .map(|chunk| hex(chunk) + "\n")
            .collect::<String>(),
        view.lines(),
    ))
}

/// Lower-case hex without spaces.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The messages, by full name, that the encoding of the message of that full name is made of.
#[cfg(test)]
pub fn parts(name: &str, bytes: &[u8]) -> Result<BTreeSet<String>> {
    let mut view = View::default();
    Schema::load()?.message(&format!(".{name}"), bytes, 0, &mut view)?;
    Ok(view.parts)
}

/// Every message of the schema, by full name.
#[cfg(test)]
pub fn all() -> Result<BTreeSet<String>> {
    let names = Schema::load()?.messages.into_keys();
    Ok(names
        .filter(|name| name.starts_with(".gosync.v1."))
        .collect())
}

#[derive(Default)]
struct View {
    /// The messages that were shown.
    parts: BTreeSet<String>,
    text: String,
    dump: Vec<(usize, Vec<u8>, String)>,
}

impl View {
    fn field(&mut self, depth: usize, line: &str) {
        self.text += &format!("{}{line}\n", "  ".repeat(depth));
    }

    fn bytes(&mut self, depth: usize, bytes: &[u8], note: String) {
        self.dump.push((depth, bytes.to_vec(), note));
    }

    fn lines(&self) -> String {
        let mut out = String::new();
        for (depth, bytes, note) in &self.dump {
            let indent = "  ".repeat(*depth);
            let mut chunks = bytes.chunks(WIDTH);
            let first = format!("{indent}{}", hex(chunks.next().unwrap_or_default()));
            out += format!("{first:<44}{note}").trim_end();
            out.push('\n');
            for chunk in chunks {
                out += &format!("{indent}{}\n", hex(chunk));
            }
        }
        out
    }
}

struct Schema {
    messages: HashMap<String, DescriptorProto>,
    enums: HashMap<String, EnumDescriptorProto>,
}

impl Schema {
    fn load() -> Result<Schema> {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)?;
        let mut messages: HashMap<_, _> = google::descriptors().into_iter().collect();
        let mut enums = HashMap::new();
        for file in set.file {
            let package = file.package().to_owned();
            let full = |name: &str| format!(".{package}.{name}");
            messages.extend(file.message_type.into_iter().map(|m| (full(m.name()), m)));
            enums.extend(file.enum_type.into_iter().map(|e| (full(e.name()), e)));
        }
        Ok(Schema { messages, enums })
    }

    fn message(&self, name: &str, mut rest: &[u8], depth: usize, view: &mut View) -> Result<()> {
        // what an Any holds is a message of the type that it names
        let packed = match name {
            ".google.protobuf.Any" => {
                let url = prost_types::Any::decode(rest)?.type_url;
                url.split_once('/').map(|(_, name)| format!(".{name}"))
            }
            _ => None,
        };
        let message = self
            .messages
            .get(name)
            .with_context(|| format!("the schema has no message {name}"))?;
        view.parts.insert(name.to_owned());
        while !rest.is_empty() {
            let whole = rest;
            let tag = varint(&mut rest)?;
            let number = i32::try_from(tag >> 3)?;
            let field = message
                .field
                .iter()
                .find(|field| field.number() == number)
                .with_context(|| format!("{name} has no field {number}"))?;
            match tag & 7 {
                0 => {
                    let value = varint(&mut rest)?;
                    let value = self.scalar(field, value);
                    view.field(depth, &format!("{}: {value}", field.name()));
                    view.bytes(
                        depth,
                        used(whole, rest),
                        format!("{} = {value}", field.name()),
                    );
                }
                1 => {
                    let (value, after) =
                        rest.split_first_chunk().context("a fixed64 is cut off")?;
                    rest = after;
                    let value = format!("0x{:016x}", u64::from_le_bytes(*value));
                    view.field(depth, &format!("{}: {value}", field.name()));
                    view.bytes(
                        depth,
                        used(whole, rest),
                        format!("{} = {value}", field.name()),
                    );
                }
                2 => {
                    let length = usize::try_from(varint(&mut rest)?)?;
                    let head = used(whole, rest);
                    let (content, after) = rest
                        .split_at_checked(length)
                        .with_context(|| format!("{} is cut off", field.name()))?;
                    rest = after;
                    match packed.as_deref().filter(|_| field.name() == "value") {
                        Some(inner) => {
                            let note = format!("value, {} bytes", content.len());
                            view.field(depth, "value {");
                            view.bytes(depth, head, note);
                            self.message(inner, content, depth + 1, view)?;
                            view.field(depth, "}");
                        }
                        None => self.delimited(field, head, content, depth, view)?,
                    }
                }
                other => bail!("{}: wire type {other} is not used", field.name()),
            }
        }
        Ok(())
    }

    fn delimited(
        &self,
        field: &FieldDescriptorProto,
        head: &[u8],
        content: &[u8],
        depth: usize,
        view: &mut View,
    ) -> Result<()> {
        let name = field.name();
        let note = format!("{name}, {} bytes", content.len());
        match field.r#type() {
            Type::Message => {
                view.field(depth, &format!("{name} {{"));
                view.bytes(depth, head, note);
                self.message(field.type_name(), content, depth + 1, view)?;
                view.field(depth, "}");
            }
            Type::String | Type::Bytes => {
                let value = format!("\"{}\"", content.escape_ascii());
                view.field(depth, &format!("{name}: {value}"));
                view.bytes(depth, head, note);
                if !content.is_empty() {
                    let shown = if content.is_ascii() {
                        value
                    } else {
                        String::new()
                    };
                    view.bytes(depth + 1, content, shown);
                }
            }
            _ if field.label() == Label::Repeated => {
                let (mut rest, mut values) = (content, Vec::new());
                while !rest.is_empty() {
                    values.push(self.scalar(field, varint(&mut rest)?));
                }
                let values = format!("[{}]", values.join(", "));
                view.field(depth, &format!("{name}: {values}"));
                view.bytes(depth, head, note);
                view.bytes(depth + 1, content, values);
            }
            other => bail!("{name}: a length with type {other:?}"),
        }
        Ok(())
    }

    fn scalar(&self, field: &FieldDescriptorProto, value: u64) -> String {
        match field.r#type() {
            Type::Bool => (value != 0).to_string(),
            Type::Enum => self
                .enums
                .get(field.type_name())
                .and_then(|e| {
                    e.value
                        .iter()
                        .find(|v| i64::from(v.number()) == value as i64)
                })
                .map_or_else(|| value.to_string(), |v| v.name().to_owned()),
            _ => value.to_string(),
        }
    }
}

/// What of `whole` comes before `rest`.
fn used<'a>(whole: &'a [u8], rest: &[u8]) -> &'a [u8] {
    &whole[..whole.len() - rest.len()]
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    Ok(prost::encoding::decode_varint(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gosync_proto::wire;

    #[test]
    fn every_byte_is_shown_once_and_in_order() {
        let message = wire::PushRequest {
            space: "s".to_owned(),
            records: vec![wire::Record {
                key: vec![0; 40],
                ..Default::default()
            }],
            ..Default::default()
        };
        let bytes = message.encode_to_vec();
        let mut view = View::default();
        let schema = Schema::load().unwrap();
        schema
            .message(".gosync.v1.PushRequest", &bytes, 0, &mut view)
            .unwrap();
        let shown: Vec<u8> = view.dump.iter().flat_map(|(_, b, _)| b.clone()).collect();
        assert_eq!(shown, bytes);
        assert!(view.text.starts_with("space: \"s\"\nrecords {\n  key: "));
    }

    #[test]
    fn packed_lists_and_enums_are_named() {
        let message = wire::HelloRequest {
            versions: vec![1],
            features: vec![wire::Feature::Live as i32],
            ..Default::default()
        };
        let shown = render("HelloRequest", &message.encode_to_vec()).unwrap();
        assert!(
            shown.contains("versions: [1]\nfeatures: [FEATURE_LIVE]\n"),
            "{shown}"
        );
    }

    #[test]
    fn bytes_that_are_no_such_message_are_an_error() {
        assert!(render("PushRequest", &[0xff]).is_err());
        assert!(render("PushRequest", &[0x0a, 5, b's']).is_err());
        assert!(render("NoSuchMessage", &[]).is_err());
    }
}
