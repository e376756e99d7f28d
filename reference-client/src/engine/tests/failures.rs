//! Everything that can go wrong, and what the engine does then.

use super::rig::*;
use crate::engine::{CAP_MS, CallId, Event, Notice, Phase, Request, Streamed, TokenNews};
use crate::replica::Fate;
use crate::store::StoreError;
use crate::transport::{CallError, Cause};
use gosync_proto::{Reason, wire};

fn fail(rig: &mut Rig, error: CallError) {
    rig.answer(Err(error));
}

#[test]
fn failures_without_a_reason_are_tried_again_with_growing_pauses() {
    let mut rig = Rig::new();
    rig.online();
    let mut pauses = Vec::new();
    for _ in 0..12 {
        // 2 is what a browser makes of every network failure
        fail(&mut rig, CallError::new(Cause::Status(2), "network"));
        assert_eq!(rig.phase(), Phase::Waiting);
        pauses.push(rig.wait());
        assert_eq!(rig.phase(), Phase::Authenticating);
        rig.event(Event::Token(TokenNews::Ready));
    }
    assert!(pauses[0] <= 250 && pauses[11] >= CAP_MS / 2);
    assert!(pauses.iter().all(|p| *p <= CAP_MS));
}

#[test]
fn the_servers_delay_is_kept() {
    let mut rig = Rig::new();
    rig.online();
    let error = CallError {
        retry_after_ms: Some(7_000),
        ..refused(Reason::RateLimited)
    };
    fail(&mut rig, error);
    // and not by all at the same moment (CLIENT-033)
    assert!((7_000..=14_000).contains(&rig.wait()));
}

#[test]
fn an_expired_token_is_renewed_once_and_then_the_user_is_asked() {
    let mut rig = Rig::new();
    rig.online();
    fail(&mut rig, refused(Reason::TokenExpired));
    assert_eq!(rig.asked, [false, true]);
    rig.event(Event::Token(TokenNews::Ready));
    fail(&mut rig, refused(Reason::Unauthenticated));
    assert_eq!(rig.phase(), Phase::NeedsAuth);
    assert_eq!(rig.engine.wake_at(), None);
    // the user signed in
    rig.event(Event::Online(true));
    rig.event(Event::Token(TokenNews::Ready));
    assert_eq!(rig.phase(), Phase::Connecting);
}

#[test]
fn a_token_that_expires_later_is_renewed_again() {
    let mut rig = Rig::new();
    rig.live();
    for round in 0..3 {
        rig.streamed(Streamed::Failed(refused(Reason::TokenExpired)));
        assert_eq!(rig.asked.last(), Some(&true), "round {round}");
        rig.event(Event::Token(TokenNews::Ready));
        rig.greet(Greeting::at(position(1, 0, 0)).equal());
        rig.checkpoint(position(1, 0, 0));
        assert_eq!(rig.phase(), Phase::Live);
    }
}

#[test]
fn no_token_means_that_the_user_is_asked_and_an_unreachable_issuer_is_tried_again() {
    let mut rig = Rig::new();
    rig.event(Event::Online(true));
    rig.event(Event::Token(TokenNews::Unavailable("down".into())));
    assert_eq!(rig.phase(), Phase::Waiting);
    rig.wait();
    rig.event(Event::Token(TokenNews::SignIn));
    assert_eq!(rig.phase(), Phase::NeedsAuth);
}

#[test]
fn reasons_that_only_people_can_mend_stop_the_engine() {
    for (reason, phase) in [
        (Reason::UnsupportedVersion, Phase::UpgradeRequired),
        (Reason::SpaceRetired, Phase::Stopped),
        (Reason::NoAccess, Phase::NeedsAuth),
    ] {
        let mut rig = Rig::new();
        rig.online();
        fail(&mut rig, refused(reason));
        assert_eq!(rig.phase(), phase, "{reason}");
        assert_eq!(rig.engine.wake_at(), None, "{reason}");
    }
}

#[test]
fn a_silent_stream_is_given_up() {
    let mut rig = Rig::new();
    rig.live();
    let watchdog = gosync_proto::limits::Limits::default().watchdog_ms;
    rig.now.mono_ms += watchdog - 1;
    rig.watch(wire::watch_response::Event::Heartbeat(wire::Heartbeat {
        server_time_ms: NOON,
        cursor: Some(cursor(1, 0).to_wire()),
    }));
    assert_eq!(rig.wait(), watchdog);
    assert_eq!(rig.phase(), Phase::Waiting);
    assert_eq!(rig.cancelled.len(), 1);
}

