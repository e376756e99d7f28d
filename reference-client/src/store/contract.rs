//! What every store must do, as one suite that runs on each of them, natively
//! and in a browser. `open` opens the store of a name, anew or again; what one
//! opening wrote, the next one sees.

use super::{
    Changes, Confirmed, HeldRange, MemoryStore, Meta, Page, Quarantined, Reads, SnapshotProgress,
    Store, Stored, View, Write, WriteId, WriteState,
};
use gosync_proto::history::{Cursor, Epoch, Point};
use gosync_proto::limits::Limits;
use gosync_proto::{Content, Key, KeyRange, Reason, Record, ReplicaId, Time, Version};

/// Runs all of it. `name` tells runs apart that share a place.
///
/// # Panics
/// When the store breaks the contract.
pub async fn check<S: Store, F: AsyncFn(String) -> S>(name: &str, open: F) {
    let place = |case: &str| format!("{name}-{case}");
    everything_written_is_read_back(&open(place("read")).await).await;
    survives_reopening(&open, place("reopen")).await;
    removals_come_before_puts(&open(place("order")).await).await;
    empty_changes_write_nothing(&open(place("empty")).await).await;
    pages_cover_a_range_in_byte_order(&open(place("page")).await).await;
    reads_find_what_they_name_and_no_more(&open(place("reads")).await).await;
    writes_keep_their_order_and_state(&open(place("writes")).await).await;
    extreme_values_survive(&open(place("extremes")).await).await;
    damage_is_seen_as_such(&open(place("damage")).await).await;
    openings_share_one_state(&open, place("share")).await;
    transactions_are_isolated(&open, place("isolated")).await;
    behaves_as_the_memory_store(&open(place("model")).await).await;
}

fn key(k: &str) -> Key {
    Key::new(k.as_bytes()).unwrap()
}

fn record(k: &str, time: u64, value: Option<&str>) -> Record {
    Record {
        key: key(k),
        version: Version {
            time: Time(time),
            replica: ReplicaId(u64::MAX - time),
        },
        content: match value {
            Some(v) => Content::Put(v.to_owned().into()),
            None => Content::Tombstone,
        },
    }
}

fn point(sequence: u64) -> Point {
    Point {
        epoch: Epoch(u64::MAX - 5),
        sequence,
    }
}

fn stored(k: &str, time: u64, value: Option<&str>) -> Stored {
    Stored::new(record(k, time, value), point(time), time % 3)
}

fn quarantined(record: Record) -> Quarantined {
    Quarantined {
        record,
        reason: Some(Reason::QuotaExceeded),
        detail: "voll, schön".into(),
    }
}

fn write(id: u64, k: &str, value: Option<&str>) -> Write {
    Write::new(WriteId(id), record(k, 1_000 + id, value), None)
}

async fn apply<S: Store>(store: &S, changes: Changes) {
    store
        .transact(Reads::meta(), move |_| (changes, ()))
        .await
        .unwrap();
}

async fn view<S: Store>(store: &S, reads: Reads) -> View {
    store
        .transact(reads, |view| (Changes::default(), view.clone()))
        .await
        .unwrap()
}

fn everything() -> Reads {
    Reads {
        ranges: vec![KeyRange::all()],
        all_writes: true,
        offers: usize::MAX,
        all_quarantined: true,
        ..Reads::default()
    }
}

fn a_meta() -> Meta {
    let cursor = Cursor {
        point: point(9),
        tag: u64::MAX,
    };
    Meta {
        space: Some("space".into()),
        floor: Time(u64::MAX),
        next_write: 77,
        attempted: 5,
        active: u64::MAX - 1,
        horizon: Time(3),
        newest_commit: Some(cursor),
        era: 2,
        ranges: vec![HeldRange {
            range: KeyRange::all(),
            cursor: Some(cursor),
            confirmed: Some(Confirmed {
                era: 2,
                point: point(8),
            }),
        }],
        snapshot: Some(SnapshotProgress {
            cursor,
            after: vec![0, 255],
        }),
        last_synced_ms: Some(12),
        limits: Some(Limits::default()),
    }
}

