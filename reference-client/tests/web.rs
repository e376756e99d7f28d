//! The browser's store, in a browser: what the contract of every store does
//! not say because only IndexedDB has it.
#![cfg(target_arch = "wasm32")]

use gosync_client::store::{
    Changes, IndexedDbStore, MemoryStore, Quarantined, Reads, Store, StoreError, Stored, View,
    Write, WriteId, WriteState, contract,
};
use gosync_proto::history::{Epoch, Point};
use gosync_proto::version::ReplicaId;
use gosync_proto::{Content, Key, KeyRange, Record, Time, Version};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_browser);

/// A small deterministic generator, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn key(n: u64) -> Key {
    Key::new(format!("todos\0{n:05}\0title").into_bytes()).unwrap()
}

fn record(n: u64, time: u64, size: usize) -> Record {
    Record {
        key: key(n),
        version: Version {
            time: Time(time),
            replica: ReplicaId(7),
        },
        content: match size {
            0 => Content::Tombstone,
            _ => Content::Put(vec![time as u8; size].into()),
        },
    }
}

fn stored(n: u64, time: u64, size: usize) -> Stored {
    let point = Point {
        epoch: Epoch(1),
        sequence: time,
    };
    Stored::new(record(n, time, size), point, 0)
}

fn write(id: u64, n: u64, time: u64) -> Write {
    Write::new(WriteId(id), record(n, time, 3), None)
}

async fn apply<S: Store>(store: &S, changes: Changes) -> Result<(), StoreError> {
    store.transact(Reads::meta(), |_| (changes, ())).await
}

/// A database of its own, empty.
async fn fresh(name: &str) -> IndexedDbStore {
    delete(name).await;
    IndexedDbStore::open(name).await.unwrap()
}

fn factory() -> web_sys::IdbFactory {
    js_sys::Reflect::get(&js_sys::global(), &"indexedDB".into())
        .unwrap()
        .unchecked_into()
}

async fn delete(name: &str) {
    settled(factory().delete_database(name).unwrap().into()).await;
}

async fn settled(request: web_sys::IdbRequest) {
    let promise = js_sys::Promise::new(&mut |resolve, reject| {
        request.set_onsuccess(Some(&resolve));
        request.set_onerror(Some(&reject));
    });
    wasm_bindgen_futures::JsFuture::from(promise).await.unwrap();
}

/// Everything that can be read of a store, through every way of reading.
#[derive(Debug, PartialEq)]
struct Everything {
    pages: Vec<gosync_client::store::Page>,
    leaves: Vec<gosync_client::store::Leaf>,
    writes: Vec<Write>,
    counts: gosync_client::store::Counts,
}

async fn everything<S: Store>(store: &S, range: &KeyRange, limit: usize) -> Everything {
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = store.page(range, after.as_ref(), limit).await.unwrap();
        after = page.next.clone();
        pages.push(page);
        if after.is_none() {
            break;
        }
    }
    let mut leaves = Vec::new();
    loop {
        let after = leaves
            .last()
            .map(|l: &gosync_client::store::Leaf| l.key.clone());
        let more = store.leaves(range, after.as_ref(), limit).await.unwrap();
        if more.is_empty() {
            break;
        }
        leaves.extend(more);
    }
    Everything {
        pages,
        leaves,
        writes: store.writes(None, usize::MAX).await.unwrap(),
        counts: store.counts().await.unwrap(),
    }
}

