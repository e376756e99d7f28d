//! The messages of the schema, generated from the `.proto` files by the build
//! script, and their descriptors for printing. Knows no rule.

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, text_format::FormatOptions,
};
use std::sync::LazyLock;

/// `gosync.v1`.
#[allow(missing_docs)] // the comments stand in the .proto files
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/gosync.v1.rs"));
}

/// `gosync.conformance.v1`: the drivers of clients, the control of servers.
#[allow(missing_docs)] // the comments stand in the .proto files
pub mod driver {
    include!(concat!(env!("OUT_DIR"), "/gosync.conformance.v1.rs"));
}

static POOL: LazyLock<Option<DescriptorPool>> = LazyLock::new(|| {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    DescriptorPool::decode(bytes).ok()
});

/// The message type `name` ("gosync.v1.PushRequest").
///
/// # Errors
/// A sentence that says that there is none.
pub fn descriptor(name: &str) -> Result<MessageDescriptor, String> {
    POOL.as_ref()
        .and_then(|p| p.get_message_by_name(name))
        .ok_or_else(|| format!("the schema has no message {name}"))
}

/// `bytes` read as a message of the type `name`.
///
/// # Errors
/// A sentence that says why they are none.
pub fn decode_dynamic(name: &str, bytes: &[u8]) -> Result<DynamicMessage, String> {
    DynamicMessage::decode(descriptor(name)?, bytes).map_err(|e| format!("not a {name}: {e}"))
}

/// A message in protobuf's text format, for people; or why it is none.
pub fn to_text(name: &str, bytes: &[u8]) -> String {
    match decode_dynamic(name, bytes) {
        Ok(message) => message.to_text_format_with_options(&FormatOptions::new().pretty(true)),
        Err(problem) => problem,
    }
}

/// A message as proto3 JSON.
///
/// # Errors
/// A sentence for people.
pub fn to_json(name: &str, bytes: &[u8]) -> Result<String, String> {
    serde_json::to_string(&decode_dynamic(name, bytes)?).map_err(|e| e.to_string())
}

/// The binary encoding of a message given as proto3 JSON.
///
/// # Errors
/// A sentence for people.
pub fn from_json(name: &str, json: &str) -> Result<Vec<u8>, String> {
    let kind = descriptor(name)?;
    let mut json = serde_json::Deserializer::from_str(json);
    DynamicMessage::deserialize(kind, &mut json)
        .map(|m| m.encode_to_vec())
        .map_err(|e| format!("not a {name} in JSON: {e}"))
}

/// The binary encoding of a message given in protobuf's text format.
///
/// # Errors
/// A sentence for people.
pub fn from_text(name: &str, text: &str) -> Result<Vec<u8>, String> {
    DynamicMessage::parse_text_format(descriptor(name)?, text)
        .map(|m| m.encode_to_vec())
        .map_err(|e| format!("not a {name} in text format: {e}"))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of a hex text; `None` if it is none.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok())
        .collect()
}
