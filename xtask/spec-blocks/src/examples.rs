//! Worked examples: one small world (a space of to-dos) whose records, digests and messages all chapters show.

use anyhow::{Context, Result, bail, ensure};
use gosync_proto::merkle::{self, Stream};
use gosync_proto::record::{BRANCH_TAG, RECORD_TAG};
use gosync_proto::version::{ReplicaId, Time, Version};
use gosync_proto::{Content, Digest, Key, Record, wire};
use prost::Message;

use crate::dump::{self, hex};

const SPACE: &str = "team-1";
/// 2026-01-01T00:00:00Z, Unix milliseconds.
const NOW_MS: u64 = 1_767_225_600_000;
const EPOCH: u64 = 0x9e37_79b9_7f4a_7c15;
const TAG: u64 = 0xd1b5_4a32_d192_ed03;
const LAPTOP: ReplicaId = ReplicaId(0x0102_0304_0506_0708);

/// A put and a tombstone with every byte of their digests' inputs.
pub fn digests() -> Result<String> {
    let mut out = String::from("```\n");
    for record in [
        put("todos\0t1\0title", 2, "\"Milk\"")?,
        tombstone("todos\0t2\0", 3)?,
    ] {
        out += &digest(&record)?;
        out.push('\n');
    }
    Ok(out.trim_end().to_owned() + "\n```")
}

/// The tree over three records: their keys' bits, and the input of each inner node.
pub fn fingerprint() -> Result<String> {
    let records = [put("a", 1, "1")?, put("ab", 2, "2")?, put("b", 3, "3")?];
    let mut stream = Stream::new();
    let mut out = String::from("```\n");
    for record in &records {
        let (key, digest) = (record.key.as_bytes(), record.digest());
        stream.push(key, digest)?;
        let bits: Vec<String> = (0..=key.len() as u32)
            .map(|byte| {
                (0..9)
                    .map(|at| {
                        if merkle::bit(key, byte * 9 + at) {
                            '1'
                        } else {
                            '0'
                        }
                    })
                    .collect()
            })
            .collect();
        out += &format!(
            "key {:<5} bits {}...\n      time {:?}, value {:?}\n      digest {}\n",
            format!("\"{}\"", record.key),
            bits.join(" "),
            record.version.time,
            String::from_utf8_lossy(record.content.value()),
            digest.to_hex(),
        );
    }
    let [a, ab, b] = records.map(|record| (record.key.as_bytes().to_vec(), record.digest()));
    let inner = node(&mut out, "{\"a\", \"ab\"}", &a, &ab, a.1, ab.1)?;
    let root = node(&mut out, "{\"a\", \"ab\", \"b\"}", &ab, &b, inner, b.1)?;
    ensure!(
        stream.finish().fingerprint == root,
        "the shown tree does not give the fingerprint"
    );
    Ok(out.trim_end().to_owned() + "\n```")
}

/// Shows the node that splits between the neighbours `below` and `above`.
fn node(
    out: &mut String,
    set: &str,
    below: &(Vec<u8>, Digest),
    above: &(Vec<u8>, Digest),
    left: Digest,
    right: Digest,
) -> Result<Digest> {
    let bit = merkle::critical_bit(&below.0, &above.0).context("the keys are equal")?;
    let input = [&BRANCH_TAG[..], &left.0, &right.0].concat();
    let fingerprint = sha256(input);
    ensure!(
        merkle::branch(&left, &right) == fingerprint,
        "the documented bytes do not hash to the fingerprint"
    );
    *out += &format!(
        "\nfp({set}): the keys first differ in bit {bit}\n  {}  \"gosync.v1.branch\"\n  {}\n  {}\n= {}\n",
        hex(BRANCH_TAG),
        left.to_hex(),
        right.to_hex(),
        fingerprint.to_hex()
    );
    Ok(fingerprint)
}

/// One message of the wire, as text, bytes and explained.
pub fn message(name: &str) -> Result<String> {
    let bytes = match name {
        "PushRequest" => push_request()?.encode_to_vec(),
        "PushResponse" => push_response().encode_to_vec(),
        "HelloRequest" => hello_request()?.encode_to_vec(),
        _ => bail!("there is no example of `{name}`"),
    };
    dump::render(name, &bytes)
}

