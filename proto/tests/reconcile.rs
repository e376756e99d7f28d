//! Sessions between arbitrary replicas and servers end with both sides equal, in few rounds, whatever the
//! budgets; and whatever a peer sends, nothing panics and nothing runs for ever.

use bytes::Bytes;
use gosync_proto::key::{Key, KeyRange, RangeSet};
use gosync_proto::merkle::Tree;
use gosync_proto::reconcile::{
    Budget, Confirmation, Initiator, Options, PeerMisbehaved, RespondError, Step, TurnError,
    respond,
};
use gosync_proto::record::{Content, Digest, Merge, Record};
use gosync_proto::version::{ReplicaId, Time, Version};
use gosync_proto::{Reason, wire};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

const SALT: u64 = 7;

/// Records and the tree over those that are not damaged.
#[derive(Clone, Default, Debug)]
struct Side {
    records: BTreeMap<Vec<u8>, Record>,
    tree: Tree,
    /// Known to be damaged: outside of the tree.
    damaged: BTreeSet<Vec<u8>>,
    /// Damaged without anybody's knowledge yet: in the tree, not loadable.
    rotten: BTreeSet<Vec<u8>>,
}

impl Side {
    fn new(records: impl IntoIterator<Item = Record>) -> Side {
        let mut side = Side::default();
        records.into_iter().for_each(|r| side.merge(r));
        side
    }

    fn merge(&mut self, record: Record) {
        let key = record.key.as_bytes().to_vec();
        let damaged = self.damaged.remove(&key) | self.rotten.remove(&key);
        let held = self.records.get(&key).filter(|_| !damaged);
        if held.is_none_or(|held| record.merge_against(held) == Merge::Wins) {
            self.tree.insert(&key, record.digest());
            self.records.insert(key, record);
        }
    }

    fn damage(&mut self, key: &[u8]) {
        if self.tree.remove(key).is_some() {
            self.damaged.insert(key.to_vec());
        }
    }

    fn damaged_ranges(&self) -> RangeSet {
        let single = |k: &Vec<u8>| KeyRange::single(&Key::new(k.clone()).unwrap());
        RangeSet::union(self.damaged.iter().map(single).collect())
    }

    fn answer(
        &self,
        request: &wire::ReconcileRequest,
        scope: &RangeSet,
        budget: &Budget,
    ) -> wire::ReconcileResponse {
        let load = |key: &[u8]| {
            let whole = !self.rotten.contains(key);
            Ok::<_, Infallible>(self.records.get(key).filter(|_| whole).cloned())
        };
        respond(
            request,
            scope,
            &self.tree,
            &self.damaged_ranges(),
            budget,
            load,
        )
        .unwrap()
    }
}

fn generous() -> Budget {
    Budget {
        max_entries: 1 << 20,
        max_response_bytes: 1 << 20,
        max_hashes: 1 << 20,
    }
}

fn options() -> Options {
    Options {
        max_entries: 1 << 20,
        max_request_bytes: 1 << 20,
        ..Options::default()
    }
}

/// A whole session. `between` runs on the server after each answer.
fn session(
    replica: &mut Side,
    server: &mut Side,
    ranges: &RangeSet,
    options: Options,
    budget: &Budget,
    mut between: impl FnMut(&mut Side),
) -> (u32, Vec<Step>) {
    let mut initiator = Initiator::new(ranges, SALT, options);
    let mut steps: Vec<Step> = Vec::new();
    while let Some(request) = initiator.next_request(&replica.tree).unwrap() {
        let response = server.answer(&request, ranges, budget);
        between(server);
        let step = initiator.handle_response(&replica.tree, response).unwrap();
        for record in &step.records {
            assert!(ranges.contains(record.key.as_bytes()));
            replica.merge(record.clone());
        }
        steps.push(step);
        assert!(steps.len() < 20_000);
    }
    assert!(initiator.is_done());
    for step in &steps {
        let lacking = step.lacking.iter().map(|l| &l.key);
        for key in lacking.chain(&step.conflicts) {
            server.merge(replica.records[key.as_bytes()].clone());
        }
    }
    (initiator.rounds(), steps)
}

