//! The small world of all examples: a space of to-dos, a laptop that writes to it, a server's history.

use anyhow::Result;
use gosync_proto::version::{ReplicaId, Time, Version};
use gosync_proto::{Content, Digest, Key, Record, wire};

/// The space's id.
pub const SPACE: &str = "team-1";
/// 2026-01-01T00:00:00Z, Unix milliseconds.
pub const NOW_MS: u64 = 1_767_225_600_000;

const EPOCH: u64 = 0x9e37_79b9_7f4a_7c15;
const LAPTOP: ReplicaId = ReplicaId(0x0102_0304_0506_0708);

/// A record with a value; `counter` tells the versions of the world apart.
pub fn put(key: &str, counter: u64, value: &str) -> Result<Record> {
    record(key, counter, Content::Put(value.as_bytes().to_vec().into()))
}

/// A record that says that its key was deleted.
pub fn tombstone(key: &str, counter: u64) -> Result<Record> {
    record(key, counter, Content::Tombstone)
}

fn record(key: &str, counter: u64, content: Content) -> Result<Record> {
    let time = Time(Time::from_millis(NOW_MS).0 + counter);
    Ok(Record {
        key: Key::new(key.as_bytes())?,
        version: Version {
            time,
            replica: LAPTOP,
        },
        content,
    })
}

/// SHA-256 as the rules' own crate computes it: that of a value.
pub fn sha256(bytes: Vec<u8>) -> Digest {
    Content::Put(bytes.into()).value_hash()
}

/// The end of the commit at `sequence`, with a tag that looks random.
pub fn cursor(sequence: u64) -> wire::Cursor {
    wire::Cursor {
        epoch: EPOCH,
        sequence,
        tag: (sequence + 1).wrapping_mul(0xd1b5_4a32_d192_ed03),
    }
}

/// The state after the commit at `sequence`, never compacted.
pub fn position(sequence: u64) -> wire::Position {
    wire::Position {
        head: Some(cursor(sequence)),
        horizon: 0,
    }
}

/// All keys, followed up to `sequence`; `None`: not followed yet.
pub fn held(sequence: Option<u64>) -> Vec<wire::HeldRanges> {
    vec![wire::HeldRanges {
        ranges: vec![wire::Range::default()],
        cursor: sequence.map(cursor),
    }]
}

/// The status of a replica that is in order.
pub fn in_order(mapped_sequence: u64) -> Vec<wire::HistoryStatus> {
    vec![wire::HistoryStatus {
        lineage: wire::Lineage::Same as i32,
        mapped_sequence,
        behind_compaction: false,
    }]
}