fn random_changes(dice: &mut Dice, step: u64) -> Changes {
    let mut changes = Changes::default();
    // Bursts of neighbours as a first sync brings, and scattered single keys.
    let (from, count) = match dice.roll(3) {
        0 => (dice.roll(2_000), 1 + dice.roll(700)),
        _ => (0, 0),
    };
    for n in from..from + count {
        changes.put.push(stored(n, step, dice.roll(40) as usize));
    }
    for _ in 0..dice.roll(20) {
        let size = if dice.roll(30) == 0 {
            70_000
        } else {
            dice.roll(200) as usize
        };
        changes.put.push(stored(dice.roll(3_000), step, size));
        changes.remove.push(key(dice.roll(3_000)));
    }
    changes.put.sort_by(|a, b| a.record.key.cmp(&b.record.key));
    changes.put.dedup_by(|a, b| a.record.key == b.record.key);
    if dice.roll(5) == 0 {
        let gone = dice.roll(2_500);
        changes.remove.extend((gone..gone + 400).map(key));
        changes
            .remove
            .retain(|k| changes.put.iter().all(|s| s.record.key != *k));
    }
    changes.put_writes.push(write(step, dice.roll(3_000), step));
    changes.remove_writes.push(WriteId(dice.roll(step.max(1))));
    if dice.roll(3) == 0 {
        let rejected = WriteState::Rejected {
            reason: None,
            detail: "no".into(),
        };
        changes.put_writes.push(Write {
            in_doubt: dice.roll(2) == 0,
            state: rejected,
            ..write(step + 10_000, dice.roll(3_000), step)
        });
        changes.put_offers.push(key(dice.roll(100)));
        changes.remove_offers.push(key(dice.roll(100)));
        let aside = Quarantined::unwritable(record(dice.roll(100), step, 4));
        changes.put_quarantine.push(aside);
        changes.remove_quarantine.push(key(dice.roll(100)));
    }
    changes
}

fn sorted(view: &View) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        view.clean.clone(),
        view.writes.clone(),
        view.offers.clone(),
        view.quarantine.clone(),
    )
}

#[wasm_bindgen_test]
async fn the_indexeddb_store_keeps_the_contract() {
    contract::check("contract", async |name| {
        IndexedDbStore::open(&name).await.unwrap()
    })
    .await;
}

#[wasm_bindgen_test]
async fn it_answers_like_a_store_in_memory_whatever_happens() {
    let dice = &mut Dice(0x9e37_79b9_7f4a_7c15);
    let (idb, memory) = (fresh("like-memory").await, MemoryStore::new());
    for step in 1..120 {
        let changes = random_changes(dice, step);
        apply(&memory, changes.clone()).await.unwrap();
        apply(&idb, changes).await.unwrap();
        let few = dice.roll(2) == 0;
        let reads = Reads {
            keys: (0..if few { 5 } else { 60 })
                .map(|_| key(dice.roll(3_000)))
                .collect(),
            writes: (0..10).map(|_| WriteId(dice.roll(step + 3))).collect(),
            all_writes: dice.roll(4) == 0,
            // A few wide ranges, or many narrow ones.
            ranges: (0..if few { 3 } else { 40 })
                .map(|_| {
                    let from = dice.roll(3_000);
                    let width = if few { 700 } else { 3 };
                    let end = key(from + 1 + dice.roll(width));
                    KeyRange::new(key(from).as_bytes(), Some(end.as_bytes())).unwrap()
                })
                .collect(),
            ..Reads::default()
        };
        let seen = |view: &View| (Changes::default(), sorted(view));
        let wanted = memory.transact(reads.clone(), seen).await.unwrap();
        assert_eq!(
            idb.transact(reads, seen).await.unwrap(),
            wanted,
            "step {step}"
        );
        if step % 10 == 0 {
            let from = key(dice.roll(2_000));
            let range = KeyRange::new(from.as_bytes(), Some(key(2_500).as_bytes())).unwrap();
            for (range, limit) in [(&KeyRange::all(), 777), (&range, 10_000), (&range, 37)] {
                let wanted = everything(&memory, range, limit).await;
                assert_eq!(everything(&idb, range, limit).await, wanted, "step {step}");
            }
        }
    }
}

#[wasm_bindgen_test]
async fn what_it_holds_is_there_after_it_was_opened_again() {
    let first = fresh("reopened").await;
    assert!(first.is_new().await.unwrap());
    let changes = Changes {
        meta: Some(Default::default()),
        put: (0..500).map(|n| stored(n, 1, 20)).collect(),
        put_writes: vec![write(1, 3, 9)],
        ..Changes::default()
    };
    apply(&first, changes).await.unwrap();
    let before = everything(&first, &KeyRange::all(), 100).await;
    drop(first);
    let second = IndexedDbStore::open("reopened").await.unwrap();
    assert!(!second.is_new().await.unwrap());
    assert_eq!(everything(&second, &KeyRange::all(), 100).await, before);
}