#[test]
fn a_call_without_an_answer_is_given_up_and_its_late_answer_ignored() {
    let mut rig = Rig::new();
    rig.online();
    let (late, _) = rig.last_call();
    rig.wait();
    assert_eq!(rig.phase(), Phase::Waiting);
    assert_eq!(rig.cancelled, [late]);
    let error = CallError::new(Cause::Status(16), "late");
    rig.event(Event::Answered(late, Box::new(Err(error))));
    assert_eq!(rig.phase(), Phase::Waiting);
}

#[test]
fn an_expired_stream_is_opened_again_at_once() {
    let mut rig = Rig::new();
    rig.live();
    rig.watch(wire::watch_response::Event::End(wire::StreamEnd {
        reason: Reason::StreamExpired.to_wire() as i32,
        ..wire::StreamEnd::default()
    }));
    assert_eq!(rig.phase(), Phase::Authenticating);
}

#[test]
fn a_stream_that_ends_in_silence_is_a_failure() {
    let mut rig = Rig::new();
    rig.live();
    rig.streamed(Streamed::Ended);
    assert_eq!(rig.phase(), Phase::Waiting);
}

#[test]
fn a_session_that_never_comes_to_rest_pauses() {
    let mut rig = Rig::new();
    rig.online();
    for _ in 0..20 {
        if rig.phase() == Phase::Waiting {
            return;
        }
        rig.event(Event::Token(TokenNews::Ready));
        fail(&mut rig, refused(Reason::HistoryChanged));
    }
    panic!("it goes round and round");
}

#[test]
fn records_dated_too_far_ahead_are_refused_and_the_cursor_stays() {
    let mut rig = Rig::new();
    rig.live();
    let ahead = (NOON + 301_000) << 16;
    rig.changes(vec![record("a", ahead, Some("v"))], Some(cursor(1, 1)));
    assert_eq!(rig.phase(), Phase::Waiting);
    assert_eq!(rig.clean(), []);
    assert_eq!(rig.engine.meta().ranges[0].cursor, Some(cursor(1, 0)));
}

/// `clocks`, seed 0 of the simulation: a server whose clock had run ahead had taken
/// such a record, and kept the replica out until that time came.
#[test]
fn a_record_that_the_servers_clock_allows_is_taken_however_far_ahead_of_ones_own() {
    let mut rig = Rig::new();
    rig.live();
    let hour = 3_600_000;
    rig.watch(wire::watch_response::Event::Heartbeat(wire::Heartbeat {
        server_time_ms: NOON + hour,
        cursor: None,
    }));
    let ahead = record("a", (NOON + hour) << 16, Some("v"));
    rig.changes(vec![ahead.clone()], Some(cursor(1, 1)));
    assert_eq!(rig.phase(), Phase::Live);
    assert_eq!(rig.clean(), [ahead]);
}

#[test]
fn what_no_correct_server_sends_is_refused() {
    let broken: Vec<fn(&mut Rig)> = vec![
        |rig| rig.changes(vec![], Some(cursor(2, 1))),
        |rig| {
            rig.changes(vec![], Some(cursor(1, 9)));
            rig.changes(vec![], Some(cursor(1, 8)));
        },
        |rig| {
            rig.watch(wire::watch_response::Event::Checkpoint(
                wire::Checkpoint::default(),
            ));
        },
        |rig| rig.checkpoint_of(position(1, 0, 0), vec![1, 2, 3]),
        |rig| {
            let no_version = wire::Record {
                key: b"k".to_vec(),
                ..wire::Record::default()
            };
            rig.watch(wire::watch_response::Event::Changes(wire::Changes {
                records: vec![no_version],
                cursor: Some(cursor(1, 1).to_wire()),
            }));
        },
        |rig| {
            rig.changes(vec![record("a", 1, Some("v"))], None);
            rig.checkpoint(position(1, 1, 0));
        },
    ];
    for (i, misbehave) in broken.into_iter().enumerate() {
        let mut rig = Rig::new();
        rig.live();
        misbehave(&mut rig);
        assert_eq!(rig.phase(), Phase::Waiting, "case {i}");
        assert_eq!(rig.clean(), [], "case {i}");
    }
}