fn some_of_all() -> Changes {
    Changes {
        meta: Some(a_meta()),
        put: vec![stored("a", 1, Some("v")), stored("b", 2, None)],
        put_writes: vec![
            write(1, "a", Some("w")),
            Write {
                batch: Some(WriteId(1)),
                in_doubt: true,
                state: WriteState::Rejected {
                    reason: Some(Reason::QuotaExceeded),
                    detail: "full".into(),
                },
                ..write(2, "c", None)
            },
        ],
        put_offers: vec![key("a"), key("b")],
        put_quarantine: vec![quarantined(record("q", 3, Some("kept")))],
        ..Changes::default()
    }
}

fn expect_some_of_all(view: &View) {
    let c = some_of_all();
    assert_eq!(view.meta, a_meta());
    assert_eq!(view.clean.values().cloned().collect::<Vec<_>>(), c.put);
    assert_eq!(
        view.writes.values().cloned().collect::<Vec<_>>(),
        c.put_writes
    );
    assert_eq!(
        view.offers.iter().cloned().collect::<Vec<_>>(),
        c.put_offers
    );
    assert_eq!(
        view.quarantine.values().cloned().collect::<Vec<_>>(),
        c.put_quarantine
    );
}

async fn everything_written_is_read_back<S: Store>(s: &S) {
    let empty = view(s, everything()).await;
    assert_eq!(empty.meta, Meta::default());
    assert!(empty.clean.is_empty() && empty.writes.is_empty());
    apply(s, some_of_all()).await;
    expect_some_of_all(&view(s, everything()).await);
    let counts = s.counts().await.unwrap();
    assert_eq!(
        (
            counts.waiting,
            counts.rejected,
            counts.in_doubt,
            counts.offers,
            counts.quarantined
        ),
        (1, 1, 1, 2, 1)
    );
}

async fn survives_reopening<S: Store, F: AsyncFn(String) -> S>(open: &F, place: String) {
    apply(&open(place.clone()).await, some_of_all()).await;
    expect_some_of_all(&view(&open(place).await, everything()).await);
}

async fn removals_come_before_puts<S: Store>(s: &S) {
    apply(s, some_of_all()).await;
    let replaced = Changes {
        remove: vec![key("a"), key("b"), key("never")],
        put: vec![stored("a", 8, Some("again"))],
        remove_writes: vec![WriteId(1), WriteId(2), WriteId(99)],
        put_writes: vec![write(2, "d", Some("moved"))],
        remove_offers: vec![key("a"), key("b"), key("never")],
        put_offers: vec![key("b"), key("b")],
        remove_quarantine: vec![key("q"), key("never")],
        put_quarantine: vec![Quarantined {
            reason: None,
            ..quarantined(record("q", 4, None))
        }],
        meta: None,
    };
    apply(s, replaced.clone()).await;
    let v = view(s, everything()).await;
    assert_eq!(v.meta, a_meta());
    assert_eq!(v.clean.into_values().collect::<Vec<_>>(), replaced.put);
    assert_eq!(
        v.writes.into_values().collect::<Vec<_>>(),
        replaced.put_writes
    );
    assert_eq!(v.offers.into_iter().collect::<Vec<_>>(), [key("b")]);
    assert_eq!(
        v.quarantine.into_values().collect::<Vec<_>>(),
        replaced.put_quarantine
    );
    // the old key of a write that was replaced no longer leads to it
    let by_key = view(s, Reads::keys([key("c"), key("d")])).await;
    assert_eq!(by_key.writes.len(), 1);
}

async fn empty_changes_write_nothing<S: Store>(s: &S) {
    apply(s, some_of_all()).await;
    apply(s, Changes::default()).await;
    expect_some_of_all(&view(s, everything()).await);
}

