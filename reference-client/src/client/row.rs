//! What a reader sees under a key.

use crate::store::{Held, Page, Quarantined, Source, Stored, Write, WriteId, WriteState};
use bytes::Bytes;
use gosync_proto::{Content, Key, Reason, Record, Version};
use std::collections::BTreeMap;

/// A key and its value, as a reader sees them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Bytes,
    /// When and by whom it was written.
    pub version: Version,
    /// Whether the server has it.
    pub pending: Pending,
}

/// How far a row has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pending {
    /// The server has it.
    Synced,
    /// It waits for the server.
    Waiting,
    /// The server refused it.
    Rejected {
        /// Why; `None` for a reason that this version does not know.
        reason: Option<Reason>,
        /// The server's sentence for people.
        detail: String,
    },
    /// The server lost it, and does not get it again from here.
    Quarantined,
}

/// A write that the server has not taken, as `pending()` lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingWrite {
    /// For `retry` and `discard`.
    pub id: WriteId,
    /// The key.
    pub key: Key,
    /// The value; `None` for a deletion.
    pub value: Option<Bytes>,
    /// Its version.
    pub version: Version,
    /// Its batch, by the id of the first write.
    pub batch: Option<WriteId>,
    /// It may already have reached the server.
    pub attempted: bool,
    /// Whether it waits or was refused.
    pub state: WriteState,
    /// See [`Write::in_doubt`].
    pub in_doubt: bool,
}

impl PendingWrite {
    /// Of a write; `attempted` is the store's mark.
    pub fn new(write: Write, attempted: u64) -> PendingWrite {
        PendingWrite {
            id: write.id,
            key: write.record.key,
            value: match write.record.content {
                Content::Put(value) => Some(value),
                Content::Tombstone => None,
            },
            version: write.record.version,
            batch: write.batch,
            attempted: write.id.0 <= attempted,
            state: write.state,
            in_doubt: write.in_doubt,
        }
    }
}

/// What a reader sees of all that is held under a key; `None` when there is
/// nothing or it is deleted.
pub fn row(held: &Held<'_>) -> Option<Row> {
    visible(held)
        .filter(|(r, _)| !r.is_tombstone())
        .map(|(record, pending)| Row {
            key: record.key.clone(),
            value: match &record.content {
                Content::Put(value) => value.clone(),
                Content::Tombstone => Bytes::new(),
            },
            version: record.version,
            pending,
        })
}

/// The record that counts, tombstones included, and how far it has come.
pub fn visible<'a>(held: &Held<'a>) -> Option<(&'a Record, Pending)> {
    let (record, source) = held.visible()?;
    let pending = match source {
        Source::Clean => Pending::Synced,
        Source::Quarantine => Pending::Quarantined,
        Source::Write(write) => match &write.state {
            WriteState::Waiting => Pending::Waiting,
            WriteState::Rejected { reason, detail } => Pending::Rejected {
                reason: *reason,
                detail: detail.clone(),
            },
        },
    };
    Some((record, pending))
}

/// What readers see of a page, in key order; and the keys whose clean record
/// is damaged.
pub fn rows(page: &Page) -> (Vec<Row>, Vec<Key>) {
    rows_of(&page.clean, &page.quarantine, &page.writes)
}

/// [`rows`] of the parts of a page or of a view; the writes in order.
pub fn rows_of<'a>(
    clean: impl IntoIterator<Item = &'a Stored>,
    quarantine: impl IntoIterator<Item = &'a Quarantined>,
    writes: impl IntoIterator<Item = &'a Write>,
) -> (Vec<Row>, Vec<Key>) {
    let mut held: BTreeMap<&Key, Held<'_>> = BTreeMap::new();
    for s in clean {
        held.entry(&s.record.key).or_default().clean = Some(s);
    }
    for q in quarantine {
        held.entry(&q.record.key).or_default().quarantined = Some(q);
    }
    for w in writes {
        held.entry(&w.record.key).or_default().writes.push(w);
    }
    let damaged = held
        .values()
        .filter_map(|h| h.clean)
        .filter(|s| !s.intact())
        .map(|s| s.record.key.clone())
        .collect();
    (held.values().filter_map(row).collect(), damaged)
}
