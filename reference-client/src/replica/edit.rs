//! Local writes: their versions, batches, and what the user may do with one
//! that the server refused.

use super::{Fate, Settled};
use crate::store::{Changes, Store, StoreError, View, Write, WriteId, WriteState};
use crate::store::{Meta, Reads};
use bytes::Bytes;
use gosync_proto::limits::Limits;
use gosync_proto::{Clock, Content, Invalid, Key, Record, ReplicaId, Time, Version, mutant};
use std::collections::{BTreeMap, HashMap};

/// One change of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// Sets a value.
    Put(Key, Bytes),
    /// Deletes whatever is there.
    Delete(Key),
}

impl Edit {
    /// The key that it changes.
    pub fn key(&self) -> &Key {
        match self {
            Edit::Put(key, _) | Edit::Delete(key) => key,
        }
    }
}

/// Why a write was not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// The edits break a limit of the protocol or of the server.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// No version is left above the record to be replaced.
    #[error("the record under {0} carries a version at the end of time; it cannot be replaced")]
    ClockExhausted(Key),
    /// The store failed; nothing was written, unless it says
    /// [`StoreError::InDoubt`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A write that is durable on this device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// Its ids, one for each key.
    pub ids: Vec<WriteId>,
    /// The keys that it changed.
    pub keys: Vec<Key>,
}

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub struct Author {
    /// The replica id of this opening.
    pub replica: ReplicaId,
    /// Wall clock, Unix milliseconds.
    pub now_ms: u64,
}

/// Decides about `edits`, which become visible, durable and pushed together.
/// The last edit of a key counts.
pub fn decide(
    view: &View,
    author: Author,
    edits: Vec<Edit>,
) -> (Changes, Result<Written, WriteError>) {
    match record_edits(view, author, edits) {
        Ok((changes, written)) => (changes, Ok(written)),
        Err(e) => (Changes::default(), Err(e)),
    }
}

fn record_edits(
    view: &View,
    author: Author,
    edits: Vec<Edit>,
) -> Result<(Changes, Written), WriteError> {
    let edits = last_of_each_key(edits);
    check_limits(&view.meta, &edits)?;
    if edits.is_empty() {
        let nothing = Written {
            ids: vec![],
            keys: vec![],
        };
        return Ok((Changes::default(), nothing));
    }
    let mut meta = view.meta.clone();
    let mut clock = Clock::new(author.replica, meta.floor);
    let mut newest: HashMap<&Key, Version> = HashMap::new();
    for w in view.writes.values() {
        let seen = newest.entry(&w.record.key).or_insert(w.record.version);
        *seen = w.record.version.max(*seen);
    }
    let first = meta.number_writes(edits.len());
    let batch = (edits.len() > 1 && !mutant!(BatchInPieces)).then_some(first);
    let mut put_writes = Vec::with_capacity(edits.len());
    for (i, edit) in edits.into_iter().enumerate() {
        let (key, content) = match edit {
            Edit::Put(key, value) => (key, Content::Put(value)),
            Edit::Delete(key) => (key, Content::Tombstone),
        };
        let clean = view.clean.get(&key).filter(|s| s.intact());
        let replaces = clean
            .map(|s| s.record.version)
            .max(newest.get(&key).copied())
            .max(view.quarantine.get(&key).map(|q| q.record.version));
        let version = clock
            .issue(
                author.now_ms,
                replaces.filter(|_| !mutant!(ReplacedIgnored)),
            )
            .map_err(|_| WriteError::ClockExhausted(key.clone()))?;
        let kept = replaces.filter(|_| content == Content::Tombstone);
        let kept = kept.filter(|_| mutant!(DeletionKeepsVersion));
        let version = kept.unwrap_or(version);
        let record = Record {
            key,
            version,
            content,
        };
        put_writes.push(Write::new(WriteId(first.0 + i as u64), record, batch));
    }
    if !mutant!(FloorForgotten) {
        meta.floor = clock.floor();
    }
    let written = Written {
        ids: put_writes.iter().map(|w| w.id).collect(),
        keys: put_writes.iter().map(|w| w.record.key.clone()).collect(),
    };
    let changes = Changes {
        meta: Some(meta),
        put_writes,
        ..Changes::default()
    };
    Ok((changes, written))
}

/// Keeps the order in which the keys were edited last.
fn last_of_each_key(edits: Vec<Edit>) -> Vec<Edit> {
    if edits.len() < 2 {
        return edits;
    }
    let last: BTreeMap<Key, usize> = edits
        .iter()
        .enumerate()
        .map(|(i, e)| (e.key().clone(), i))
        .collect();
    edits
        .into_iter()
        .enumerate()
        .filter(|(i, e)| last.get(e.key()) == Some(i))
        .map(|(_, e)| e)
        .collect()
}

/// What the server would refuse anyway is refused at once, where its author
/// can still be asked.
fn check_limits(meta: &Meta, edits: &[Edit]) -> Result<(), Invalid> {
    let limits = meta.limits.unwrap_or_default();
    let mut bytes = 0;
    for edit in edits {
        let value = match edit {
            Edit::Put(_, value) => value.len(),
            Edit::Delete(_) => 0,
        };
        let most = limits.max_value_bytes - u64::from(mutant!(LargestValueRefused));
        if value as u64 > most && !mutant!(ValueLimitUnchecked) {
            return Err(Invalid::limit(
                "value",
                "max_value_bytes",
                limits.max_value_bytes,
                value as u64,
            ));
        }
        bytes += Limits::encoded_bound(edit.key(), value) as u64;
    }
    if edits.len() as u64 > limits.max_push_records && !mutant!(BatchSizeUnchecked) {
        return Err(Invalid::limit(
            "batch",
            "max_push_records",
            limits.max_push_records,
            edits.len() as u64,
        ));
    }
    let room = super::parcel::room(&limits);
    if edits.len() > 1 && bytes > room {
        return Err(Invalid::limit("batch", "max_message_bytes", room, bytes));
    }
    Ok(())
}

