//! What every store promises, run on each of them. A new store adds one line
//! to `every_store!`.

use super::memory::MemoryStore;
use super::sqlite::{SqliteOptions, SqliteStore};
use super::*;
use gosync_proto::history::Point;
use gosync_proto::version::ReplicaId;
use std::sync::{Arc, mpsc};

/// A store, and what it needs to live.
pub struct Subject {
    pub store: Arc<dyn Store>,
    rot: Rot,
    _folder: Option<tempfile::TempDir>,
}

type Rot = Box<dyn Fn(&SpaceId, &Key)>;

impl Subject {
    /// Spoils the stored value under a key behind the store's back.
    pub fn rot(&self, space: &SpaceId, key: &Key) {
        (self.rot)(space, key);
    }
}

pub fn memory() -> Subject {
    let store = Arc::new(MemoryStore::new(Epoch(EPOCH)));
    let spoiled = store.clone();
    Subject {
        store,
        rot: Box::new(move |space, key| assert!(spoiled.damage(space, key))),
        _folder: None,
    }
}

pub fn sqlite() -> Subject {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let options = SqliteOptions {
        readers: 4,
        new_epoch: EPOCH,
        now_ms: 1,
    };
    let store = SqliteStore::open(&path, options).unwrap();
    Subject {
        store: Arc::new(store),
        rot: Box::new(move |space, key| spoil_file(&path, space, key)),
        _folder: Some(folder),
    }
}

/// Changes the last byte of the value under a key in the file itself.
pub fn spoil_file(path: &std::path::Path, space: &SpaceId, key: &Key) {
    let conn = rusqlite::Connection::open(path).unwrap();
    let spoiled = conn
        .execute(
            "UPDATE records SET value = CAST(substr(value, 1, length(value) - 1) || x'ff' AS BLOB)
             WHERE key = ?2 AND space = (SELECT id FROM spaces WHERE name = ?1)",
            (space.as_str(), key.as_bytes()),
        )
        .unwrap();
    assert_eq!(spoiled, 1);
}

const EPOCH: u64 = 0xdead_beef_dead_beef;

