//! What must be true, kept beside the system and by other means: a naive
//! last-writer-wins map of everything that the server took, and a list of
//! every write that still waits on some device. Shares no rule with the code
//! that it judges: versions are compared as (time, replica), no more.

use futures::FutureExt as _;
use gosync_client::store::{MemoryStore, Reads, Store as _, View, WriteId};
use gosync_proto::{Content, Key, Record, Time, wire};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Inner {
    /// Every record that the server ever said it took.
    taken: BTreeMap<Key, Vec<Record>>,
    /// Writes that no device has settled yet.
    waiting: BTreeMap<(usize, WriteId), Record>,
    writes: u64,
}

/// Clones keep the same books.
#[derive(Clone, Default)]
pub struct Ledger {
    books: Arc<Mutex<Inner>>,
    violations: Arc<Mutex<Vec<String>>>,
}

/// Which of two records wins: the later version; where a faulty replica gave
/// one version to two contents, the tombstone, then the greater hash.
pub fn newer(a: &Record, b: &Record) -> bool {
    let rank = |r: &Record| {
        let content = match &r.content {
            Content::Tombstone => (1, Vec::new()),
            Content::Put(value) => (0, Sha256::digest(value).to_vec()),
        };
        (r.version.time, r.version.replica, content)
    };
    match (a.version.time, a.version.replica).cmp(&(b.version.time, b.version.replica)) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => rank(a) > rank(b),
    }
}

fn show(record: Option<&Record>) -> String {
    match record {
        None => "nothing".into(),
        Some(r) => {
            let content = match &r.content {
                Content::Put(value) => value.iter().take(12).copied().collect(),
                Content::Tombstone => b"(deleted)".to_vec(),
            };
            format!(
                "{} = {} @{}.{:04x}",
                r.key,
                content.escape_ascii(),
                r.version.time.0,
                r.version.replica.0 & 0xffff
            )
        }
    }
}

impl Ledger {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other books, of another space, with one list of violations.
    pub fn beside(&self) -> Ledger {
        Ledger {
            books: Arc::default(),
            violations: Arc::clone(&self.violations),
        }
    }

    /// Notes that something happened which must not.
    pub fn violation(&self, what: String) {
        let violations = self.violations.lock();
        violations
            .unwrap_or_else(PoisonError::into_inner)
            .push(what);
    }