/// Which writes belong to the write `id`: itself, or its whole batch, since a
/// batch stays together.
async fn group<S: Store>(store: &S, id: WriteId) -> Result<Vec<WriteId>, StoreError> {
    let only = Reads {
        writes: vec![id],
        ..Reads::default()
    };
    let batch = store
        .transact(only, move |view| {
            let batch = view.writes.get(&id).map(|w| w.batch);
            (Changes::default(), batch)
        })
        .await?;
    Ok(match batch {
        None => vec![],
        Some(None) => vec![id],
        // ids of a batch follow each other
        Some(Some(first)) => {
            let mut members = Vec::new();
            let mut after = first.0.checked_sub(1).map(WriteId);
            'pages: loop {
                let page = store.writes(after, 1_000).await?;
                if page.is_empty() {
                    break;
                }
                for w in &page {
                    match w.batch {
                        Some(b) if b == first => members.push(w.id),
                        _ => break 'pages,
                    }
                }
                after = page.last().map(|w| w.id);
            }
            members
        }
    })
}

/// Gives up the write `id` and the rest of its batch. A write that was already
/// sent may have reached the server all the same, and then comes back.
/// Returns what was discarded; nothing when the write is no longer there.
///
/// # Errors
/// The store failed; nothing was discarded.
pub async fn discard<S: Store>(store: &S, id: WriteId) -> Result<Vec<Settled>, StoreError> {
    let reads = Reads {
        writes: group(store, id).await?,
        ..Reads::default()
    };
    store
        .transact(reads, |view| {
            let settled: Vec<Settled> = view
                .writes
                .values()
                .map(|w| Settled {
                    id: w.id,
                    key: w.record.key.clone(),
                    fate: Fate::Discarded,
                })
                .collect();
            let gone = settled.iter().filter(|_| !mutant!(DiscardForgotten));
            let changes = Changes {
                remove_writes: gone.map(|s| s.id).collect(),
                ..Changes::default()
            };
            (changes, settled)
        })
        .await
}

/// Lets the refused write `id` and the rest of its batch be sent again.
/// Returns the keys of those that wait again; `None` when the write is no
/// longer there.
///
/// # Errors
/// The store failed; nothing changed.
pub async fn retry<S: Store>(store: &S, id: WriteId) -> Result<Option<Vec<Key>>, StoreError> {
    let reads = Reads {
        writes: group(store, id).await?,
        ..Reads::default()
    };
    store
        .transact(reads, |view| {
            let waiting: Vec<Write> = view
                .writes
                .values()
                .filter(|w| !w.is_waiting() && !mutant!(RetryForgotten))
                .map(|w| Write {
                    state: WriteState::Waiting,
                    ..w.clone()
                })
                .collect();
            let keys = waiting.iter().map(|w| w.record.key.clone()).collect();
            let changes = Changes {
                put_writes: waiting,
                ..Changes::default()
            };
            (changes, (!view.writes.is_empty()).then_some(keys))
        })
        .await
}

/// Gives the writes `refused` new versions: the server found theirs too far in
/// the future, at its time `server_now_ms`. In order, each above what it
/// replaces. The clock of the store falls back to the server's time, so that
/// later writes are not refused as well.
pub fn restamp(view: &View, author: Author, refused: &[WriteId], server_now_ms: u64) -> Changes {
    let mut meta = view.meta.clone();
    // nothing above this time was ever accepted from this replica: those
    // writes are the ones that get new versions now
    meta.floor = meta.floor.min(Time::from_millis(server_now_ms));
    let mut clock = Clock::new(author.replica, meta.floor);
    let mut versions: BTreeMap<WriteId, (&Key, Version)> = view
        .writes
        .values()
        .map(|w| (w.id, (&w.record.key, w.record.version)))
        .collect();
    let mut put_writes: Vec<Write> = Vec::new();
    let mut refused = refused.to_vec();
    refused.sort();
    if mutant!(RestampReorders) {
        refused.reverse();
    }
    for w in refused.iter().filter_map(|id| view.writes.get(id)) {
        let key = &w.record.key;
        let earlier = versions.range(..w.id).map(|(_, v)| v);
        let before = earlier.filter(|(k, _)| *k == key).map(|(_, v)| *v).max();
        let clean = view.clean.get(key).filter(|s| s.intact());
        let replaces = clean
            .map(|s| s.record.version)
            .max(before)
            .max(view.quarantine.get(key).map(|q| q.record.version));
        // a clock at its end leaves the write as it is: refused again, and
        // visible as such
        if let Ok(version) = clock.issue(server_now_ms, replaces) {
            versions.insert(w.id, (key, version));
            put_writes.push(w.restamped(version));
        }
    }
    meta.floor = clock.floor();
    Changes {
        meta: Some(meta),
        put_writes,
        ..Changes::default()
    }
}