fn record(key: &[u8], time: u64, value: u8) -> Record {
    Record {
        key: Key::new(key).unwrap(),
        version: Version {
            time: Time(time),
            replica: ReplicaId(u64::from(value)),
        },
        content: match value {
            0 => Content::Tombstone,
            v => Content::Put(Bytes::from(vec![v; usize::from(v) * 8])),
        },
    }
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(vec![0u8, 1, b'a', b'b', 0x80, 0xff]);
    prop::collection::vec(byte, 1..5)
}

fn records(most: usize) -> impl Strategy<Value = Vec<Record>> {
    let record = (key(), 0u64..4, 0u8..4).prop_map(|(k, t, v)| record(&k, t, v));
    prop::collection::vec(record, 0..most)
}

fn ranges() -> impl Strategy<Value = RangeSet> {
    let bound = || prop_oneof![Just(vec![]), key()];
    let range = (bound(), prop::option::of(bound()))
        .prop_filter_map("inverted", |(a, b)| KeyRange::new(&a, b.as_deref()).ok());
    prop_oneof![
        Just(RangeSet::all()),
        prop::collection::vec(range, 1..4).prop_map(RangeSet::union),
    ]
}

fn budget() -> impl Strategy<Value = Budget> {
    prop_oneof![
        Just(generous()),
        (256usize..2000, 1u64..60).prop_map(|(max_response_bytes, max_hashes)| Budget {
            max_response_bytes,
            max_hashes,
            ..generous()
        }),
    ]
}

fn any_options() -> impl Strategy<Value = Options> {
    let len = prop::sample::select(vec![4usize, 5, 8, 32]);
    let entries = prop::sample::select(vec![0u64, 200, 1 << 20]);
    (len, entries).prop_map(|(digest_len, max_entries)| Options {
        digest_len,
        max_entries,
        max_request_bytes: 1 << 20,
        max_rounds: 20_000,
    })
}

/// Enough records that splits happen: a common set, sparsely changed on both sides.
fn large_pair() -> impl Strategy<Value = (Vec<Record>, Vec<Record>)> {
    let changes = || prop::collection::vec((0u32..3000, 2u64..4, 0u8..4), 0..40);
    (0u32..3000, changes(), changes()).prop_map(|(n, a, b)| {
        let name = |i: u32| format!("{:08x}", i.wrapping_mul(0x9e37_79b9));
        let common: Vec<Record> = (0..n).map(|i| record(name(i).as_bytes(), 1, 1)).collect();
        let with = |changes: Vec<(u32, u64, u8)>| {
            let changed = changes
                .into_iter()
                .map(|(i, t, v)| record(name(i).as_bytes(), t, v));
            common.iter().cloned().chain(changed).collect()
        };
        (with(a), with(b))
    })
}

fn within(side: &Side, ranges: &RangeSet) -> Vec<Record> {
    let all = side.records.values();
    all.filter(|r| ranges.contains(r.key.as_bytes()))
        .cloned()
        .collect()
}

fn check_converges(
    mut replica: Side,
    mut server: Side,
    ranges: &RangeSet,
    options: Options,
    budget: &Budget,
) {
    let outside = |side: &Side| -> Vec<Record> {
        let all = side.records.values();
        all.filter(|r| !ranges.contains(r.key.as_bytes()))
            .cloned()
            .collect()
    };
    let before = (outside(&replica), outside(&server));
    session(&mut replica, &mut server, ranges, options, budget, |_| {});
    assert_eq!(within(&replica, ranges), within(&server, ranges));
    assert_eq!((outside(&replica), outside(&server)), before);
    let confirmation = Confirmation::new(&replica.tree, ranges, SALT).unwrap();
    let response = server.answer(&confirmation.request(), ranges, &generous());
    assert!(confirmation.outcome(&response).unwrap().is_empty());
}

