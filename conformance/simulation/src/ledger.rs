//! What must be true, kept beside the system and by other means: a naive
//! last-writer-wins map of everything that the server took, and a list of
//! every write that still waits on some device. Shares no rule with the code
//! that it judges: versions are compared as (time, replica), no more.

use crate::drive::Drive;
use futures::FutureExt as _;
use gosync_client::replica::Fate;
use gosync_client::store::{Changes, Reads, Store as _, View, Write, WriteId};
use gosync_proto::{Content, Key, KeyRange, Record, ReplicaId, Time, wire};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

fn version(record: &Record) -> (Time, ReplicaId) {
    (record.version.time, record.version.replica)
}

/// Records by key and version. A version has two contents only where a faulty
/// replica gave it to both.
#[derive(Default)]
struct Records(BTreeMap<Key, BTreeMap<(Time, ReplicaId), Vec<Record>>>);

impl Records {
    fn insert(&mut self, record: Record) {
        let versions = self.0.entry(record.key.clone()).or_default();
        let same = versions.entry(version(&record)).or_default();
        if !same.contains(&record) {
            same.push(record);
        }
    }

    fn contains(&self, record: &Record) -> bool {
        let versions = self.0.get(&record.key);
        let same = versions.and_then(|versions| versions.get(&version(record)));
        same.is_some_and(|same| same.contains(record))
    }

    fn newest(&self, key: &Key) -> Option<&Record> {
        let (_, same) = self.0.get(key)?.last_key_value()?;
        same.iter().reduce(|a, b| if newer(b, a) { b } else { a })
    }
}

/// The longest that a request may be under way: its sender waits a minute for
/// the answer, and the network may keep a copy for as long.
const ON_ITS_WAY_MS: u64 = 120_000;

#[derive(Default)]
struct Inner {
    /// Every record that the server ever said it took.
    taken: Records,
    /// What it had said before all began anew.
    past: Records,
    /// Every record that anybody ever made.
    made: Records,
    /// Writes that no device has settled yet.
    waiting: BTreeMap<(usize, WriteId), Record>,
    /// With what each write was made, or waited last.
    writes_made: BTreeMap<(usize, WriteId), Record>,
    /// Until when a write waited that does so no more, by its version: a request
    /// with it may still be on its way.
    settled_at: BTreeMap<(usize, Key, Time, ReplicaId), u64>,
    /// Pushed, and nobody can know whether the server took it: its store failed.
    unknown: Records,
    /// When the server took a tombstone first.
    deleted_at: BTreeMap<(Key, Time, ReplicaId), u64>,
    /// What stores have queued to be given back to a server that lost it, and
    /// whether their applications were told, or died before they could be.
    offered: BTreeMap<(usize, Key), bool>,
    writes: u64,
}

impl Inner {
    /// Whether the author of a record knew that it goes to the server although
    /// it may have been deleted: it was a write of theirs that waited when it
    /// was sent, or they were told that the server gets it again.
    fn is_known_to_return(&self, store: usize, record: &Record, now_ms: u64) -> bool {
        let (time, replica) = version(record);
        let settled = (store, record.key.clone(), time, replica);
        let settled = self.settled_at.get(&settled);
        let told = self.offered.get(&(store, record.key.clone()));
        let writes = (store, WriteId(0))..(store + 1, WriteId(0));
        told == Some(&true)
            || settled.is_some_and(|at| now_ms <= at + ON_ITS_WAY_MS)
            || self.waiting.range(writes).any(|(_, r)| r == record)
    }

    fn settled(&mut self, store: usize, record: &Record, now_ms: u64) {
        let (time, replica) = version(record);
        let settled = (store, record.key.clone(), time, replica);
        self.settled_at.insert(settled, now_ms);
    }

    /// A tombstone reached the server, if it is one.
    fn deleted(&mut self, record: &Record, now_ms: u64) {
        if record.is_tombstone() {
            let (time, replica) = version(record);
            let deleted = (record.key.clone(), time, replica);
            self.deleted_at.entry(deleted).or_insert(now_ms);
        }
    }

    /// What was seen at the server was taken, if anybody ever pushed it.
    fn seen(&mut self, record: &Record) {
        if !self.unknown.0.is_empty() && self.unknown.contains(record) {
            self.taken.insert(record.clone());
        }
    }
}

