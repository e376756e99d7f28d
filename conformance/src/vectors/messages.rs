//! Messages in text and as bytes, and requests that are refused.

use super::form::{Hex, milk};
use super::{Case, Kind, content, encoding};
use crate::oracle::Record;
use crate::schema::{from_text, v1};
use prost::Message as _;
use serde::{Deserialize, Serialize};

/// A message in protobuf's text format and its encoding.
#[derive(Clone, Serialize, Deserialize)]
pub struct Message {
    r#type: String,
    text: String,
    hex: Hex,
}

impl Kind for Message {
    const NAME: &'static str = "messages";
    const ABOUT: &'static str =
        "Messages in text and as bytes (fields in the order of their numbers).";

    fn cases() -> Vec<Case<Message>> {
        let case = |(name, text): (&str, String)| {
            let kind = name.split(',').next().unwrap_or(name);
            let of = Message {
                r#type: format!("gosync.v1.{kind}"),
                text,
                hex: Hex(Vec::new()),
            };
            Case::new(name, of)
        };
        texts().into_iter().map(case).collect()
    }

    fn compute(&mut self) -> Result<Option<&'static str>, String> {
        self.hex = Hex(from_text(&self.r#type, &self.text)?);
        Ok(None)
    }
}

/// Names, which begin with the type, and texts.
fn texts() -> Vec<(&'static str, String)> {
    let milk = milk();
    let (time, replica) = (milk.time, milk.replica);
    let milk =
        format!(r#"key: "milk" version {{ time: {time} replica: {replica} }} value: "2 litres""#);
    let eggs = format!(
        r#"key: "eggs" version {{ time: {} replica: 1 }} flags: 1"#,
        time + 1
    );
    let cursor = "epoch: 1234605616436508552 sequence: 42 tag: 11072869122414935808";
    let held = format!("held {{ ranges {{ }} cursor {{ {cursor} }} }}");
    let newest = "newest_commit { epoch: 1234605616436508552 sequence: 43 tag: 7 }";
    let position = format!("position {{ head {{ {cursor} }} horizon: 111411136000000000 }}");
    let status = "held { lineage: LINEAGE_REWOUND mapped_sequence: 40 behind_compaction: true } restore_points { epoch: 3 sequence: 40 }";
    let state = r#"ranges { count: 2 fingerprint: "\000\001\376\377" }"#;
    let wanted = r#"wanted { start: "m" end: "n" }"#;
    let limits = "max_message_bytes: 4194304 max_value_bytes: 1048576 max_push_records: 5000 max_ranges: 256 max_reconcile_entries: 400000 max_response_bytes: 1048576 max_clock_skew_ms: 300000 max_streams_per_connection: 100 max_space_records: 1000000 max_space_bytes: 1073741824 heartbeat_interval_ms: 15000 watchdog_ms: 45000 max_stream_lifetime_ms: 3600000 max_calls_per_second: 50";
    let own = |text: &str| text.to_owned();
    vec![
        ("Record, a put", milk.clone()),
        ("Record, a tombstone", eggs.clone()),
        ("Range, all keys", String::new()),
        ("Range, one key", own(r#"start: "b" end: "b\000""#)),
        ("Cursor", own(cursor)),
        (
            "HeldRanges, two ranges",
            format!(
                r#"ranges {{ start: "a" end: "b" }} ranges {{ start: "c" }} cursor {{ {cursor} }}"#
            ),
        ),
        (
            "HelloRequest",
            format!(
                r#"versions: 1 features: FEATURE_RECONCILE features: FEATURE_LIVE space: "home" {held} client: "example 1.0""#
            ),
        ),
        (
            "HelloRequest, with fingerprints",
            format!(
                r#"versions: 1 versions: 300 space: "home" {held} {newest} horizon: 111411136000000000 fingerprints: "\000\001" fingerprints: "\377""#
            ),
        ),
        (
            "HelloResponse",
            format!(
                r#"version: 1 features: FEATURE_RECONCILE features: FEATURE_LIVE server_time_ms: 1700000000500 limits {{ {limits} }} grants {{ access: ACCESS_READ }} grants {{ key_prefix: "todos\000" access: ACCESS_WRITE }} {position} {status} equal: true equal: false total_records: 2"#
            ),
        ),
        (
            "PushRequest",
            format!(
                r#"space: "home" records {{ {milk} }} records {{ {eggs} }} atomic: true {held}"#
            ),
        ),
        (
            "PushRequest, with the newest commit",
            format!(r#"space: "home" records {{ {milk} }} {newest}"#),
        ),
        (
            "PushResponse",
            own(
                "verdicts { outcome: OUTCOME_APPLIED sequence: 43 } verdicts { outcome: OUTCOME_REJECTED reason: REASON_CLOCK_SKEW } position { head { epoch: 1234605616436508552 sequence: 43 tag: 7 } } server_time_ms: 1700000000500",
            ),
        ),
        (
            "PushResponse, a winner and a detail",
            format!(
                r#"verdicts {{ outcome: OUTCOME_SUPERSEDED winner {{ {milk} }} }} verdicts {{ outcome: OUTCOME_REJECTED reason: REASON_NO_ACCESS detail: "\"eggs\" is not yours" }} held {{ lineage: LINEAGE_SAME }}"#
            ),
        ),
        (
            "WatchRequest",
            format!(r#"space: "home" {held} until_caught_up: true"#),
        ),
        (
            "WatchRequest, with the newest commit",
            format!(r#"space: "home" {held} {newest} max_response_bytes: 65536"#),
        ),
        (
            "WatchResponse, Changes",
            format!("changes {{ records {{ {milk} }} cursor {{ {cursor} }} }}"),
        ),
        (
            "WatchResponse, Checkpoint",
            format!("checkpoint {{ {position} {state} server_time_ms: 1700000000500 }}"),
        ),
        (
            "WatchResponse, Heartbeat",
            own("heartbeat { server_time_ms: 1700000000500 }"),
        ),
        (
            "WatchResponse, Heartbeat with a cursor",
            format!("heartbeat {{ server_time_ms: 1700000000500 cursor {{ {cursor} }} }}"),
        ),
        ("WatchResponse, the end of a stream", own("end { }")),
        (
            "WatchResponse, an end with its reason",
            format!(
                r#"end {{ reason: REASON_HISTORY_CHANGED detail: "restored" retry_after_ms: 1500 history {{ {position} {status} }} }}"#
            ),
        ),
        (
            "SnapshotRequest, resumed",
            own(r#"space: "home" held { ranges { } } after_key: "milk""#),
        ),
        (
            "SnapshotRequest, resumed at the lowest key",
            format!(r#"space: "home" {held} {newest} after_key: "" max_response_bytes: 65536"#),
        ),
        (
            "SnapshotResponse, its start",
            format!("start {{ {position} {status} total_records: 2 total_bytes: 90 {wanted} }}"),
        ),
        (
            "SnapshotResponse, a chunk",
            format!("chunk {{ records {{ {eggs} }} records {{ {milk} }} }}"),
        ),
        (
            "SnapshotResponse, complete",
            format!("complete {{ {state} }}"),
        ),
        (
            "SnapshotResponse, an end",
            own("end { reason: REASON_SLOW_READER }"),
        ),
        (
            "ReconcileRequest",
            format!(
                r#"space: "home" {held} {newest} horizon: 111411136000000000 salt: 6840124660045547947 digest_len: 5 max_response_bytes: 65536 turns_left: 19 parts: "\005" bounds: "\001m" digests: "\000\001\002\003\004""#
            ),
        ),
        (
            "ReconcileResponse",
            format!(
                r#"{position} {status} parts: "\006" bounds: "\001m" digests: "\377" lacking: "\001\002" records {{ {milk} }} {wanted} resume_at: "m""#
            ),
        ),
        (
            "LimitDetail, of nothing",
            own(r#"limit: "max_key_bytes" allowed: 512 actual: 0"#),
        ),
        (
            "ServerDetail",
            own("server_time_ms: 1700000000500 max_clock_skew_ms: 300000 versions: 1 versions: 2"),
        ),
        ("HistoryDetail", format!("{position} {status}")),
    ]
}

/// A request that is refused, and why.
#[derive(Clone, Serialize, Deserialize)]
pub struct Malformed {
    r#type: String,
    hex: Hex,
}

impl Kind for Malformed {
    const NAME: &'static str = "malformed";
    const ABOUT: &'static str = "Requests that are refused, and why. The first classes are no messages at all; the others break a rule of the specification.";

    fn cases() -> Vec<Case<Malformed>> {
        let case = |(failure, name, kind, bytes): (&str, &str, &str, Vec<u8>)| {
            let of = Malformed {
                r#type: format!("gosync.v1.{kind}"),
                hex: Hex(bytes),
            };
            Case::failing(name, failure, of)
        };
        let all = [broken(), requests(), records()];
        all.into_iter().flatten().map(case).collect()
    }

    fn compute(&mut self) -> Result<Option<&'static str>, String> {
        match encoding::failure(&self.r#type, &self.hex.0)? {
            Some(class) => Ok(Some(class)),
            None => content::failure(&self.r#type, &self.hex.0),
        }
    }
}

/// Class, name, type, bytes.
type Broken = (&'static str, &'static str, &'static str, Vec<u8>);

fn push_of(space: &str, records: &[v1::Record]) -> Vec<u8> {
    let request = v1::PushRequest {
        space: space.to_owned(),
        records: records.to_vec(),
        ..Default::default()
    };
    request.encode_to_vec()
}

/// What is no message.
fn broken() -> Vec<Broken> {
    let push = push_of("home", &[milk().to_wire()]);
    let and = |more: &[u8]| [&push, more].concat();
    let eleven = [&b"\xc0\x3e"[..], &[0xff; 10], b"\x01"].concat();
    let p = "PushRequest";
    vec![
        (
            "truncated",
            "cut within the last field",
            p,
            push[..push.len() - 3].to_vec(),
        ),
        ("truncated", "cut within a varint", p, and(b"\x80")),
        (
            "truncated",
            "a length beyond the end",
            p,
            and(b"\x12\x7f\x01"),
        ),
        (
            "length_beyond_end",
            "a nested length beyond its message",
            p,
            and(b"\x12\x02\x0a\x05"),
        ),
        (
            "varint_too_long",
            "a varint of eleven bytes",
            p,
            and(&eleven),
        ),
        (
            "wrong_wire_type",
            "records as a varint",
            p,
            and(b"\x10\x01"),
        ),
        (
            "wrong_wire_type",
            "a version's time as a varint",
            "Version",
            b"\x08\x01".to_vec(),
        ),
        ("invalid_wire_type", "wire type 6", p, and(b"\x0e")),
        (
            "unclosed_group",
            "a group without end",
            p,
            and(b"\xc3\x3e\x08\x01"),
        ),
        ("field_zero", "field number 0", p, and(b"\x00\x00")),
        (
            "invalid_utf8",
            "a space that is no UTF-8",
            p,
            b"\x0a\x02\xc3\x28".to_vec(),
        ),
    ]
}

/// Requests that break a rule about spaces and ranges.
fn requests() -> Vec<Broken> {
    let entry = |ranges: &[(&[u8], Option<&[u8]>)]| v1::HeldRanges {
        ranges: ranges
            .iter()
            .map(|(start, end)| v1::Range {
                start: start.to_vec(),
                end: end.map(<[u8]>::to_vec),
            })
            .collect(),
        ..Default::default()
    };
    let hello = |held: &[v1::HeldRanges]| {
        let request = v1::HelloRequest {
            versions: vec![1],
            space: "home".to_owned(),
            held: held.to_vec(),
            ..Default::default()
        };
        request.encode_to_vec()
    };
    let of = |start, end| hello(&[entry(&[(start, Some(end))])]);
    let unsorted = hello(&[entry(&[(b"c", Some(b"d")), (b"a", Some(b"b"))])]);
    let overlap = hello(&[entry(&[(b"", None)]), entry(&[(b"b", Some(b"c"))])]);
    let (p, h) = ("PushRequest", "HelloRequest");
    vec![
        (
            "space_id",
            "an empty space id",
            p,
            push_of("", &[milk().to_wire()]),
        ),
        (
            "space_id",
            "a slash in the space id",
            p,
            push_of("a/b", &[]),
        ),
        (
            "space_id",
            "a space id of 129 bytes",
            p,
            push_of(&"x".repeat(129), &[]),
        ),
        (
            "inverted_range",
            "an end below the start",
            h,
            of(b"b", b"a"),
        ),
        (
            "inverted_range",
            "an end equal to the start",
            h,
            of(b"b", b"b"),
        ),
        ("unsorted_ranges", "ranges out of order", h, unsorted),
        ("overlapping_ranges", "two entries that overlap", h, overlap),
        (
            "no_ranges",
            "an entry without ranges",
            h,
            hello(&[entry(&[])]),
        ),
        (
            "long_bound",
            "a bound of 514 bytes",
            h,
            of(b"", &[b'k'; 514]),
        ),
    ]
}

/// Pushes of records that may not exist.
fn records() -> Vec<Broken> {
    let push = |record: Record| push_of("home", &[record.to_wire()]);
    let key = |key: &[u8]| push(Record::put(key, 1, 1, "v"));
    let flags = |flags| {
        push(Record {
            flags,
            ..Record::put("k", 1, 1, "v")
        })
    };
    let twice = push_of("home", &[milk().to_wire(), milk().to_wire()]);
    let no_version = v1::Record {
        key: b"k".to_vec(),
        ..Default::default()
    };
    let p = "PushRequest";
    vec![
        ("duplicate_key", "one key twice in a push", p, twice),
        ("empty_key", "a record without key", p, key(b"")),
        ("long_key", "a key of 513 bytes", p, key(&[b'k'; 513])),
        ("unknown_flag", "an unknown flag", p, flags(2)),
        (
            "tombstone_with_value",
            "a tombstone with a value",
            p,
            flags(1),
        ),
        (
            "no_version",
            "a record without version",
            p,
            push_of("home", &[no_version]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{decode_dynamic, descriptor};
    use prost_reflect::{DynamicMessage, Value};
    use std::collections::BTreeSet;

    fn mark(message: &DynamicMessage, seen: &mut BTreeSet<String>) {
        for (field, value) in message.fields() {
            seen.insert(field.full_name().to_owned());
            let values = match value {
                Value::List(values) => values.as_slice(),
                one => std::slice::from_ref(one),
            };
            values
                .iter()
                .filter_map(Value::as_message)
                .for_each(|m| mark(m, seen));
        }
    }

    #[test]
    fn every_field_of_every_message_is_in_some_vector() {
        let mut seen = BTreeSet::new();
        for case in Message::cases() {
            let of = case.compute().unwrap().of;
            mark(&decode_dynamic(&of.r#type, &of.hex.0).unwrap(), &mut seen);
        }
        let pool = descriptor("gosync.v1.Record")
            .unwrap()
            .parent_pool()
            .clone();
        let missing: Vec<String> = pool
            .all_messages()
            .filter(|message| message.package_name() == "gosync.v1")
            .flat_map(|message| {
                message
                    .fields()
                    .map(|f| f.full_name().to_owned())
                    .collect::<Vec<_>>()
            })
            .filter(|field| !seen.contains(field))
            .collect();
        assert!(seen.len() > 100, "{}", seen.len());
        assert_eq!(missing, [""; 0]);
    }
}