macro_rules! every_store {
    ($($test:ident)*) => {
        mod in_memory { $(#[test] fn $test() { super::$test(super::memory()); })* }
        mod in_sqlite { $(#[test] fn $test() { super::$test(super::sqlite()); })* }
    };
}

every_store! {
    a_space_that_nobody_wrote_to_reads_as_empty
    a_commit_has_consecutive_sequences_and_its_tag_at_the_end
    a_failed_write_leaves_nothing_behind
    a_read_sees_one_state_whatever_is_committed_meanwhile
    a_replaced_record_moves_to_its_new_place_in_the_history
    lookups_find_keys_near_and_far_in_the_order_of_the_question
    scans_follow_key_order_and_respect_bounds
    changes_are_in_order_of_commit_and_only_of_the_ranges
    totals_count_what_is_there
    spaces_do_not_mix
    damaged_content_is_never_returned
    quarantine_takes_what_is_damaged_and_nothing_else
    a_record_pushed_over_quarantine_ends_it
    quarantine_outlasts_an_older_record
    compaction_takes_old_tombstones_below_the_horizon_only
    a_retired_space_stays_known_and_empty
    a_new_epoch_remembers_how_far_the_old_one_came
    values_of_every_length_come_back
    extreme_numbers_come_back
}

fn space(name: &str) -> SpaceId {
    SpaceId::new(name).unwrap()
}

pub fn key(k: &str) -> Key {
    Key::new(k.as_bytes()).unwrap()
}

fn put(k: &str, time: u64, value: &str) -> Record {
    Record {
        key: key(k),
        version: Version {
            time: Time(time),
            replica: ReplicaId(u64::MAX),
        },
        content: Content::Put(bytes::Bytes::copy_from_slice(value.as_bytes())),
    }
}

fn tombstone(k: &str, time: u64) -> Record {
    Record {
        content: Content::Tombstone,
        ..put(k, time, "")
    }
}

/// Stores the records as one commit, whatever stands there.
fn store_all(store: &dyn Store, id: &SpaceId, records: Vec<Record>, tag: u64, now: u64) -> Cursor {
    store
        .write(id, move |tx| store_in(tx, records, tag, now))
        .unwrap()
}

fn store_in(tx: &mut dyn WriteTx, records: Vec<Record>, tag: u64, now: u64) -> Result<Cursor> {
    let keys: Vec<&Key> = records.iter().map(|r| &r.key).collect();
    let kept = tx.lookup(&keys)?;
    let applied: Vec<Applied> = records
        .iter()
        .zip(kept)
        .map(|(record, replaces)| Applied {
            record: record.clone(),
            digest: record.digest(),
            replaces,
        })
        .collect();
    tx.commit(&applied, tag, now)
}

fn state(store: &dyn Store, id: &SpaceId) -> SpaceState {
    store.read(id).unwrap().state().unwrap()
}

fn keys_of(records: &[Stored]) -> Vec<String> {
    let text = |s: &Stored| String::from_utf8(s.record.key.as_bytes().to_vec()).unwrap();
    records.iter().map(text).collect()
}

fn scan(tx: &mut dyn ReadTx, range: &KeyRange, after: Option<&[u8]>) -> Vec<Stored> {
    let mut found = Vec::new();
    tx.scan(range, after, &mut |s| {
        found.push(s);
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn changes(tx: &mut dyn ReadTx, after: u64, ranges: &RangeSet) -> Vec<Stored> {
    let mut found = Vec::new();
    tx.changes(after, ranges, &mut |s| {
        found.push(s);
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn digests(tx: &mut dyn ReadTx) -> Vec<(Vec<u8>, Digest)> {
    let mut found = Vec::new();
    tx.digests(&KeyRange::all(), &mut |d| {
        found.push((d.key.to_vec(), d.digest));
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn a_space_that_nobody_wrote_to_reads_as_empty(s: Subject) {
    let mut tx = s.store.read(&space("a")).unwrap();
    let state = tx.state().unwrap();
    assert_eq!(state, SpaceState::absent(Epoch(EPOCH)));
    assert!(scan(&mut *tx, &KeyRange::all(), None).is_empty());
    assert!(changes(&mut *tx, 0, &RangeSet::all()).is_empty());
    assert_eq!(tx.lookup(&[&key("k")]).unwrap(), [None]);
    assert_eq!(tx.tag_at(1).unwrap(), None);
    assert_eq!(s.store.spaces().unwrap(), []);
    // nor does an empty commit create it
    store_all(&*s.store, &space("a"), vec![], 1, 1);
    assert_eq!(s.store.spaces().unwrap(), []);
}

fn a_commit_has_consecutive_sequences_and_its_tag_at_the_end(s: Subject) {
    let id = space("a");
    store_all(
        &*s.store,
        &id,
        vec![put("b", 1, ""), put("a", 2, "")],
        77,
        5,
    );
    let head = store_all(&*s.store, &id, vec![put("c", 3, "")], u64::MAX, 4);
    assert_eq!((head.point.sequence, head.tag), (3, u64::MAX));
    let mut tx = s.store.read(&id).unwrap();
    let found = changes(&mut *tx, 0, &RangeSet::all());
    assert_eq!(keys_of(&found), ["b", "a", "c"]);
    let sequences: Vec<_> = found.iter().map(|s| s.sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
    assert_eq!(tx.tag_at(1).unwrap(), None);
    assert_eq!(tx.tag_at(2).unwrap(), Some(77));
    let end = |tx: &mut dyn ReadTx, n| tx.commit_until(n).unwrap().map(|c| c.point.sequence);
    assert_eq!(end(&mut *tx, 1), None);
    assert_eq!(end(&mut *tx, 2), Some(2));
    assert_eq!(end(&mut *tx, 99), Some(3));
    let state = tx.state().unwrap();
    assert_eq!(state.position.head, head);
    assert_eq!(state.clock_ms, 5, "the highest reading, not the last");
    assert_eq!(state.newest_time, Time(3));
}

fn a_failed_write_leaves_nothing_behind(s: Subject) {
    let id = space("a");
    store_all(&*s.store, &id, vec![put("a", 1, "one")], 1, 1);
    let before = state(&*s.store, &id);
    let outcome = s.store.write(&id, |tx| {
        store_in(tx, vec![put("a", 2, "two"), put("b", 3, "")], 2, 2)?;
        tx.compact(Compaction {
            horizon: Time(9),
            arrived_until_ms: 9,
            limit: 9,
        })?;
        Err::<(), _>(StoreError::Misuse("on purpose"))
    });
    assert!(matches!(outcome, Err(StoreError::Misuse("on purpose"))));
    let mut tx = s.store.read(&id).unwrap();
    assert_eq!(tx.state().unwrap(), before);
    let found = changes(&mut *tx, 0, &RangeSet::all());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].record, put("a", 1, "one"));
    assert_eq!(tx.tag_at(3).unwrap(), None);
    drop(tx);
    // also when it was to be the first of its space
    let outcome = s.store.write(&space("b"), |tx| {
        store_in(tx, vec![put("a", 2, "two")], 2, 2)?;
        Err::<(), _>(StoreError::Misuse("on purpose"))
    });
    assert!(outcome.is_err());
    assert_eq!(s.store.spaces().unwrap(), [id]);
}

fn a_read_sees_one_state_whatever_is_committed_meanwhile(s: Subject) {
    let id = space("a");
    store_all(&*s.store, &id, vec![put("a", 1, "old")], 1, 1);
    let (store, other) = (s.store.clone(), id.clone());
    let mut tx = s.store.read(&id).unwrap();
    let before = tx.state().unwrap();
    let (done, waited) = mpsc::channel();
    std::thread::spawn(move || {
        store_all(
            &*store,
            &other,
            vec![put("a", 2, "new"), put("b", 3, "")],
            2,
            2,
        );
        done.send(()).unwrap();
    });
    waited.recv().unwrap();
    assert_eq!(tx.state().unwrap(), before);
    let found = scan(&mut *tx, &KeyRange::all(), None);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].record, put("a", 1, "old"));
    assert_eq!(changes(&mut *tx, 1, &RangeSet::all()), []);
    drop(tx);
    assert_eq!(state(&*s.store, &id).head(), 3);
}

fn a_replaced_record_moves_to_its_new_place_in_the_history(s: Subject) {
    let id = space("a");
    store_all(
        &*s.store,
        &id,
        vec![put("a", 1, "1"), put("b", 1, "1")],
        1,
        1,
    );
    store_all(&*s.store, &id, vec![put("a", 2, "2")], 2, 2);
    let mut tx = s.store.read(&id).unwrap();
    let found = changes(&mut *tx, 0, &RangeSet::all());
    assert_eq!(keys_of(&found), ["b", "a"]);
    assert_eq!(found[1].record, put("a", 2, "2"));
    let kept = tx.lookup(&[&key("a"), &key("x"), &key("b")]).unwrap();
    assert_eq!(kept[0].unwrap().sequence, 3);
    assert_eq!(kept[0].unwrap().digest, put("a", 2, "2").digest());
    assert_eq!((kept[0].unwrap().size, kept[1]), (2, None));
    assert_eq!(kept[2].unwrap().sequence, 2);
    assert_eq!(tx.get(&key("a")).unwrap().unwrap(), found[1]);
}

/// Every tenth, neighbours, the ends, what is not there; backwards.
fn lookups_find_keys_near_and_far_in_the_order_of_the_question(subject: Subject) {
    let (store, id) = (&*subject.store, space("s"));
    let name = |i: usize| format!("k{i:03}");
    let records = (0..100).map(|i| put(&name(i), 5, "v")).collect();
    store_all(store, &id, records, 7, 1);
    let others = vec![put("k0500", 5, "other space")];
    store_all(store, &space("t"), others, 7, 1);
    let mut asked: Vec<(Key, Option<u64>)> = [0, 1, 2, 10, 20, 21, 30, 50, 98, 99]
        .map(|i| (key(&name(i)), Some(i as u64 + 1)))
        .to_vec();
    asked.extend(["a", "k0105", "k0500", "k0995", "z"].map(|k| (key(k), None)));
    for _ in 0..2 {
        asked.reverse();
        let keys: Vec<&Key> = asked.iter().map(|(key, _)| key).collect();
        let kept = store.read(&id).unwrap().lookup(&keys).unwrap();
        let found: Vec<Option<u64>> = kept.iter().map(|k| k.map(|k| k.sequence)).collect();
        let expected: Vec<Option<u64>> = asked.iter().map(|(_, at)| *at).collect();
        assert_eq!(found, expected);
        asked.rotate_left(4);
    }
}

fn scans_follow_key_order_and_respect_bounds(s: Subject) {
    let id = space("a");
    let names = ["b", "a\0", "a", "\u{ff}", "c", "a\0\0"];
    let records = names.iter().map(|n| put(n, 1, n)).collect();
    store_all(&*s.store, &id, records, 1, 1);
    let mut tx = s.store.read(&id).unwrap();
    let all = scan(&mut *tx, &KeyRange::all(), None);
    assert_eq!(keys_of(&all), ["a", "a\0", "a\0\0", "b", "c", "\u{ff}"]);
    let range = KeyRange::new(b"a\0", Some(b"c")).unwrap();
    assert_eq!(
        keys_of(&scan(&mut *tx, &range, None)),
        ["a\0", "a\0\0", "b"]
    );
    assert_eq!(
        keys_of(&scan(&mut *tx, &range, Some(b"a\0"))),
        ["a\0\0", "b"]
    );
    assert_eq!(keys_of(&scan(&mut *tx, &range, Some(b"a"))).len(), 3);
    assert!(scan(&mut *tx, &range, Some(b"b")).is_empty());
    let mut first = Vec::new();
    tx.scan(&KeyRange::all(), None, &mut |s| {
        first.push(s);
        ControlFlow::Break(())
    })
    .unwrap();
    assert_eq!(keys_of(&first), ["a"]);
    let expected: Vec<_> = all
        .iter()
        .map(|s| (s.record.key.as_bytes().to_vec(), s.digest))
        .collect();
    assert_eq!(digests(&mut *tx), expected);
}

fn changes_are_in_order_of_commit_and_only_of_the_ranges(s: Subject) {
    let id = space("a");
    for (i, k) in ["m", "a", "z", "n"].iter().enumerate() {
        store_all(&*s.store, &id, vec![put(k, 1, k)], i as u64, 1);
    }
    let mut tx = s.store.read(&id).unwrap();
    let middle = RangeSet::new(vec![KeyRange::new(b"m", Some(b"o")).unwrap()]).unwrap();
    assert_eq!(keys_of(&changes(&mut *tx, 0, &middle)), ["m", "n"]);
    assert_eq!(keys_of(&changes(&mut *tx, 1, &middle)), ["n"]);
    assert_eq!(keys_of(&changes(&mut *tx, 2, &RangeSet::all())), ["z", "n"]);
    let mut after = Vec::new();
    tx.changed_digests(2, &mut |d| {
        after.push((d.sequence, d.digest, d.size, d.tombstone));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(
        after,
        [
            (3, put("z", 1, "z").digest(), 2, false),
            (4, put("n", 1, "n").digest(), 2, false)
        ]
    );
}

fn totals_count_what_is_there(s: Subject) {
    let id = space("a");
    store_all(
        &*s.store,
        &id,
        vec![put("a", 1, "12345"), put("bb", 1, "")],
        1,
        1,
    );
    let totals = |s: &Subject| {
        let state = state(&*s.store, &id);
        (state.records, state.bytes)
    };
    assert_eq!(totals(&s), (2, 8));
    store_all(&*s.store, &id, vec![put("a", 2, "1")], 2, 1);
    assert_eq!(totals(&s), (2, 4));
    store_all(&*s.store, &id, vec![tombstone("a", 3)], 3, 1);
    assert_eq!(totals(&s), (2, 3), "tombstones count");
}

fn spaces_do_not_mix(s: Subject) {
    let (a, b) = (space("a"), space("b"));
    store_all(&*s.store, &b, vec![put("k", 1, "b")], 1, 1);
    store_all(
        &*s.store,
        &a,
        vec![put("k", 1, "a"), put("l", 1, "a")],
        2,
        1,
    );
    assert_eq!(s.store.spaces().unwrap(), [a.clone(), b.clone()]);
    assert_eq!(state(&*s.store, &a).head(), 2);
    assert_eq!(state(&*s.store, &b).head(), 1);
    let mut tx = s.store.read(&b).unwrap();
    assert_eq!(tx.get(&key("k")).unwrap().unwrap().record, put("k", 1, "b"));
    assert_eq!(tx.get(&key("l")).unwrap(), None);
    assert_eq!(changes(&mut *tx, 0, &RangeSet::all()).len(), 1);
}

fn damaged_content_is_never_returned(s: Subject) {
    let id = space("a");
    store_all(
        &*s.store,
        &id,
        vec![put("a", 1, "1"), put("b", 1, "2")],
        1,
        1,
    );
    s.rot(&id, &key("a"));
    let mut tx = s.store.read(&id).unwrap();
    assert_eq!(keys_of(&scan(&mut *tx, &KeyRange::all(), None)), ["b"]);
    assert_eq!(keys_of(&changes(&mut *tx, 0, &RangeSet::all())), ["b"]);
    assert_eq!(tx.get(&key("a")).unwrap(), None);
    let damage = tx.take_damage();
    let expected = Damage {
        key: b"a".to_vec(),
        sequence: 1,
    };
    assert_eq!(damage, [expected], "each once");
    assert!(tx.take_damage().is_empty());
}

fn quarantine_takes_what_is_damaged_and_nothing_else(s: Subject) {
    let id = space("a");
    store_all(
        &*s.store,
        &id,
        vec![put("a", 1, "1"), put("b", 1, "2")],
        1,
        1,
    );
    s.rot(&id, &key("a"));
    let before = state(&*s.store, &id);
    let damage: Vec<Damage> = [("a", 1), ("b", 2), ("x", 9)]
        .map(|(k, sequence)| Damage {
            key: k.as_bytes().to_vec(),
            sequence,
        })
        .to_vec();
    let again = damage.clone();
    let moved = s.store.write(&id, move |tx| tx.quarantine(&damage, 9));
    assert_eq!(moved.unwrap(), 1);
    let after = state(&*s.store, &id);
    assert_eq!(after.position, before.position);
    assert_eq!((after.records, after.bytes, after.damaged), (1, 2, 1));
    assert_ne!(after.generation, before.generation);
    let mut tx = s.store.read(&id).unwrap();
    assert_eq!(digests(&mut *tx).len(), 1);
    assert_eq!(tx.quarantined(&KeyRange::all(), 9).unwrap(), [b"a"]);
    let elsewhere = KeyRange::new(b"b", None).unwrap();
    assert!(tx.quarantined(&elsewhere, 9).unwrap().is_empty());
    drop(tx);
    let moved = s.store.write(&id, move |tx| tx.quarantine(&again, 9));
    assert_eq!(moved.unwrap(), 0);
    assert_eq!(state(&*s.store, &id), after);
}

fn a_record_pushed_over_quarantine_ends_it(s: Subject) {
    let id = space("a");
    store_all(&*s.store, &id, vec![put("a", 5, "1")], 1, 1);
    s.rot(&id, &key("a"));
    let damage = vec![Damage {
        key: b"a".to_vec(),
        sequence: 1,
    }];
    s.store
        .write(&id, move |tx| tx.quarantine(&damage, 9))
        .unwrap();
    store_all(&*s.store, &id, vec![put("a", 5, "1")], 2, 1);
    let healed = state(&*s.store, &id);
    assert_eq!((healed.records, healed.bytes, healed.damaged), (1, 2, 0));
    let mut tx = s.store.read(&id).unwrap();
    assert!(tx.quarantined(&KeyRange::all(), 9).unwrap().is_empty());
    assert_eq!(tx.get(&key("a")).unwrap().unwrap().sequence, 2);
}

fn quarantine_outlasts_an_older_record(s: Subject) {
    let id = space("a");
    let set_aside = |sequence| {
        s.rot(&id, &key("a"));
        let damage = vec![Damage {
            key: b"a".to_vec(),
            sequence,
        }];
        let moved = s.store.write(&id, move |tx| tx.quarantine(&damage, 9));
        assert_eq!(moved.unwrap(), 1);
    };
    let wanted = || {
        let mut tx = s.store.read(&id).unwrap();
        tx.quarantined(&KeyRange::all(), 9).unwrap()
    };
    store_all(&*s.store, &id, vec![put("a", 5, "1")], 1, 1);
    set_aside(1);
    store_all(&*s.store, &id, vec![put("a", 4, "0")], 2, 1);
    let stands = state(&*s.store, &id);
    assert_eq!((stands.records, stands.bytes, stands.damaged), (1, 2, 1));
    assert_eq!(wanted(), [b"a"]);
    // nor is it forgotten when the older one is damaged in its turn
    set_aside(2);
    store_all(&*s.store, &id, vec![put("a", 4, "0")], 3, 1);
    assert_eq!(wanted(), [b"a"]);
    assert_eq!(state(&*s.store, &id).damaged, 1);
    store_all(&*s.store, &id, vec![put("a", 5, "1")], 4, 1);
    assert!(wanted().is_empty());
    assert_eq!(state(&*s.store, &id).damaged, 0);
}

fn compaction_takes_old_tombstones_below_the_horizon_only(s: Subject) {
    let id = space("a");
    let first = vec![tombstone("a", 10), put("b", 11, ""), tombstone("c", 30)];
    store_all(&*s.store, &id, first, 1, 100);
    store_all(&*s.store, &id, vec![tombstone("d", 20)], 2, 200);
    let times = |below, until| {
        s.store
            .write(&id, move |tx| tx.tombstone_times(Time(below), until))
            .unwrap()
    };
    assert_eq!(times(40, 100), Some((Time(10), Time(30))));
    assert_eq!(times(30, 200), Some((Time(10), Time(20))));
    assert_eq!(times(10, 200), None);
    let step = Compaction {
        horizon: Time(25),
        arrived_until_ms: 150,
        limit: 10,
    };
    let removed = s.store.write(&id, move |tx| tx.compact(step));
    assert_eq!(removed.unwrap(), 1, "d arrived too late, c is above");
    let after = state(&*s.store, &id);
    assert_eq!(after.position.horizon, Time(25));
    assert_eq!(after.compacted_through, 1);
    assert_eq!((after.records, after.bytes, after.head()), (3, 3, 4));
    let lower = Compaction {
        horizon: Time(5),
        arrived_until_ms: 500,
        limit: 10,
    };
    let removed = s.store.write(&id, move |tx| tx.compact(lower));
    assert_eq!(removed.unwrap(), 0);
    let after = state(&*s.store, &id).position.horizon;
    assert_eq!(after, Time(25), "the horizon never goes back");
    let later = Compaction {
        arrived_until_ms: 500,
        ..step
    };
    let removed = s.store.write(&id, move |tx| tx.compact(later));
    assert_eq!(removed.unwrap(), 1);
    assert_eq!(state(&*s.store, &id).compacted_through, 4);
}

fn a_retired_space_stays_known_and_empty(s: Subject) {
    let id = space("a");
    store_all(&*s.store, &id, vec![put("a", 1, "1")], 1, 1);
    s.store.write(&id, |tx| tx.retire(2)).unwrap();
    let retired = state(&*s.store, &id);
    assert_eq!(retired.status, SpaceStatus::Retired);
    assert_eq!((retired.records, retired.bytes), (0, 0));
    let mut tx = s.store.read(&id).unwrap();
    assert!(scan(&mut *tx, &KeyRange::all(), None).is_empty());
    drop(tx);
    let refused = s
        .store
        .write(&id, |tx| store_in(tx, vec![put("a", 9, "")], 3, 3));
    assert!(refused.is_err());
    assert_eq!(s.store.spaces().unwrap(), [id]);
}

fn a_new_epoch_remembers_how_far_the_old_one_came(s: Subject) {
    let (a, b) = (space("a"), space("b"));
    store_all(&*s.store, &a, vec![put("a", 1, "1")], 7, 1);
    s.store.begin_epoch(Epoch(5), 10).unwrap();
    store_all(&*s.store, &a, vec![put("b", 1, "1")], 8, 1);
    store_all(&*s.store, &b, vec![put("b", 1, "1")], 9, 1);
    s.store.begin_epoch(Epoch(u64::MAX), 11).unwrap();
    assert_eq!(s.store.epoch().unwrap(), Epoch(u64::MAX));
    let ancestry = |id| s.store.read(id).unwrap().ancestry().unwrap();
    let lineage = |sequences: [u64; 2]| Ancestry {
        epoch: Epoch(u64::MAX),
        restore_points: [Epoch(EPOCH), Epoch(5)]
            .into_iter()
            .zip(sequences)
            .map(|(epoch, sequence)| Point { epoch, sequence })
            .collect(),
    };
    assert_eq!(ancestry(&a), lineage([1, 2]));
    assert_eq!(ancestry(&b), lineage([0, 1]));
    assert_eq!(ancestry(&space("unwritten")), lineage([0, 0]));
    let head = state(&*s.store, &a).position.head;
    assert_eq!(
        (head.point.epoch, head.point.sequence, head.tag),
        (Epoch(u64::MAX), 2, 8)
    );
    assert_eq!(s.store.read(&a).unwrap().tag_at(1).unwrap(), Some(7));
}

fn values_of_every_length_come_back(s: Subject) {
    let id = space("a");
    let lengths = [0, 1, 900, 4_000, 5_000, 70_000, 1 << 20];
    let records: Vec<_> = lengths
        .iter()
        .map(|&n| put(&format!("{n:08}"), 1, &"x".repeat(n)))
        .collect();
    store_all(&*s.store, &id, records.clone(), 1, 1);
    let mut tx = s.store.read(&id).unwrap();
    let found = scan(&mut *tx, &KeyRange::all(), None);
    let found: Vec<_> = found.into_iter().map(|s| s.record).collect();
    assert_eq!(found, records);
}

fn extreme_numbers_come_back(s: Subject) {
    let id = space("a");
    let record = Record {
        key: Key::new(vec![0xff; Key::MAX_BYTES]).unwrap(),
        version: Version {
            time: Time(u64::MAX),
            replica: ReplicaId(u64::MAX - 1),
        },
        content: Content::Tombstone,
    };
    store_all(&*s.store, &id, vec![record.clone()], u64::MAX, 1 << 50);
    let mut tx = s.store.read(&id).unwrap();
    let found = scan(&mut *tx, &KeyRange::all(), None);
    assert_eq!(found[0].record, record);
    let state = tx.state().unwrap();
    assert_eq!(state.newest_time, Time(u64::MAX));
    assert_eq!(
        (state.position.head.tag, state.clock_ms),
        (u64::MAX, 1 << 50)
    );
}