/// What a transaction of a device's store did, as far as the books want to know.
#[derive(Debug, Default)]
pub struct Done {
    put: Vec<Write>,
    /// The newest that the author of a new write could see under its key.
    over: BTreeMap<WriteId, Record>,
    removed: Vec<WriteId>,
    stored: Vec<Record>,
    offers: Vec<Key>,
}

impl Done {
    /// Out of its changes, and what the store held before them.
    pub fn of(changes: &Changes, before: &View) -> Done {
        let new = changes.put_writes.iter();
        let new = new.filter(|w| !before.writes.contains_key(&w.id));
        let over = new.filter_map(|w| {
            let key = &w.record.key;
            let clean = before.clean.get(key).filter(|s| s.intact());
            let unsent = before.writes.values().map(|w| &w.record);
            let seen = unsent.filter(|r| r.key == *key);
            let seen = seen.chain(clean.map(|s| &s.record));
            let newest = seen.reduce(|a, b| if newer(b, a) { b } else { a })?;
            Some((w.id, newest.clone()))
        });
        Done {
            put: changes.put_writes.clone(),
            over: over.collect(),
            removed: changes.remove_writes.clone(),
            stored: changes.put.iter().map(|s| s.record.clone()).collect(),
            offers: changes.put_offers.clone(),
        }
    }
}

/// Clones keep the same books.
#[derive(Clone)]
pub struct Ledger {
    /// The server never loses what it took.
    server_keeps: Arc<AtomicBool>,
    books: Arc<Mutex<Inner>>,
    violations: Arc<Mutex<Vec<String>>>,
}