#[wasm_bindgen_test]
async fn two_tabs_that_count_in_one_row_lose_no_count() {
    let first = fresh("two-tabs").await;
    let second = IndexedDbStore::open("two-tabs").await.unwrap();
    let count = |store: &'static IndexedDbStore| async move {
        for _ in 0..50 {
            let step = |view: &View| {
                let mut meta = view.meta.clone();
                meta.next_write += 1;
                let id = meta.next_write;
                let changes = Changes {
                    meta: Some(meta),
                    put_writes: vec![write(id, id, id)],
                    ..Changes::default()
                };
                (changes, ())
            };
            store.transact(Reads::meta(), step).await.unwrap();
        }
    };
    let (first, second) = (&*Box::leak(Box::new(first)), &*Box::leak(Box::new(second)));
    futures::join!(count(first), count(second));
    assert_eq!(first.counts().await.unwrap().waiting, 100);
}

#[wasm_bindgen_test]
async fn a_transaction_that_cannot_be_stored_leaves_nothing_behind() {
    let store = fresh("refused").await;
    apply(
        &store,
        Changes {
            put: vec![stored(1, 1, 5)],
            ..Changes::default()
        },
    )
    .await
    .unwrap();
    let before = everything(&store, &KeyRange::all(), 100).await;
    spoil_meta("refused").await;
    let e = apply(
        &store,
        Changes {
            put: vec![stored(2, 2, 5)],
            ..Changes::default()
        },
    )
    .await;
    assert!(matches!(e, Err(StoreError::Corrupt(_))), "{e:?}");
    assert_eq!(everything(&store, &KeyRange::all(), 100).await, before);
}

/// Replaces the meta row by something else, as another program might.
async fn spoil_meta(name: &str) {
    let request = factory().open(name).unwrap();
    settled(request.clone().into()).await;
    let db: web_sys::IdbDatabase = request.result().unwrap().unchecked_into();
    let mode = web_sys::IdbTransactionMode::Readwrite;
    let tx = db.transaction_with_str_and_mode("meta", mode).unwrap();
    let put = tx.object_store("meta").unwrap();
    let put = put.put_with_key(&JsValue::from_str("?"), &JsValue::from_str("meta"));
    settled(put.unwrap()).await;
    db.close();
}

#[wasm_bindgen_test]
async fn a_connection_that_was_taken_away_is_opened_again() {
    let store = fresh("taken").await;
    apply(
        &store,
        Changes {
            put: vec![stored(1, 1, 5)],
            ..Changes::default()
        },
    )
    .await
    .unwrap();
    // Asks every connection to close; the store obeys.
    delete("taken").await;
    let keys = async || -> Vec<Key> {
        let leaves = store.leaves(&KeyRange::all(), None, 10).await.unwrap();
        leaves.into_iter().map(|l| l.key).collect()
    };
    assert_eq!(keys().await, []);
    apply(
        &store,
        Changes {
            put: vec![stored(2, 2, 5)],
            ..Changes::default()
        },
    )
    .await
    .unwrap();
    assert_eq!(keys().await, [key(2)]);
}

#[wasm_bindgen_test]
async fn a_database_of_newer_software_is_refused() {
    delete("newer").await;
    let request = factory().open_with_u32("newer", 99).unwrap();
    settled(request.clone().into()).await;
    request
        .result()
        .unwrap()
        .unchecked_into::<web_sys::IdbDatabase>()
        .close();
    let refused = IndexedDbStore::open("newer").await.err();
    assert!(
        matches!(refused, Some(StoreError::NewerSchema { found: 99, .. })),
        "{refused:?}"
    );
}

#[wasm_bindgen_test]
async fn damaged_content_is_seen_by_its_digest() {
    let store = fresh("damaged").await;
    apply(
        &store,
        Changes {
            put: (0..200).map(|n| stored(n, 1, 20)).collect(),
            ..Changes::default()
        },
    )
    .await
    .unwrap();
    store.damage(&[key(150), key(7), key(9_999)]).await.unwrap();
    let page = store.page(&KeyRange::all(), None, 1_000).await.unwrap();
    let damaged: Vec<_> = page.clean.iter().filter(|s| !s.intact()).collect();
    assert_eq!(damaged.len(), 2);
    assert_eq!(
        (&damaged[0].record.key, &damaged[1].record.key),
        (&key(7), &key(150))
    );
}