proptest! {
    #[test]
    fn any_two_sides_end_equal(a in records(80), b in records(80), ranges in ranges(), options in any_options(), budget in budget()) {
        check_converges(Side::new(a), Side::new(b), &ranges, options, &budget);
    }

    #[test]
    fn damaged_records_are_healed_from_the_other_side_and_never_taken_for_deleted(
        all in records(80), hit in prop::collection::vec((any::<prop::sample::Index>(), 0u8..3), 0..8), budget in budget()
    ) {
        let (mut replica, mut server) = (Side::new(all.clone()), Side::new(all.clone()));
        let mut hurt = BTreeSet::new();
        for (i, side) in hit {
            let Some(r) = (!all.is_empty()).then(|| &all[i.index(all.len())]) else { continue };
            let key = r.key.as_bytes();
            // never both sides: nobody could heal that
            if !hurt.insert(key.to_vec()) { continue }
            match side {
                0 => replica.damage(key),
                1 => server.damage(key),
                _ => { server.rotten.insert(key.to_vec()); }
            }
        }
        let expected = server.damaged.clone();
        let (_, steps) = session(&mut replica, &mut server, &RangeSet::all(), options(), &budget, |_| {});
        let lacking: Vec<_> = steps.iter().flat_map(|s| &s.lacking).collect();
        prop_assert!(lacking.iter().all(|l| l.wanted));
        let named: BTreeSet<_> = lacking.iter().map(|l| l.key.as_bytes().to_vec()).collect();
        prop_assert_eq!(named, expected);
        prop_assert_eq!(replica.tree.total(), Side::new(all).tree.total());
        prop_assert!(replica.damaged.is_empty() && server.damaged.is_empty());
        prop_assert_eq!(server.tree.total(), replica.tree.total());
    }

    #[test]
    fn a_server_that_changes_between_rounds_does_no_harm(a in records(60), b in records(60), late in records(40)) {
        let (mut replica, mut server) = (Side::new(a), Side::new(b));
        let mut late = late.into_iter();
        let tight = Budget { max_response_bytes: 600, ..generous() };
        session(&mut replica, &mut server, &RangeSet::all(), options(), &tight, |server| {
            late.by_ref().take(3).for_each(|r| server.merge(r));
        });
        // what came too late for the first session is found by the next
        session(&mut replica, &mut server, &RangeSet::all(), options(), &tight, |_| {});
        prop_assert_eq!(replica.tree.total(), server.tree.total());
    }

    #[test]
    fn any_bytes_as_a_request_are_answered_or_refused(
        parts in bytes(12), bounds in bytes(24), digests in bytes(80), digest_len in prop_oneof![0u32..10, 31u32..34], turns_left in any::<u32>(), held in records(40), budget in budget()
    ) {
        let side = Side::new(held);
        let request = wire::ReconcileRequest { parts, bounds, digests, digest_len, turns_left, ..Default::default() };
        let load = |key: &[u8]| Ok::<_, Infallible>(side.records.get(key).cloned());
        let _ = respond(&request, &RangeSet::all(), &side.tree, &RangeSet::default(), &budget, load);
    }
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(0u8..20, 0..most),
        prop::collection::vec(any::<u8>(), 0..most),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn large_sets_end_equal_in_the_planned_round_trips((a, b) in large_pair(), tight in any::<bool>()) {
        let (mut replica, mut server) = (Side::new(a), Side::new(b));
        if tight {
            let tight = Budget { max_response_bytes: 1500, max_hashes: 500, ..generous() };
            let few = Options { max_entries: 130, ..options() };
            check_converges(replica, server, &RangeSet::all(), few, &tight);
        } else {
            let (rounds, _) = session(&mut replica, &mut server, &RangeSet::all(), options(), &generous(), |_| {});
            prop_assert!(rounds <= 2, "{rounds}");
            prop_assert_eq!(replica.tree.total(), server.tree.total());
        }
    }

    /// A peer that answers at random, or correctly and then something is changed.
    #[test]
    fn a_lying_server_causes_an_error_or_an_end_and_never_a_panic(
        (a, b) in large_pair(), lies in prop::collection::vec((0u8..9, any::<prop::sample::Index>(), any::<u8>(), bytes(30)), 1..40)
    ) {
        let (replica, server) = (Side::new(a), Side::new(b));
        let mut initiator = Initiator::new(&RangeSet::all(), SALT, Options { max_rounds: 100, ..options() });
        let mut lies = lies.into_iter().cycle();
        while let Some(request) = initiator.next_request(&replica.tree).unwrap() {
            let mut r = server.answer(&request, &RangeSet::all(), &generous());
            let (what, at, byte, junk) = lies.next().unwrap();
            let flip = |column: &mut Vec<u8>| if column.is_empty() { *column = junk.clone() } else { let i = at.index(column.len()); column[i] ^= byte };
            match what {
                0 => flip(&mut r.parts),
                1 => flip(&mut r.bounds),
                2 => flip(&mut r.digests),
                3 => flip(&mut r.lacking),
                4 => r.parts = junk,
                5 => { r.records.reverse(); r.records.truncate(3) }
                6 => r.resume_at = Some(junk),
                7 => r.records.push(record(b"zzz", 1, byte.max(1)).into()),
                _ => r.digests.push(byte),
            }
            if initiator.handle_response(&replica.tree, r).is_err() {
                return Ok(());
            }
        }
        prop_assert!(initiator.rounds() <= 100);
    }
}

