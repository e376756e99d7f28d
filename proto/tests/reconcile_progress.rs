//! When a session is asked further, given up or refused: answers that lead nowhere, answers that contradict one
//! another, and a first answer after which a Snapshot costs less.

use gosync_proto::key::{Key, KeyRange, RangeSet};
use gosync_proto::limits::Limits;
use gosync_proto::merkle::Tree;
use gosync_proto::reconcile::{
    Budget, Initiator, Options, PeerMisbehaved, Step, TurnError, respond,
};
use gosync_proto::record::{Content, Digest, Record};
use gosync_proto::version::{ReplicaId, Time, Version};
use gosync_proto::wire;
use std::convert::Infallible;

type Answered = Result<Step, TurnError<Infallible>>;

fn name(i: u64) -> Vec<u8> {
    format!("{i:08}").into_bytes()
}

fn record(key: &[u8]) -> Record {
    Record {
        key: Key::new(key).unwrap(),
        version: Version {
            time: Time(9),
            replica: ReplicaId(1),
        },
        content: Content::Put("value".into()),
    }
}

fn numbered(n: u64) -> Tree {
    Tree::from_sorted((0..n).map(|i| (name(i), Digest([i as u8; 32]))))
}

fn without(tree: &Tree, i: u64) -> Tree {
    let mut tree = tree.clone();
    tree.remove(&name(i));
    tree.settle();
    tree
}

fn session(digest_len: usize) -> Initiator {
    let options = Options {
        digest_len,
        ..Options::new(&Limits::FLOOR)
    };
    Initiator::new(&RangeSet::all(), 7, options)
}

/// What a server that holds `tree` answers, at the end of its commit `sequence`.
fn answer(request: &wire::ReconcileRequest, tree: &Tree, sequence: u64) -> wire::ReconcileResponse {
    let all = RangeSet::all();
    let load = |key: &[u8]| Ok::<_, Infallible>(Some(record(key)));
    let budget = Budget::new(&Limits::FLOOR);
    let mut response = respond(request, &all, tree, &RangeSet::default(), &budget, load).unwrap();
    response.position = Some(wire::Position {
        head: Some(wire::Cursor {
            epoch: 1,
            sequence,
            tag: sequence,
        }),
        horizon: 0,
    });
    response
}

/// Asks, and is answered from that state; `None` when nothing is left to ask.
fn turn(
    session: &mut Initiator,
    own: &Tree,
    server: (&Tree, u64),
) -> Option<(wire::ReconcileRequest, Answered)> {
    let request = session.next_request(own).unwrap()?;
    let response = answer(&request, server.0, server.1);
    let answered = session.handle_response(own, response);
    Some((request, answered))
}

/// Goes on with a server of one state until the end; how many answers it took, and the digests' lengths.
fn finish(session: &mut Initiator, own: &Tree, server: (&Tree, u64)) -> Vec<u32> {
    let mut lengths = Vec::new();
    while let Some((request, answered)) = turn(session, own, server) {
        answered.unwrap();
        lengths.push(request.digest_len);
        assert!(lengths.len() < 20);
    }
    assert!(session.is_done());
    lengths
}

/// Regression: a prefix of the first part without a record counted as progress, 513 times.
#[test]
fn empty_prefixes_are_no_progress() {
    let own = numbered(1000);
    let mut session = session(5);
    for i in 1..=64 {
        assert!(session.next_request(&own).unwrap().is_some());
        let answered = session.handle_response(&own, cut_at(vec![0; i], vec![]));
        if i < 64 {
            assert_eq!(answered.unwrap().resolved.len(), 1, "{i}");
        } else {
            let error = answered.unwrap_err();
            assert_eq!(error, TurnError::Peer(PeerMisbehaved::NoProgress));
        }
    }
    assert!(PeerMisbehaved::NoProgress.leads_nowhere());
    assert!(!PeerMisbehaved::Unasked.leads_nowhere());
}

fn cut_at(resume_at: Vec<u8>, records: Vec<Record>) -> wire::ReconcileResponse {
    wire::ReconcileResponse {
        parts: vec![4 + 2],
        resume_at: Some(resume_at),
        records: records.into_iter().map(Into::into).collect(),
        ..Default::default()
    }
}

#[test]
fn answers_that_bring_a_record_are_progress() {
    let own = numbered(1000);
    let mut session = session(5);
    for i in 1..=200 {
        session.next_request(&own).unwrap();
        let came = record(&vec![0; i]);
        let answer = cut_at(vec![0; i + 1], vec![came]);
        session.handle_response(&own, answer).unwrap();
    }
}