#[test]
fn an_unknown_event_arm_is_ignored() {
    let mut rig = Rig::new();
    rig.live();
    rig.streamed(Streamed::Watch(wire::WatchResponse { event: None }));
    assert_eq!(rig.phase(), Phase::Live);
}

#[test]
fn a_write_that_was_sent_is_sent_again_unchanged() {
    let mut rig = Rig::new();
    rig.live();
    rig.put("k", "v");
    let first = rig.pushed().records.clone();
    fail(&mut rig, CallError::new(Cause::Status(14), "gone"));
    rig.put("k", "newer");
    rig.wait();
    rig.event(Event::Token(TokenNews::Ready));
    rig.greet(Greeting::at(position(1, 0, 0)).equal());
    // its fate has to be learnt before the next write of the key is sent
    assert_eq!(rig.pushed().records, first);
    rig.judge(position(1, 1, 0), vec![held(1)]);
    assert_eq!(rig.pushed().records[0].value, "newer");
}

#[test]
fn only_writes_refused_for_the_clock_get_new_versions() {
    let mut rig = Rig::new();
    rig.put("right", "v");
    rig.now.wall_ms += 3_600_000;
    rig.put("ahead", "v1");
    rig.put("ahead2", "v2");
    rig.now.wall_ms = NOON;
    let before = rig.writes();
    rig.online();
    rig.greet(Greeting::at(position(1, 0, 0)).equal());
    rig.judge(
        position(1, 0, 0),
        vec![
            rejected(Reason::Unavailable),
            rejected(Reason::ClockSkew),
            rejected(Reason::ClockSkew),
        ],
    );
    let after = rig.writes();
    assert_eq!(after[0], before[0]);
    for i in [1, 2] {
        let time = after[i].record.version.time;
        assert!(time.millis() <= NOON + 1, "{time:?}");
        assert!(time > after[i - 1].record.version.time);
    }
    // and so do later writes
    rig.put("later", "v");
    assert!(rig.writes()[3].record.version.time.millis() <= NOON + 1);
}

#[test]
fn what_got_a_new_version_is_sent_at_once_and_refused_again_after_a_pause() {
    let mut rig = Rig::new();
    rig.live();
    rig.now.wall_ms += 3_600_000;
    rig.put("ahead", "v");
    let at = position(1, 0, 0);
    rig.judge(at, vec![rejected(Reason::ClockSkew)]);
    let pushes = |rig: &Rig| {
        let push = |(_, _, r): &&(_, _, Request)| matches!(r, Request::Push(_));
        rig.calls.iter().filter(push).count()
    };
    assert_eq!(pushes(&rig), 2, "sent again at once");
    // the server refuses its own time: no endless exchange
    rig.judge(at, vec![rejected(Reason::ClockSkew)]);
    assert_eq!(pushes(&rig), 2, "refused again: after a pause");
    while pushes(&rig) == 2 {
        rig.wait();
    }
    rig.judge(position(1, 1, 0), vec![held(1)]);
    assert_eq!(rig.fates(), vec![Fate::Applied]);
}

#[test]
fn a_call_refused_for_its_records_is_split_until_the_culprit_is_found() {
    let mut rig = Rig::new();
    for i in 0..4 {
        rig.put(&format!("k{i}"), "v");
    }
    rig.online();
    rig.greet(Greeting::at(position(1, 0, 0)).equal());
    let mut sequence = 0;
    for _ in 0..20 {
        if rig.phase() != Phase::Pushing {
            break;
        }
        let records = rig.pushed().records.clone();
        if records.iter().any(|r| r.key == b"k2") {
            fail(&mut rig, refused(Reason::LimitExceeded));
        } else {
            sequence += 1;
            let verdicts = records.iter().map(|_| held(sequence)).collect();
            rig.judge(position(1, sequence, 0), verdicts);
        }
    }
    assert_eq!(rig.phase(), Phase::CatchingUp);
    assert_eq!(rig.clean().len(), 3);
    assert_eq!(rig.writes().len(), 1);
    let refusals = rig.fates();
    assert!(refusals.iter().any(|f| matches!(f, Fate::Rejected { .. })));
}