async fn pages_cover_a_range_in_byte_order<S: Store>(s: &S) {
    // bytes order differently from UTF-16: U+10000 is below U+FFFF there
    let names = ["\u{1}", "a", "a\0", "aa", "b", "z", "\u{ffff}", "\u{10000}"];
    let put = names.iter().map(|n| stored(n, 1, Some(n))).collect();
    apply(
        s,
        Changes {
            put,
            put_writes: vec![
                write(3, "b", Some("x")),
                write(1, "aaa", Some("y")),
                write(2, "zz", None),
            ],
            put_quarantine: vec![quarantined(record("a\0b", 1, Some("q")))],
            ..Changes::default()
        },
    )
    .await;
    let all = s.page(&KeyRange::all(), None, 100).await.unwrap();
    let keys: Vec<_> = all.clean.iter().map(|c| c.record.key.clone()).collect();
    assert_eq!(keys, names.map(key));
    assert_eq!(all.next, None);
    let ids = |p: &Page| p.writes.iter().map(|w| w.id.0).collect::<Vec<_>>();
    assert_eq!(ids(&all), [1, 2, 3]);

    let first = s.page(&KeyRange::all(), None, 4).await.unwrap();
    assert_eq!(first.clean.len(), 4);
    assert_eq!(first.next, Some(key("aa")));
    assert_eq!(ids(&first), Vec::<u64>::new());
    assert_eq!(first.quarantine.len(), 1);
    let rest = s
        .page(&KeyRange::all(), first.next.as_ref(), 4)
        .await
        .unwrap();
    assert_eq!((rest.clean.len(), rest.next.clone()), (4, None));
    assert_eq!(ids(&rest), [1, 2, 3]);
    assert!(rest.quarantine.is_empty());

    let some = KeyRange::new(b"a\0", Some(b"b")).unwrap();
    let page = s.page(&some, None, 100).await.unwrap();
    let keys: Vec<_> = page.clean.iter().map(|c| c.record.key.clone()).collect();
    assert_eq!(keys, [key("a\0"), key("aa")]);
    assert_eq!(ids(&page), [1]);
    let beyond = s.page(&some, Some(&key("z")), 100).await.unwrap();
    assert_eq!(beyond, Page::default());
    let nothing = KeyRange::new(b"y", Some(b"z")).unwrap();
    assert_eq!(s.page(&nothing, None, 1).await.unwrap(), Page::default());

    let leaves = s.leaves(&KeyRange::all(), None, 3).await.unwrap();
    assert_eq!(leaves.len(), 3);
    let after = s
        .leaves(&KeyRange::all(), Some(&leaves[2].key), 100)
        .await
        .unwrap();
    let leaves: Vec<_> = leaves.into_iter().chain(after).collect();
    let expected: Vec<_> = all.clean.iter().map(super::Leaf::from).collect();
    assert_eq!(leaves, expected);
    assert_eq!(s.leaves(&some, Some(&key("aa")), 9).await.unwrap(), []);
}

async fn reads_find_what_they_name_and_no_more<S: Store>(s: &S) {
    apply(s, some_of_all()).await;
    let of = |reads| view(s, reads);
    let meta_only = of(Reads::meta()).await;
    assert_eq!(meta_only.meta, a_meta());
    assert!(meta_only.clean.is_empty() && meta_only.writes.is_empty());
    assert!(meta_only.offers.is_empty() && meta_only.quarantine.is_empty());
    let a = of(Reads::keys([key("a"), key("none")])).await;
    assert_eq!(a.clean.keys().collect::<Vec<_>>(), [&key("a")]);
    assert_eq!(a.writes.keys().collect::<Vec<_>>(), [&WriteId(1)]);
    assert_eq!(a.offers.iter().collect::<Vec<_>>(), [&key("a")]);
    let q = of(Reads::keys([key("q")])).await;
    assert_eq!(q.quarantine.len(), 1);
    let ids = of(Reads {
        writes: vec![WriteId(2), WriteId(50)],
        ..Reads::default()
    })
    .await;
    assert_eq!(ids.writes.keys().collect::<Vec<_>>(), [&WriteId(2)]);
    let one_offer = of(Reads {
        offers: 1,
        ..Reads::default()
    })
    .await;
    assert_eq!(one_offer.offers.into_iter().collect::<Vec<_>>(), [key("a")]);
    let range = of(Reads {
        ranges: vec![KeyRange::new(b"b", Some(b"d")).unwrap()],
        ..Reads::default()
    })
    .await;
    assert_eq!(range.clean.keys().collect::<Vec<_>>(), [&key("b")]);
    assert_eq!(range.writes.keys().collect::<Vec<_>>(), [&WriteId(2)]);
    assert_eq!(range.offers.into_iter().collect::<Vec<_>>(), [key("b")]);
}