fn numbered(n: u64) -> Tree {
    Tree::from_sorted((0..n).map(|i| (format!("{:016x}", i << 20).into_bytes(), digest(i))))
}

fn digest(i: u64) -> Digest {
    record(b"x", i, 1).digest()
}

fn rounds(replica: &Tree, server: &Tree, budget: &Budget) -> u32 {
    let mut initiator = Initiator::new(&RangeSet::all(), SALT, options());
    while let Some(request) = initiator.next_request(replica).unwrap() {
        let load = |key: &[u8]| Ok::<_, Infallible>(Some(record(key, 1, 25)));
        let response = respond(
            &request,
            &RangeSet::all(),
            server,
            &RangeSet::default(),
            budget,
            load,
        )
        .unwrap();
        initiator.handle_response(replica, response).unwrap();
    }
    initiator.rounds()
}

#[test]
fn a_hundred_thousand_records_take_two_round_trips() {
    let server = numbered(100_000);
    for change in [1usize, 7, 1000] {
        let mut replica = server.clone();
        for i in (0..100_000).step_by(100_000 / change) {
            replica.insert(format!("{:016x}", i << 20).as_bytes(), digest(u64::MAX));
        }
        replica.settle();
        assert_eq!(
            rounds(&replica, &server, &generous()),
            2,
            "{change} changes"
        );
    }
}

#[test]
fn an_empty_side_of_a_hundred_thousand_records_is_served_within_the_budget() {
    let (empty, full) = (Tree::new(), numbered(100_000));
    let floor = Budget {
        max_response_bytes: 64 << 10,
        ..generous()
    };
    // an empty server says at once that it has nothing
    assert_eq!(rounds(&full, &empty, &floor), 1);
    // 250 bytes a record
    let n = rounds(&empty, &full, &floor);
    assert!((350..450).contains(&n), "{n}");
}