#[test]
fn healing_that_does_not_help_is_reported_and_not_tried_for_ever() {
    let mut rig = Rig::new();
    rig.hold(vec![record("a", 1, Some("v"))], cursor(1, 1));
    rig.online();
    rig.greet(Greeting {
        total: 1,
        ..Greeting::at(position(1, 1, 0))
    });
    let (mut sessions, mut snapshots, mut longest) = (0, 0, 0);
    for _ in 0..40 {
        match rig.phase() {
            // a server whose fingerprint says something else than its records
            Phase::CatchingUp | Phase::Live => rig.checkpoint_of(position(1, 1, 0), vec![9; 32]),
            Phase::Healing => {
                sessions += 1;
                rig.reconcile(&[record("a", 1, Some("v"))], position(1, 1, 0), same());
            }
            Phase::Bootstrapping => {
                snapshots += 1;
                use wire::snapshot_response::Event as Snap;
                rig.snapshot(Snap::Start(wire::SnapshotStart {
                    position: Some(position(1, 1, 0).to_wire()),
                    held: vec![same()],
                    ..wire::SnapshotStart::default()
                }));
                rig.snapshot(Snap::Chunk(wire::SnapshotChunk {
                    records: vec![record("a", 1, Some("v")).into()],
                }));
                rig.snapshot(Snap::Complete(wire::SnapshotComplete {
                    ranges: vec![wire::RangeState {
                        count: 1,
                        fingerprint: vec![9; 32],
                    }],
                }));
                rig.snapshot(Snap::End(wire::StreamEnd::default()));
            }
            Phase::Waiting if longest >= CAP_MS => break,
            Phase::Waiting => longest = rig.wait(),
            _ => {
                rig.event(Event::Token(TokenNews::Ready));
                rig.greet(Greeting {
                    total: 1,
                    ..Greeting::at(position(1, 1, 0))
                });
            }
        }
        if longest >= CAP_MS {
            break;
        }
    }
    assert!(longest >= CAP_MS, "it rests");
    assert_eq!(snapshots, 1, "what a snapshot does not help is left alone");
    assert!(sessions > 0 && !rig.verified());
    assert_eq!(rig.clean().len(), 1);
}

#[test]
fn a_failing_store_is_reported_and_opened_again() {
    let mut rig = Rig::new();
    rig.live();
    rig.event(Event::Wrote);
    rig.event(Event::Stored(Box::new(Err(StoreError::Full(
        "disk".into(),
    )))));
    assert_eq!(rig.phase(), Phase::StorageError);
    rig.wait();
    assert_eq!(rig.phase(), Phase::Authenticating);
}

#[test]
fn a_verification_that_is_asked_for_while_the_store_fails_gets_its_answer() {
    let mut rig = Rig::new();
    rig.live();
    rig.event(Event::Wrote);
    rig.event(Event::Stored(Box::new(Err(StoreError::Io("disk".into())))));
    rig.event(Event::Verify);
    rig.event(Event::Token(TokenNews::Ready));
    rig.greet(Greeting::at(position(1, 0, 0)).equal());
    rig.checkpoint(position(1, 0, 0));
    let verified = |n: &Notice| matches!(n, Notice::Verified(report) if report.equal);
    assert!(rig.notices.iter().any(verified), "{:?}", rig.notices);
}

#[test]
fn an_opening_that_was_displaced_no_longer_changes_anything() {
    let mut rig = Rig::new();
    rig.live();
    let mut other = Rig::on(rig.store.clone());
    // another opening, with another id, takes over
    futures::executor::block_on(crate::replica::upkeep::activate(
        &rig.store,
        gosync_proto::ReplicaId(8),
    ))
    .unwrap();
    rig.changes(vec![record("a", 1, Some("v"))], Some(cursor(1, 1)));
    assert_eq!(rig.phase(), Phase::Offline);
    assert_eq!(other.clean(), []);
    other.event(Event::Close);
}