async fn writes_keep_their_order_and_state<S: Store>(s: &S) {
    let mut all: Vec<Write> = (1..=25).map(|i| write(i, "same", Some("v"))).collect();
    let reasons = [None, Some(Reason::NoAccess), Some(Reason::Internal)];
    for (i, reason) in reasons.into_iter().enumerate() {
        all[i * 3].state = WriteState::Rejected {
            reason,
            detail: format!("because {i}"),
        };
    }
    all[24].batch = Some(WriteId(24));
    all[23].batch = Some(WriteId(24));
    all[22] = write(23, "same", None);
    let backwards = Changes {
        put_writes: all.iter().rev().cloned().collect(),
        ..Changes::default()
    };
    apply(s, backwards).await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = s.writes(after, 10).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page);
    }
    assert_eq!(seen, all);
    let of_key = view(s, Reads::keys([key("same")])).await;
    assert_eq!(of_key.writes.into_values().collect::<Vec<_>>(), all);
}

async fn extreme_values_survive<S: Store>(s: &S) {
    let longest = Record {
        key: Key::new(vec![0xff; Key::MAX_BYTES]).unwrap(),
        version: Version {
            time: Time(u64::MAX),
            replica: ReplicaId(u64::MAX),
        },
        content: Content::Put(vec![7; 1 << 20].into()),
    };
    let shortest = Record {
        key: Key::new(vec![0]).unwrap(),
        version: Version {
            time: Time(0),
            replica: ReplicaId(0),
        },
        content: Content::Put(Default::default()),
    };
    let far = Point {
        epoch: Epoch(u64::MAX),
        sequence: u64::MAX,
    };
    let put = vec![
        Stored::new(shortest.clone(), far, u64::MAX),
        Stored::new(longest.clone(), far, 0),
    ];
    let id = WriteId(u64::from(u32::MAX) + 9);
    let write = Write::new(id, longest.clone(), None);
    apply(
        s,
        Changes {
            put: put.clone(),
            put_writes: vec![write.clone()],
            put_quarantine: vec![quarantined(longest.clone()), quarantined(shortest)],
            put_offers: vec![longest.key.clone()],
            ..Changes::default()
        },
    )
    .await;
    let v = view(s, everything()).await;
    assert!(v.clean.values().all(Stored::intact));
    assert_eq!(v.clean.into_values().collect::<Vec<_>>(), put);
    assert_eq!(v.writes.into_values().collect::<Vec<_>>(), [write]);
    assert_eq!(v.quarantine.len(), 2);
    let single = KeyRange::single(&longest.key);
    assert_eq!(s.page(&single, None, 5).await.unwrap().clean, put[1..]);
}

async fn damage_is_seen_as_such<S: Store>(s: &S) {
    let put: Vec<_> = (0..50)
        .map(|i| stored(&format!("k{i:02}"), 5, (i != 7).then_some("value")))
        .collect();
    apply(
        s,
        Changes {
            put: put.clone(),
            ..Changes::default()
        },
    )
    .await;
    s.damage(&[key("k03"), key("k07"), key("none")])
        .await
        .unwrap();
    let page = s.page(&KeyRange::all(), None, 100).await.unwrap();
    let damaged: Vec<_> = page.clean.iter().filter(|c| !c.intact()).collect();
    let keys: Vec<_> = damaged.iter().map(|c| c.record.key.clone()).collect();
    assert_eq!(keys, [key("k03"), key("k07")]);
    assert_eq!(damaged[0].digest, put[3].digest);
    assert_eq!(page.clean.len(), 50);
}

async fn openings_share_one_state<S: Store, F: AsyncFn(String) -> S>(open: &F, place: String) {
    let a = open(place.clone()).await;
    let b = open(place).await;
    apply(&a, some_of_all()).await;
    expect_some_of_all(&view(&b, everything()).await);
    let removed = Changes {
        remove: vec![key("a")],
        ..Changes::default()
    };
    apply(&b, removed).await;
    assert!(!view(&a, everything()).await.clean.contains_key(&key("a")));
    let page = a.page(&KeyRange::all(), None, 9).await.unwrap();
    assert_eq!(page.clean.len(), 1);
}