    /// What happened which must not.
    pub fn violations(&self) -> Vec<String> {
        let violations = self.violations.lock();
        violations.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many writes the devices made.
    pub fn writes(&self) -> u64 {
        self.inner().writes
    }

    /// The server answered a push.
    pub fn pushed(&self, request: &wire::PushRequest, answer: &wire::PushResponse) {
        let mut inner = self.inner();
        if request.records.len() != answer.verdicts.len() {
            let what = "a push got another number of verdicts than it had records";
            self.violation(what.into());
        }
        for (record, verdict) in request.records.iter().zip(&answer.verdicts) {
            let took = matches!(
                verdict.outcome(),
                wire::Outcome::Applied | wire::Outcome::Unchanged
            );
            let Ok(record) = Record::try_from(record.clone()) else {
                self.violation("a device pushed no record".into());
                continue;
            };
            if took {
                let taken = inner.taken.entry(record.key.clone()).or_default();
                if !taken.contains(&record) {
                    taken.push(record);
                }
            }
        }
    }

    /// A device's store is gone, with what waited in it.
    pub fn lost(&self, device: usize) {
        self.inner().waiting.retain(|(d, _), _| *d != device);
    }

    /// Keys with writes that wait on some device.
    pub fn waiting(&self) -> Vec<(usize, Record)> {
        let inner = self.inner();
        let waiting = inner.waiting.iter();
        waiting.map(|((d, _), r)| (*d, r.clone())).collect()
    }

    /// A record that the server took some time, by whatever place in the books.
    pub fn any_taken(&self, place: u64) -> Option<Record> {
        let inner = self.inner();
        let nth = place as usize % inner.taken.len().max(1);
        inner.taken.values().nth(nth)?.last().cloned()
    }

    /// What the naive map holds under a key.
    pub fn newest(&self, key: &Key) -> Option<Record> {
        let inner = self.inner();
        let taken = inner.taken.get(key)?;
        let mut newest = taken.first()?;
        for record in taken {
            if newer(record, newest) {
                newest = record;
            }
        }
        Some(newest.clone())
    }

    /// A transaction of a device's store was carried out: `put` and `removed`
    /// writes, `stored` records. `store` is as it is afterwards.
    pub fn stored(
        &self,
        device: usize,
        store: &MemoryStore,
        put: Vec<(WriteId, Record)>,
        removed: Vec<WriteId>,
        stored: Vec<Record>,
    ) {
        let mut inner = self.inner();
        for record in stored {
            let known = inner
                .taken
                .get(&record.key)
                .is_some_and(|t| t.contains(&record));
            if !known {
                self.violation(format!(
                    "device {device} holds as clean what the server never took: {}",
                    show(Some(&record))
                ));
            }
        }
        let kept: BTreeSet<WriteId> = put.iter().map(|(id, _)| *id).collect();
        for (id, record) in put {
            if inner.waiting.insert((device, id), record).is_none() {
                inner.writes += 1;
            }
        }
        let mut gone: BTreeMap<Key, Vec<(WriteId, Record)>> = BTreeMap::new();
        for id in removed {
            if kept.contains(&id) {
                continue;
            }
            if let Some(record) = inner.waiting.remove(&(device, id)) {
                let writes = gone.entry(record.key.clone()).or_default();
                writes.push((id, record));
            }
        }
        for (key, mut writes) in gone {
            let view = look(store, &key);
            let held = view.held(&key);
            let clean = held.clean.filter(|c| c.intact()).map(|c| &c.record);
            // newest first. A write may go because of a later one of this
            // device that replaces it: one that still waits, or one that goes
            // in the same transaction, is newer, and had itself a reason to go.
            // What then follows from the later one follows for both, since
            // merging keeps the newer of the two.
            writes.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
            let mut reason: Option<Record> = None;
            for (id, record) in writes {
                let later =
                    |w: &&gosync_client::store::Write| w.id > id && newer(&w.record, &record);
                let replaced = held.writes.iter().any(later)
                    || reason.as_ref().is_some_and(|r| newer(r, &record));
                let settled = clean.is_some_and(|c| *c == record || newer(c, &record));
                // a tombstone of a key that is gone everywhere has nothing to do
                let pointless = record.is_tombstone()
                    && clean.is_none()
                    && record.version.time < view.meta.horizon;
                if replaced || settled || pointless {
                    reason.get_or_insert(record);
                    continue;
                }
                self.violation(format!(
                    "device {device} dropped write {id}, {}, while {} stands there",
                    show(Some(&record)),
                    show(clean),
                ));
            }
        }
    }

    /// Compares the server's records with the naive map. `forgiving`: a
    /// deletion that was compacted may have been forgotten.
    pub fn judge(&self, records: &BTreeMap<Key, Record>, horizon: Time, forgiving: bool) {
        let keys: BTreeSet<Key> = {
            let inner = self.inner();
            inner.taken.keys().chain(records.keys()).cloned().collect()
        };
        for key in keys {
            let (newest, found) = (self.newest(&key), records.get(&key));
            if newest.as_ref() == found {
                continue;
            }
            let gone = |r: &Record| r.is_tombstone() && r.version.time < horizon;
            if newest.as_ref().is_some_and(gone) && found.is_none() {
                continue;
            }
            let deleted = newest.as_ref().is_some_and(Record::is_tombstone);
            if deleted && forgiving {
                continue;
            }
            self.violation(format!(
                "the newest that was acknowledged is {}, the server holds {}",
                show(newest.as_ref()),
                show(found)
            ));
        }
    }
}

fn look(store: &MemoryStore, key: &Key) -> View {
    let look = store.transact(Reads::keys([key.clone()]), |view| {
        (Default::default(), view.clone())
    });
    // a store in memory never waits
    look.now_or_never().and_then(Result::ok).unwrap_or_default()
}