/// Every event in every phase: nothing panics, and what came late is ignored.
#[test]
fn events_that_do_not_belong_to_a_phase_do_no_harm() {
    let reach: Vec<fn(&mut Rig)> = vec![
        |_| {},
        |rig| rig.event(Event::Online(true)),
        Rig::online,
        Rig::live,
        |rig| {
            rig.live();
            rig.streamed(Streamed::Ended);
        },
        |rig| {
            rig.online();
            rig.answer(Err(refused(Reason::NoAccess)));
        },
        |rig| {
            rig.online();
            rig.answer(Err(refused(Reason::UnsupportedVersion)));
        },
        |rig| {
            rig.hold(vec![record("a", 1, Some("v"))], cursor(5, 5));
            rig.online();
            rig.greet(Greeting {
                status: status(wire::Lineage::Unknown, true),
                total: 1,
                ..Greeting::at(position(1, 1, 0))
            });
            assert_eq!(rig.phase(), Phase::Healing);
        },
        |rig| {
            rig.online();
            rig.greet(Greeting {
                total: 9,
                ..Greeting::at(position(1, 1, 0))
            });
            assert_eq!(rig.phase(), Phase::Bootstrapping);
        },
        |rig| {
            rig.put("k", "v");
            rig.online();
            rig.greet(Greeting::at(position(1, 0, 0)).equal());
            assert_eq!(rig.phase(), Phase::Pushing);
        },
        |rig| rig.event(Event::Close),
    ];
    let events: Vec<fn(&Rig) -> Event> = vec![
        |_| Event::Online(true),
        |_| Event::Online(false),
        |_| Event::Sync,
        |_| Event::Verify,
        |_| Event::Wrote,
        |_| Event::Damaged(vec![key("a")]),
        |_| Event::Token(TokenNews::Ready),
        |_| Event::Token(TokenNews::SignIn),
        |_| Event::Tick,
        |_| Event::Answered(CallId(0), Box::new(Err(refused(Reason::Internal)))),
        |rig| answer_to_whatever(rig, crate::engine::Answer::Hello(Default::default())),
        |rig| answer_to_whatever(rig, crate::engine::Answer::Push(Default::default())),
        |rig| answer_to_whatever(rig, crate::engine::Answer::Reconcile(Default::default())),
        |rig| message_of_whatever(rig, Streamed::Watch(Default::default())),
        |rig| message_of_whatever(rig, Streamed::Snapshot(Default::default())),
        |rig| message_of_whatever(rig, Streamed::Ended),
        |_| Event::Close,
    ];
    for reach in &reach {
        for first in &events {
            for second in &events {
                let mut rig = Rig::new();
                reach(&mut rig);
                for event in [first, second] {
                    let event = event(&rig);
                    rig.event(event);
                }
                let waits = matches!(
                    rig.phase(),
                    Phase::Waiting | Phase::StorageError | Phase::Connecting
                );
                assert!(
                    !waits || rig.engine.wake_at().is_some(),
                    "{:?}",
                    rig.phase()
                );
            }
        }
    }
}

fn answer_to_whatever(rig: &Rig, answer: crate::engine::Answer) -> Event {
    let unary = |r: &Request| !matches!(r, Request::Watch(_) | Request::Snapshot(_));
    let id = rig.calls.iter().rev().find(|(_, _, r)| unary(r));
    Event::Answered(id.map_or(CallId(0), |c| c.0), Box::new(Ok(answer)))
}

fn message_of_whatever(rig: &Rig, message: Streamed) -> Event {
    let stream = |r: &Request| matches!(r, Request::Watch(_) | Request::Snapshot(_));
    let id = rig.calls.iter().rev().find(|(_, _, r)| stream(r));
    Event::Streamed(id.map_or(CallId(0), |c| c.0), Box::new(message))
}

#[test]
fn sync_and_verify_are_told_why_they_cannot_succeed() {
    let mut rig = Rig::new();
    rig.event(Event::Sync);
    rig.event(Event::Verify);
    let interrupted = |n: &&Notice| matches!(n, Notice::Interrupted(_));
    let count = |rig: &Rig| rig.notices.iter().filter(interrupted).count();
    assert_eq!(count(&rig), 2);

    // for good: nothing will ever answer
    let mut rig = Rig::new();
    rig.online();
    fail(&mut rig, refused(Reason::SpaceRetired));
    let before = count(&rig);
    rig.event(Event::Sync);
    rig.event(Event::Verify);
    assert_eq!(count(&rig), before + 2);
}

#[test]
fn whoever_asks_to_sync_again_and_again_does_not_hammer_the_server() {
    let mut rig = Rig::new();
    rig.online();
    for _ in 0..8 {
        fail(&mut rig, CallError::new(Cause::Status(14), "down"));
        rig.now.mono_ms += 10;
        rig.event(Event::Sync);
        assert_eq!(rig.phase(), Phase::Waiting);
        assert!(rig.wait() <= 990);
        rig.event(Event::Token(TokenNews::Ready));
    }
}