fn digest(record: &Record) -> Result<String> {
    let key = record.key.as_bytes();
    let parts: [(&str, Vec<u8>); 7] = [
        ("\"gosync.v1.record\"", RECORD_TAG.to_vec()),
        ("flags", record.content.flags().to_be_bytes().to_vec()),
        ("version.time", record.version.time.0.to_be_bytes().to_vec()),
        (
            "version.replica",
            record.version.replica.0.to_be_bytes().to_vec(),
        ),
        (
            "length of the key",
            (key.len() as u32).to_be_bytes().to_vec(),
        ),
        ("key", key.to_vec()),
        (
            "SHA-256 of the value, or zeros",
            record.content.value_hash().0.to_vec(),
        ),
    ];
    let input: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    ensure!(
        sha256(input.clone()) == record.digest(),
        "the documented bytes do not hash to the digest"
    );
    let what = match &record.content {
        Content::Put(value) => format!(
            "put, value {} ({} bytes)",
            value.escape_ascii(),
            value.len()
        ),
        Content::Tombstone => "tombstone".to_owned(),
    };
    let mut out = format!(
        "key \"{}\", {what}\ntime {:?} = 0x{:016x}, replica {:?}\n",
        key.escape_ascii(),
        record.version.time,
        record.version.time.0,
        record.version.replica,
    );
    for (name, bytes) in parts {
        let mut chunks = bytes.chunks(16);
        let first = hex(chunks.next().unwrap_or_default());
        out += &format!("  {first:<34}{name}\n");
        for chunk in chunks {
            out += &format!("  {}\n", hex(chunk));
        }
    }
    out += &format!(
        "  {} bytes\ndigest {}\n",
        input.len(),
        record.digest().to_hex()
    );
    Ok(out)
}

/// SHA-256 as the rules' own crate computes it: that of a value.
fn sha256(bytes: Vec<u8>) -> Digest {
    Content::Put(bytes.into()).value_hash()
}

fn version(counter: u64) -> Version {
    Version {
        time: Time(Time::from_millis(NOW_MS).0 + counter),
        replica: LAPTOP,
    }
}

fn put(key: &str, counter: u64, value: &str) -> Result<Record> {
    Ok(Record {
        key: Key::new(key.as_bytes())?,
        version: version(counter),
        content: Content::Put(value.as_bytes().to_vec().into()),
    })
}

fn tombstone(key: &str, counter: u64) -> Result<Record> {
    Ok(Record {
        key: Key::new(key.as_bytes())?,
        version: version(counter),
        content: Content::Tombstone,
    })
}

fn cursor(sequence: u64) -> wire::Cursor {
    wire::Cursor {
        epoch: EPOCH,
        sequence,
        tag: TAG,
    }
}

/// Everything, followed up to sequence 7.
fn held() -> wire::HeldRanges {
    wire::HeldRanges {
        ranges: vec![wire::Range::default()],
        cursor: Some(cursor(7)),
    }
}

fn push_request() -> Result<wire::PushRequest> {
    Ok(wire::PushRequest {
        space: SPACE.to_owned(),
        records: vec![put("todos\0t1\0title", 2, "\"Milk\"")?.into()],
        held: vec![held()],
        ..Default::default()
    })
}

fn push_response() -> wire::PushResponse {
    wire::PushResponse {
        verdicts: vec![wire::Verdict {
            outcome: wire::Outcome::Applied as i32,
            sequence: 8,
            ..Default::default()
        }],
        position: Some(wire::Position {
            head: Some(wire::Cursor {
                tag: TAG.rotate_left(17),
                ..cursor(8)
            }),
            horizon: 0,
        }),
        server_time_ms: NOW_MS + 40,
        held: vec![wire::HistoryStatus {
            lineage: wire::Lineage::Same as i32,
            mapped_sequence: 7,
            behind_compaction: false,
        }],
    }
}

fn hello_request() -> Result<wire::HelloRequest> {
    let record = put("todos\0t1\0title", 2, "\"Milk\"")?;
    Ok(wire::HelloRequest {
        versions: vec![gosync_proto::PROTOCOL_VERSION],
        features: vec![wire::Feature::Reconcile as i32, wire::Feature::Live as i32],
        space: SPACE.to_owned(),
        held: vec![held()],
        fingerprints: vec![record.digest().0.to_vec()],
        client: "todo-app/1.2".to_owned(),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_example_is_an_error() {
        assert!(message("NoSuchMessage").is_err());
    }

    #[test]
    fn the_fingerprint_example_shows_every_node() {
        assert_eq!(
            fingerprint().unwrap().matches("gosync.v1.branch").count(),
            2
        );
    }

    #[test]
    fn the_digest_example_shows_both_kinds_of_record() {
        let text = digests().unwrap();
        assert!(text.contains("put, value") && text.contains("tombstone"));
    }
}