#[test]
fn records_with_equal_short_digests_are_found_by_long_ones() {
    // two contents of one record whose 4-byte shorts collide
    let four = Options {
        digest_len: 4,
        ..options()
    };
    let short = |i: u64| {
        let tree = Tree::from_sorted([(b"k", digest(i))]);
        let mut alone = Initiator::new(&RangeSet::all(), SALT, four);
        alone.next_request(&tree).unwrap().unwrap().digests
    };
    let mut seen = BTreeMap::new();
    let (a, b) = (0..)
        .find_map(|i| seen.insert(short(i), i).map(|other| (other, i)))
        .unwrap();
    let (mut replica, mut server) = (numbered(500), numbered(500));
    replica.insert(b"5", digest(a));
    server.insert(b"5", digest(b));
    let mut initiator = Initiator::new(&RangeSet::all(), SALT, four);
    let mut conflicts = Vec::new();
    while let Some(request) = initiator.next_request(&replica).unwrap() {
        let load = |_: &[u8]| Ok::<_, Infallible>(Some(record(b"5", b, 1)));
        let response = respond(
            &request,
            &RangeSet::all(),
            &server,
            &RangeSet::default(),
            &generous(),
            load,
        );
        let step = initiator
            .handle_response(&replica, response.unwrap())
            .unwrap();
        conflicts.extend(step.conflicts);
    }
    assert_eq!(conflicts, [Key::new(*b"5").unwrap()]);
}

#[test]
fn asking_again_without_an_answer_asks_the_same() {
    let tree = numbered(1000);
    let mut initiator = Initiator::new(&RangeSet::all(), SALT, options());
    let first = initiator.next_request(&tree).unwrap();
    assert!(first.is_some());
    assert_eq!(
        initiator.next_request(&tree).unwrap().map(|r| r.bounds),
        first.map(|r| r.bounds)
    );
    assert_eq!(initiator.rounds(), 0);
}

#[test]
fn a_refused_answer_leaves_the_session_unfinished() {
    let tree = numbered(1000);
    let mut initiator = Initiator::new(&RangeSet::all(), SALT, options());
    assert!(initiator.next_request(&tree).unwrap().is_some());
    let nothing = wire::ReconcileResponse::default();
    assert!(initiator.handle_response(&tree, nothing).is_err());
    assert!(!initiator.is_done() && initiator.unresolved().next().is_some());
}

#[test]
fn an_answer_without_a_question_is_misbehaviour() {
    let mut initiator = Initiator::new(&RangeSet::all(), SALT, options());
    let e = initiator.handle_response(&Tree::new(), wire::ReconcileResponse::default());
    assert_eq!(e.unwrap_err(), TurnError::Peer(PeerMisbehaved::Unasked));
}

#[test]
fn requests_over_a_limit_or_outside_of_the_held_ranges_are_refused() {
    let tree = numbered(1000);
    let request = Initiator::new(&RangeSet::all(), SALT, options())
        .next_request(&tree)
        .unwrap()
        .unwrap();
    let refused = |scope: &RangeSet, budget: &Budget, request: &wire::ReconcileRequest| {
        let load = |_: &[u8]| Ok::<_, Infallible>(None);
        match respond(request, scope, &tree, &RangeSet::default(), budget, load) {
            Err(RespondError::Request(e)) => (e.reason, e.field),
            other => panic!("{other:?}"),
        }
    };
    let few = Budget {
        max_entries: 3,
        ..generous()
    };
    let (reason, field) = refused(&RangeSet::all(), &few, &request);
    assert_eq!((reason, &field[..]), (Reason::LimitExceeded, "parts"));
    let narrow = RangeSet::union(vec![KeyRange::prefix(b"0").unwrap()]);
    assert_eq!(refused(&narrow, &generous(), &request).0, Reason::Malformed);
    for digest_len in [1, 3, 9, 31, 33] {
        let other = wire::ReconcileRequest {
            digest_len,
            ..request.clone()
        };
        let (_, field) = refused(&RangeSet::all(), &generous(), &other);
        assert_eq!(field, "digest_len", "{digest_len}");
    }
    let empty = wire::ReconcileRequest::default();
    assert_eq!(refused(&RangeSet::all(), &generous(), &empty).1, "parts");
}