async fn transactions_are_isolated<S: Store, F: AsyncFn(String) -> S>(open: &F, place: String) {
    let openings = [open(place.clone()).await, open(place).await];
    let count = async |s: &S| {
        s.transact(Reads::meta(), |view| {
            let mut meta = view.meta.clone();
            meta.next_write += 1;
            let changes = Changes {
                meta: Some(meta),
                ..Changes::default()
            };
            (changes, view.meta.next_write)
        })
        .await
    };
    // together, not one after the other
    let all = (0..40).map(|i| count(&openings[i % 2]));
    let mut seen: Vec<u64> = futures::future::join_all(all)
        .await
        .into_iter()
        .map(|n| n.unwrap())
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
}

/// A small generator of pseudo-random numbers (xorshift): the same on every
/// platform, and no dependency.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn key(&mut self) -> Key {
        let n = self.roll(60);
        key(&format!("{:0width$}", n, width = 1 + (n % 4) as usize))
    }

    fn record(&mut self) -> Record {
        let key = self.key();
        let text = String::from_utf8_lossy(key.as_bytes()).into_owned();
        let value = "v".repeat(self.roll(300) as usize);
        let time = self.roll(1_000);
        record(&text, time, (self.roll(5) > 0).then_some(&value))
    }

    fn some<T>(&mut self, most: u64, mut make: impl FnMut(&mut Dice) -> T) -> Vec<T> {
        (0..self.roll(most + 1)).map(|_| make(self)).collect()
    }

    fn changes(&mut self) -> Changes {
        let by_key = |mut records: Vec<Record>| {
            records.sort_by(|a, b| a.key.cmp(&b.key));
            records.dedup_by(|a, b| a.key == b.key);
            records
        };
        let put = by_key(self.some(20, Dice::record));
        let mut put_writes = self.some(6, |d| Write::new(WriteId(d.roll(40)), d.record(), None));
        put_writes.sort_by_key(|w| w.id);
        put_writes.dedup_by_key(|w| w.id);
        Changes {
            meta: None,
            remove: self.some(8, Dice::key),
            put: put
                .into_iter()
                .map(|r| Stored::new(r, point(1), 0))
                .collect(),
            remove_writes: self.some(5, |d| WriteId(d.roll(40))),
            put_writes,
            remove_offers: self.some(3, Dice::key),
            put_offers: self.some(3, Dice::key),
            remove_quarantine: self.some(3, Dice::key),
            put_quarantine: by_key(self.some(3, Dice::record))
                .into_iter()
                .map(quarantined)
                .collect(),
        }
    }
}

async fn behaves_as_the_memory_store<S: Store>(s: &S) {
    let model = MemoryStore::new();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..60 {
        let changes = dice.changes();
        apply(s, changes.clone()).await;
        apply(&model, changes).await;
        let mut bounds = [dice.key(), dice.key()];
        bounds.sort();
        let [from, to] = bounds;
        let range = KeyRange::new(from.as_bytes(), Some(&to.successor())).unwrap();
        let limit = 1 + dice.roll(30) as usize;
        let after = dice.key();
        let after = (dice.roll(2) == 0).then_some(&after);
        assert_eq!(
            s.page(&range, after, limit).await.unwrap(),
            model.page(&range, after, limit).await.unwrap()
        );
        assert_eq!(
            s.leaves(&range, after, limit).await.unwrap(),
            model.leaves(&range, after, limit).await.unwrap()
        );
        assert_eq!(s.counts().await.unwrap(), model.counts().await.unwrap());
        let reads = Reads {
            keys: dice.some(9, Dice::key),
            writes: dice.some(4, |d| WriteId(d.roll(40))),
            offers: dice.roll(3) as usize,
            ..Reads::default()
        };
        let (ours, theirs) = (view(s, reads.clone()).await, view(&model, reads).await);
        assert_eq!(ours.clean, theirs.clean);
        assert_eq!(ours.writes, theirs.writes);
        assert_eq!(ours.offers, theirs.offers);
        assert_eq!(ours.quarantine, theirs.quarantine);
    }
}
