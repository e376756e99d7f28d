//! What went over the wire, kept so that a report can show it.

use super::result::Verdict;
use crate::net::{Call, Reply, Wire};
use crate::schema;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A message in its three forms.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// "gosync.v1.PushRequest".
    pub kind: String,
    /// In protobuf's text format; where it is long, its beginning.
    pub text: String,
    /// The bytes; the first 4 KiB of them, or the first 256 where all was well.
    pub hex: String,
}

impl Message {
    fn new(kind: &str, bytes: &[u8], most: usize) -> Message {
        Message {
            kind: kind.to_owned(),
            text: text(kind, bytes, most),
            hex: schema::hex(&bytes[..bytes.len().min(most)]),
        }
    }
}

/// Decodes for people.
fn text(kind: &str, bytes: &[u8], most: usize) -> String {
    let longest = 3 * most;
    if most < WHOLE.bytes && bytes.len() > longest {
        return format!("{} bytes", bytes.len());
    }
    let mut text = schema::to_text(kind, bytes);
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
        text.push_str("\n…");
    }
    text
}

/// How much of what went over the wire a report shows.
struct Shown {
    exchanges: usize,
    answers: usize,
    bytes: usize,
}

/// Where something went wrong.
const WHOLE: Shown = Shown {
    exchanges: usize::MAX,
    answers: 50,
    bytes: 4096,
};

/// Where all was well.
const BRIEF: Shown = Shown {
    exchanges: 50,
    answers: 4,
    bytes: 256,
};

/// One call, or one command of a driver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exchange {
    /// Since the case began.
    pub at: Duration,
    /// "grpc"; "driver" of a command.
    pub wire: String,
    /// "Push"; "command" of a driver.
    pub method: String,
    /// Request metadata; tokens are blotted out.
    pub metadata: Vec<(String, String)>,
    /// What was sent.
    pub request: Message,
    /// What was answered: at most the first 50 messages, or the first 4 where
    /// all was well.
    pub answers: Vec<Message>,
    /// How it ended.
    pub end: String,
}

/// An exchange as it was. It is decoded when a report shows it: most cases
/// pass, and of those it shows little.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Since the case began.
    pub at: Duration,
    /// "grpc"; "driver" of a command.
    pub wire: &'static str,
    /// "Push"; "command" of a driver.
    pub method: String,
    /// Request metadata, without tokens.
    pub metadata: Vec<(String, String)>,
    /// The message types of what was sent and answered.
    pub kinds: (String, String),
    /// What was sent.
    pub request: Bytes,
    /// What was answered.
    pub answers: Vec<Bytes>,
    /// How it ended.
    pub end: String,
}

impl Raw {
    /// A call and what came of it.
    pub fn call(at: Duration, wire: Wire, call: &Call, reply: &Reply) -> Raw {
        let shown = |(name, value): &(String, String)| {
            let value = match name.as_str() {
                "authorization" => value.chars().take(7).chain(['…']).collect(),
                _ => value.clone(),
            };
            (name.clone(), value)
        };
        Raw {
            at,
            wire: wire.name(),
            method: call.method.clone(),
            metadata: call.metadata.iter().map(shown).collect(),
            kinds: Raw::kinds(&call.method),
            request: call.body.slice(call.body.len().min(5)..),
            answers: reply.messages.clone(),
            end: reply.summary(),
        }
    }

    /// The message types of a call.
    pub fn kinds(method: &str) -> (String, String) {
        let kind = |what| format!("gosync.v1.{method}{what}");
        (kind("Request"), kind("Response"))
    }

    fn decode(&self, shown: &Shown) -> Exchange {
        let answers = self.answers.iter().take(shown.answers);
        Exchange {
            at: self.at,
            wire: self.wire.to_owned(),
            method: self.method.clone(),
            metadata: self.metadata.clone(),
            request: Message::new(&self.kinds.0, &self.request, shown.bytes),
            answers: answers
                .map(|a| Message::new(&self.kinds.1, a, shown.bytes))
                .collect(),
            end: self.end.clone(),
        }
    }
}

/// What a report shows of a case that ended so, in the order of time.
pub fn decode(mut exchanges: Vec<Raw>, verdict: Verdict) -> Vec<Exchange> {
    let shown = match verdict {
        Verdict::Passed => BRIEF,
        _ => WHOLE,
    };
    exchanges.sort_by_key(|e| e.at);
    let exchanges = exchanges.iter().take(shown.exchanges);
    exchanges.map(|e| e.decode(&shown)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn of_what_went_well_a_report_shows_the_beginning() {
        let request = |key: &str| {
            let record = crate::oracle::Record::put(key, 1, 2, vec![b'v'; 1_000]);
            let push = crate::schema::v1::PushRequest {
                records: vec![record.to_wire()],
                ..Default::default()
            };
            push.encode_to_vec()
        };
        let raw = |at: u64, key: &str| Raw {
            at: Duration::from_millis(at),
            wire: "grpc",
            method: "Push".into(),
            metadata: Vec::new(),
            kinds: Raw::kinds("Push"),
            request: request(key).into(),
            answers: vec![Bytes::new(); 60],
            end: "OK".into(),
        };
        let all: Vec<Raw> = (0..60).rev().map(|i| raw(i, "key")).collect();
        let failed = decode(all.clone(), Verdict::Failed);
        assert_eq!((failed.len(), failed[0].answers.len()), (60, 50));
        assert_eq!(failed[0].at, Duration::ZERO, "in the order of time");
        assert!(failed[0].request.text.contains("key: \"key\""));
        let passed = decode(all, Verdict::Passed);
        assert_eq!((passed.len(), passed[0].answers.len()), (50, 4));
        assert_eq!(passed[0].request.hex.len(), 512);
        assert!(passed[0].request.text.ends_with(" bytes"));
    }
}