#[test]
fn answers_that_close_a_part_are_progress() {
    let starts = [b'a', b'c', b'e', b'g'];
    let range = |s: &u8| KeyRange::new(&[*s], Some(&[*s + 1])).unwrap();
    let ranges = RangeSet::union(starts.iter().map(range).collect());
    let mut session = Initiator::new(&ranges, 7, Options::new(&Limits::FLOOR));
    for pair in starts.windows(2) {
        for i in 1..=60 {
            session.next_request(&Tree::new()).unwrap();
            let within = [&pair[..1], &vec![0; i]].concat();
            let answer = cut_at(within, vec![]);
            session.handle_response(&Tree::new(), answer).unwrap();
        }
        session.next_request(&Tree::new()).unwrap();
        let answer = cut_at(vec![pair[1]], vec![]);
        session.handle_response(&Tree::new(), answer).unwrap();
    }
    assert_eq!(session.rounds(), 3 * 61);
}

/// Regression: a contradiction was seen within one answer only.
#[test]
fn what_differs_as_a_whole_and_in_no_part_is_asked_at_full_length() {
    let own = numbered(1000);
    let lost = without(&own, 500);
    let mut session = session(5);
    let (first, step) = turn(&mut session, &own, (&lost, 1)).unwrap();
    assert!(first.digest_len == 0 && step.unwrap().lacking.is_empty());
    // from now on it is there: the parts of what differed are equal
    let (second, step) = turn(&mut session, &own, (&own, 1)).unwrap();
    assert!(second.digest_len == 0);
    step.unwrap();
    assert!(!session.is_done());
    assert_eq!(finish(&mut session, &own, (&own, 1)), [32]);
}

#[test]
fn a_server_that_moved_is_asked_again_and_one_that_did_not_contradicts_itself() {
    let own = numbered(1000);
    let lost = without(&own, 500);
    for moved in [true, false] {
        let mut session = session(32);
        let (_, step) = turn(&mut session, &own, (&lost, 1)).unwrap();
        step.unwrap();
        let (_, step) = turn(&mut session, &own, (&own, if moved { 2 } else { 1 })).unwrap();
        match (moved, step) {
            (true, Ok(step)) => {
                assert!(step.resolved.is_empty(), "nothing is closed");
                assert_eq!(finish(&mut session, &own, (&own, 2)), [32]);
            }
            (false, Err(TurnError::Peer(PeerMisbehaved::Contradiction(range)))) => {
                assert!(range.contains(&name(500)));
                assert!(!session.is_done());
            }
            (_, other) => panic!("{other:?}"),
        }
    }
}

/// A server that is written to without a pause does not keep a session open for ever.
#[test]
fn a_server_that_moves_for_ever_is_given_up() {
    let own = numbered(1000);
    let lost = without(&own, 500);
    let mut session = session(32);
    for i in 0..130 {
        let state = if i % 2 == 0 { &lost } else { &own };
        match turn(&mut session, &own, (state, i)) {
            // a list is conclusive: then the session ends well
            None => return,
            Some((_, Ok(_))) => {}
            Some((_, Err(error))) => {
                assert_eq!(error, TurnError::Peer(PeerMisbehaved::NoProgress));
                return;
            }
        }
    }
    panic!("it goes on");
}

#[test]
fn what_the_replica_itself_changed_is_no_contradiction() {
    let own = numbered(1000);
    let lost = without(&own, 500);
    for digest_len in [5, 32] {
        let mut session = session(digest_len);
        turn(&mut session, &own, (&lost, 1)).unwrap().1.unwrap();
        // it is lost here as well now
        turn(&mut session, &lost, (&lost, 1)).unwrap().1.unwrap();
        assert!(turn(&mut session, &lost, (&lost, 1)).is_none());
    }
}

#[test]
fn a_difference_that_is_found_is_doubted_no_more() {
    let own = numbered(3000);
    let lost = without(&without(&own, 500), 2500);
    for digest_len in [5, 32] {
        let mut session = session(digest_len);
        let mut lacking = 0;
        while let Some((_, step)) = turn(&mut session, &own, (&lost, 1)) {
            lacking += step.unwrap().lacking.len();
        }
        assert_eq!((lacking, session.rounds()), (2, 2));
    }
}

/// It once gave way to a Snapshot of everything as soon as each part of the
/// first answer held a difference: ten times what differed.
#[test]
fn however_much_differs_a_session_finds_just_that() {
    let scattered = |i: u64| {
        let word = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Digest(std::array::from_fn(|at| (word >> (8 * (at % 8))) as u8))
    };
    for every in [1, 2, 10] {
        let own = Tree::from_sorted((0..5000).map(|i| (name(i), scattered(i))));
        let mut server = own.clone();
        for i in (0..5000).step_by(every) {
            server.remove(&name(i));
        }
        server.settle();
        let mut session = session(5);
        let mut lacking = 0;
        while let Some((_, step)) = turn(&mut session, &own, (&server, 1)) {
            lacking += step.unwrap().lacking.len();
        }
        assert_eq!(lacking, 5000 / every);
        // a request of the least size that must be taken lists 1,000 items
        assert!(session.rounds() <= 8, "{} rounds", session.rounds());
    }
}
