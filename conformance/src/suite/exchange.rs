//! What went over the wire, kept so that a failure can show it.

use crate::net::{Call, Reply, Wire};
use crate::schema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A message in its three forms.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// "gosync.v1.PushRequest".
    pub kind: String,
    /// In protobuf's text format.
    pub text: String,
    /// The bytes; the first 4 KiB of them.
    pub hex: String,
}

impl Message {
    /// Decodes for people.
    pub fn new(kind: &str, bytes: &[u8]) -> Message {
        const SHOWN: usize = 4096;
        let mut text = schema::to_text(kind, bytes);
        if text.len() > 3 * SHOWN {
            let mut cut = 3 * SHOWN;
            while !text.is_char_boundary(cut) {
                cut -= 1;
            }
            text.truncate(cut);
            text.push_str("\n…");
        }
        Message {
            kind: kind.to_owned(),
            text,
            hex: schema::hex(&bytes[..bytes.len().min(SHOWN)]),
        }
    }
}

/// One call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exchange {
    /// Since the case began.
    pub at: Duration,
    /// "grpc".
    pub wire: String,
    /// "Push".
    pub method: String,
    /// Request metadata; tokens are blotted out.
    pub metadata: Vec<(String, String)>,
    /// What was sent.
    pub request: Message,
    /// What was answered: at most the first 50 messages.
    pub answers: Vec<Message>,
    /// How it ended.
    pub end: String,
}

impl Exchange {
    /// A call and what came of it.
    pub fn new(at: Duration, wire: Wire, call: &Call, reply: &Reply) -> Exchange {
        let request = format!("gosync.v1.{}Request", call.method);
        let response = format!("gosync.v1.{}Response", call.method);
        let metadata = call
            .metadata
            .iter()
            .map(|(name, value)| {
                let shown = if name == "authorization" {
                    format!("{}…", value.chars().take(7).collect::<String>())
                } else {
                    value.clone()
                };
                (name.clone(), shown)
            })
            .collect();
        Exchange {
            at,
            wire: wire.name().to_owned(),
            method: call.method.clone(),
            metadata,
            request: Message::new(&request, call.body.get(5..).unwrap_or_default()),
            answers: reply
                .messages
                .iter()
                .take(50)
                .map(|m| Message::new(&response, m))
                .collect(),
            end: reply.summary(),
        }
    }
}