/// Which of two records wins: the later version; where a faulty replica gave
/// one version to two contents, the tombstone, then the greater hash.
pub fn newer(a: &Record, b: &Record) -> bool {
    let rank = |r: &Record| match &r.content {
        Content::Tombstone => (1, Vec::new()),
        Content::Put(value) => (0, Sha256::digest(value).to_vec()),
    };
    match version(a).cmp(&version(b)) {
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
    /// Empty books. `server_keeps`: the server never loses what it took.
    pub fn new(server_keeps: bool) -> Ledger {
        Ledger {
            server_keeps: Arc::new(AtomicBool::new(server_keeps)),
            books: Arc::default(),
            violations: Arc::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other books, of another space, with one list of violations.
    pub fn beside(&self) -> Ledger {
        Ledger {
            server_keeps: Arc::clone(&self.server_keeps),
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

    /// From now on the server keeps what it takes, or may lose it.
    pub fn set_server_keeps(&self, keeps: bool) {
        self.server_keeps.store(keeps, Ordering::Relaxed);
    }

    /// What came before counts no more: all agree on these.
    pub fn begin_anew(&self, records: &BTreeMap<Key, Record>) {
        let mut inner = self.inner();
        let before = std::mem::take(&mut inner.taken);
        inner.past = before;
        for record in records.values() {
            inner.taken.insert(record.clone());
        }
    }

    /// A record got into some place by damage.
    pub fn planted(&self, record: &Record) {
        let mut inner = self.inner();
        inner.made.insert(record.clone());
        inner.taken.insert(record.clone());
    }

    /// What stood under the key of a record before it, if anything did.
    pub fn before(&self, record: &Record) -> Option<Record> {
        let inner = self.inner();
        let versions = inner.taken.0.get(&record.key)?;
        let (_, earlier) = versions.range(..version(record)).next_back()?;
        earlier.first().cloned()
    }

    /// An application was told that these writes are durable.
    pub fn told(&self, store: usize, ids: &[WriteId]) {
        let inner = self.inner();
        let missing = |id: &&WriteId| !inner.writes_made.contains_key(&(store, **id));
        if let Some(id) = ids.iter().find(missing) {
            self.violation(format!(
                "the application of store {store} was told that write {id} is durable, and it is not"
            ));
        }
    }

    /// An application was told what the server made of writes. A deletion counts
    /// as applied where the server has nothing that it could delete.
    pub fn told_fate(&self, store: usize, ids: &[WriteId], fate: &Fate) {
        let inner = self.inner();
        let made = ids.iter().map(|id| inner.writes_made.get(&(store, *id)));
        let true_of =
            |r: &Record| r.is_tombstone() || inner.taken.contains(r) || inner.past.contains(r);
        // where there was nothing to delete nothing is written
        let is_true = ids.is_empty() || made.flatten().any(true_of);
        if *fate == Fate::Applied && !is_true {
            self.violation(format!(
                "the application of store {store} was told that the server holds writes {ids:?}, and it took none of them"
            ));
        }
    }

    /// The server holds these, each with its sequence: it took them, whatever it
    /// said then.
    pub fn saw(&self, records: &[(Record, u64)]) {
        let mut inner = self.inner();
        records.iter().for_each(|(record, _)| inner.seen(record));
    }

    /// A compaction, which may remove what was deleted before `until_ms`, left
    /// `after` of `before`, each with its sequence and in the order of keys.
    pub fn compacted(
        &self,
        before: &[(Record, u64)],
        after: &[(Record, u64)],
        horizon: Time,
        until_ms: u64,
    ) {
        let inner = self.inner();
        let newest = inner.taken.0.values();
        let newest = newest.filter_map(|v| Some(v.last_key_value()?.0.0)).max();
        if newest.is_some_and(|newest| horizon > newest) {
            self.violation("the horizon lies above all that was committed".into());
        }
        let mut after = after.iter().map(|(record, _)| record).peekable();
        for (record, _) in before {
            while after.next_if(|left| left.key < record.key).is_some() {}
            if after.peek() == Some(&record) {
                continue;
            }
            let (time, replica) = version(record);
            let deleted = (record.key.clone(), time, replica);
            let at = inner.deleted_at.get(&deleted);
            let may_go = record.is_tombstone() && time < horizon;
            if !may_go || at.is_some_and(|at| *at > until_ms) {
                let what = "was compacted, and must not be";
                self.violation(format!("{} {what}", show(Some(record))));
            }
        }
    }

    /// A record was made by none of the devices.
    pub fn made(&self, record: Record) {
        self.inner().made.insert(record);
    }

    /// A push ended in an error: what became of its records is not known.
    pub fn push_failed(&self, request: &wire::PushRequest, now_ms: u64) {
        let mut inner = self.inner();
        let records = request.records.iter().cloned();
        for record in records.filter_map(|r| Record::try_from(r).ok()) {
            inner.deleted(&record, now_ms);
            inner.unknown.insert(record);
        }
    }

    /// The application that has this store open was told that records in these
    /// ranges go to the server again.
    pub fn told_of_offers(&self, store: usize, ranges: &[KeyRange]) {
        let mut inner = self.inner();
        for ((of, key), told) in &mut inner.offered {
            *told |= *of == store && ranges.iter().any(|r| r.contains(key.as_bytes()));
        }
    }

    /// It died before it could be told.
    pub fn nobody_was_told(&self, store: usize) {
        let mut inner = self.inner();
        let of = inner.offered.iter_mut().filter(|((of, _), _)| *of == store);
        of.for_each(|(_, told)| *told = true);
    }

    /// The server answered a push from this store.
    pub fn pushed(
        &self,
        store: Option<usize>,
        request: &wire::PushRequest,
        answer: &wire::PushResponse,
        now_ms: u64,
    ) {
        let mut inner = self.inner();
        if request.records.len() != answer.verdicts.len() {
            let what = "a push got another number of verdicts than it had records";
            self.violation(what.into());
        }
        let horizon = Time(answer.position.map_or(0, |p| p.horizon));
        for (record, verdict) in request.records.iter().zip(&answer.verdicts) {
            let Ok(record) = Record::try_from(record.clone()) else {
                self.violation("a device pushed no record".into());
                continue;
            };
            if !inner.made.contains(&record) {
                let what = format!("a push has what nobody made: {}", show(Some(&record)));
                self.violation(what);
            }
            let newest = inner.taken.newest(&record.key);
            let outcome = verdict.outcome();
            // a compacted tombstone is taken anew when it comes once more
            let compacted = record.is_tombstone() && record.version.time < horizon;
            let gains = newest.is_none_or(|n| newer(&record, n) || *n == record && compacted);
            let keeps = self.server_keeps.load(Ordering::Relaxed);
            if outcome == wire::Outcome::Applied && keeps && !gains {
                self.violation(format!(
                    "{} was applied although {} had been taken",
                    show(Some(&record)),
                    show(newest)
                ));
            }
            let undone = newest.is_some_and(|n| n.is_tombstone() && newer(n, &record));
            let undone = undone && !record.is_tombstone();
            if outcome == wire::Outcome::Applied
                && undone
                && let Some(store) = store
                && !inner.is_known_to_return(store, &record, now_ms)
            {
                let what = "came back after its deletion, and nobody was told";
                self.violation(format!("{} {what}", show(Some(&record))));
            }
            let behind = verdict.reason() == wire::Reason::BehindCompaction;
            if behind && record.version.time >= horizon {
                let what = "was refused as below the horizon, which it is not";
                self.violation(format!("{} {what}", show(Some(&record))));
            }
            if matches!(outcome, wire::Outcome::Applied | wire::Outcome::Unchanged) {
                inner.deleted(&record, now_ms);
                inner.taken.insert(record);
            }
        }
    }

    /// A device's store is gone, with what waited in it.
    pub fn lost(&self, device: usize) {
        let mut inner = self.inner();
        inner.waiting.retain(|(d, _), _| *d != device);
        inner.offered.retain(|(d, _), _| *d != device);
        inner.writes_made.retain(|(d, _), _| *d != device);
    }

    /// How many writes wait on devices.
    pub fn count_waiting(&self) -> usize {
        self.inner().waiting.len()
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
        let keys = &inner.taken.0;
        let key = keys.keys().nth(place as usize % keys.len().max(1))?;
        inner.taken.newest(key).cloned()
    }

    /// What the naive map holds under a key.
    pub fn newest(&self, key: &Key) -> Option<Record> {
        let inner = self.inner();
        inner.taken.newest(key).cloned()
    }

    /// What the naive map holds.
    pub fn all_newest(&self) -> BTreeMap<Key, Record> {
        let inner = self.inner();
        let newest = |key: &Key| Some((key.clone(), inner.taken.newest(key)?.clone()));
        inner.taken.0.keys().filter_map(newest).collect()
    }

    /// A transaction of a device's store was carried out. `store` is as it is
    /// afterwards.
    pub fn stored(&self, device: usize, store: &Drive, done: Done, now_ms: u64) {
        let mut inner = self.inner();
        for record in done.stored {
            inner.seen(&record);
            if !inner.taken.contains(&record) {
                self.violation(format!(
                    "device {device} holds as clean what the server never took: {}",
                    show(Some(&record))
                ));
            }
        }
        for key in done.offers {
            inner.offered.insert((device, key), false);
        }
        let mut put = done.put;
        put.sort_by_key(|write| write.id);
        let kept: BTreeSet<WriteId> = put.iter().map(|write| write.id).collect();
        let mut last: Option<Record> = None;
        for Write {
            id,
            record,
            in_doubt,
            ..
        } in put
        {
            inner.made.insert(record.clone());
            inner.writes_made.insert((device, id), record.clone());
            if let Some(over) = done.over.get(&id).filter(|over| !newer(&record, over)) {
                self.violation(format!(
                    "device {device} made {}, which is not newer than what it replaces, {}",
                    show(Some(&record)),
                    show(Some(over))
                ));
            }
            match inner.waiting.insert((device, id), record.clone()) {
                None => inner.writes += 1,
                // those that get new versions keep their order
                Some(before) if before.version != record.version => {
                    inner.settled(device, &before, now_ms);
                    if let Some(last) = last.filter(|l| version(l) > version(&record)) {
                        self.violation(format!(
                            "device {device} made {} older than the earlier {}",
                            show(Some(&record)),
                            show(Some(&last))
                        ));
                    }
                    let newest = inner.taken.newest(&record.key);
                    let deleted = newest.is_some_and(Record::is_tombstone);
                    let at_horizon = record.version.time == look(store, &record.key).meta.horizon;
                    if at_horizon && deleted && inner.taken.contains(&before) && !in_doubt {
                        self.violation(format!(
                            "device {device} does not call {} in doubt, which the server had, and which was deleted",
                            show(Some(&record)),
                        ));
                    }
                    last = Some(record);
                }
                Some(_) => {}
            }
        }
        let mut gone: BTreeMap<Key, Vec<(WriteId, Record)>> = BTreeMap::new();
        for id in done.removed {
            if kept.contains(&id) {
                continue;
            }
            if let Some(record) = inner.waiting.remove(&(device, id)) {
                inner.settled(device, &record, now_ms);
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
            let mut inner = self.inner();
            records.values().for_each(|record| inner.seen(record));
            inner
                .taken
                .0
                .keys()
                .chain(records.keys())
                .cloned()
                .collect()
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

fn look(store: &Drive, key: &Key) -> View {
    let look = store.transact(Reads::keys([key.clone()]), |view| {
        (Default::default(), view.clone())
    });
    // a drive never waits
    look.now_or_never().and_then(Result::ok).unwrap_or_default()
}