/// Makes operation number `abortAt` on an object store or index abort its
/// transaction, as a browser does that is killed or out of space.
const ABORTING: &str = r"
    globalThis.operations = 0;
    globalThis.aborted = 0;
    globalThis.abortAt = Infinity;
    const abort = transaction => {
        if (++globalThis.operations !== globalThis.abortAt) return;
        globalThis.aborted++;
        transaction.abort();
    };
    for (const [kind, transaction] of [
        [IDBObjectStore, source => source.transaction],
        [IDBIndex, source => source.objectStore.transaction],
    ]) {
        for (const name of ['get', 'getAll', 'getAllKeys', 'getKey', 'count', 'openCursor', 'openKeyCursor', 'put',
            'add', 'delete', 'clear']) {
            const original = kind.prototype[name];
            if (original === undefined) continue;
            kind.prototype[name] = function (...args) {
                const request = original.apply(this, args);
                abort(transaction(this));
                return request;
            };
        }
    }
";

fn global(name: &str) -> f64 {
    let value = js_sys::Reflect::get(&js_sys::global(), &name.into()).unwrap();
    value.as_f64().unwrap()
}

fn set_global(name: &str, value: f64) {
    js_sys::Reflect::set(&js_sys::global(), &name.into(), &value.into()).unwrap();
}

/// What a replica does to its store in a short life.
fn life() -> Vec<Changes> {
    let meta = |n| gosync_client::store::Meta {
        next_write: n,
        ..Default::default()
    };
    vec![
        Changes {
            meta: Some(meta(1)),
            put_writes: (0..4).map(|n| write(n, n, 1)).collect(),
            ..Changes::default()
        },
        Changes {
            meta: Some(meta(2)),
            put: (0..4).map(|n| stored(n, 1, 3)).collect(),
            remove_writes: (0..4).map(WriteId).collect(),
            ..Changes::default()
        },
        Changes {
            meta: Some(meta(3)),
            put: (2..60).map(|n| stored(n, 2, n as usize)).collect(),
            ..Changes::default()
        },
        Changes {
            meta: Some(meta(4)),
            remove: (20..40).map(key).collect(),
            put_offers: vec![key(1), key(2)],
            put_quarantine: vec![Quarantined::unwritable(record(70, 2, 4))],
            ..Changes::default()
        },
        Changes {
            meta: Some(meta(5)),
            remove_offers: vec![key(1)],
            remove_quarantine: vec![key(70)],
            put_writes: vec![write(9, 9, 3)],
            ..Changes::default()
        },
    ]
}

#[wasm_bindgen_test]
async fn a_transaction_that_is_aborted_at_any_operation_leaves_nothing_behind() {
    js_sys::eval(ABORTING).unwrap();
    let content = async |store: &IndexedDbStore| {
        let aborting = global("abortAt");
        set_global("abortAt", f64::INFINITY);
        let reads = Reads {
            offers: 100,
            all_quarantined: true,
            ..Reads::default()
        };
        let rest = |view: &View| (Changes::default(), (view.meta.clone(), sorted(view)));
        let rest = store.transact(reads, rest).await.unwrap();
        let all = everything(store, &KeyRange::all(), 1_000).await;
        set_global("abortAt", aborting);
        format!("{rest:?} {all:?}")
    };
    let store = fresh("aborted-never").await;
    let mut contents = vec![content(&store).await];
    let mut operations = 0.0;
    for changes in life() {
        let before = global("operations");
        apply(&store, changes).await.unwrap();
        operations += global("operations") - before;
        contents.push(content(&store).await);
    }
    assert!(operations > 20.0, "only {operations} operations");
    let mut told = 0;
    for at in 1..=operations as u64 {
        let name = format!("aborted-{at}");
        let store = fresh(&name).await;
        let mut left = at as f64;
        for (step, changes) in life().into_iter().enumerate() {
            let before = global("operations");
            set_global("abortAt", before + left);
            let result = apply(&store, changes.clone()).await;
            set_global("abortAt", f64::INFINITY);
            left -= global("operations") - before;
            if result.is_err() {
                told += 1;
                assert_eq!(content(&store).await, contents[step], "operation {at}");
                apply(&store, changes).await.unwrap();
            }
            let held = content(&store).await;
            assert_eq!(held, contents[step + 1], "operation {at}, step {step}");
            if left <= 0.0 {
                break;
            }
        }
        drop(store);
        delete(&name).await;
    }
    assert_eq!(global("aborted"), operations);
    // the others were tried again by the store itself
    assert!(told > 10, "only {told} of {operations} aborts were told");
}
