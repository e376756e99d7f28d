//! How streams end, and what comes after: delays that a server names, snapshots
//! whose end got lost or lied, grants that were withdrawn.

use super::rig::*;
use crate::engine::{Event, Phase, Request, Streamed, TokenNews};
use crate::transport::CallError;
use gosync_proto::{Reason, wire};
use wire::snapshot_response::Event as Snap;
use wire::watch_response::Event as Watched;

fn end(reason: Reason, retry_after_ms: u64) -> wire::StreamEnd {
    wire::StreamEnd {
        reason: reason.to_wire() as i32,
        retry_after_ms,
        ..wire::StreamEnd::default()
    }
}

/// A replica without records asks for a Snapshot, and gets all of it but the
/// end.
fn all_but_the_end() -> Rig {
    let mut rig = Rig::new();
    rig.online();
    rig.greet(Greeting {
        total: 1,
        ..Greeting::at(position(1, 9, 0))
    });
    rig.snapshot(Snap::Start(wire::SnapshotStart {
        position: Some(position(1, 9, 0).to_wire()),
        held: vec![same()],
        ..wire::SnapshotStart::default()
    }));
    rig.snapshot(Snap::Chunk(wire::SnapshotChunk {
        records: vec![record("a", 1, Some("v")).into()],
    }));
    let fingerprint = rig.fingerprint();
    rig.snapshot(Snap::Complete(wire::SnapshotComplete {
        ranges: vec![wire::RangeState {
            count: 1,
            fingerprint,
        }],
    }));
    rig
}

/// Its end was passed over, and the server called at once (WATCH-040).
#[test]
fn a_complete_snapshot_is_stored_before_its_end_is_obeyed() {
    let mut rig = all_but_the_end();
    rig.snapshot(Snap::End(end(Reason::Unavailable, 3_000)));
    assert_eq!(rig.engine.meta().ranges[0].cursor, Some(cursor(1, 9)));
    assert_eq!(rig.phase(), Phase::Waiting);
    assert!(rig.wait() >= 3_000);
    // nothing is taken twice
    rig.event(Event::Token(TokenNews::Ready));
    rig.greet(Greeting::at(position(1, 9, 0)));
    assert_eq!(rig.phase(), Phase::CatchingUp);
}

#[test]
fn a_complete_snapshot_needs_no_end() {
    for lost in [
        Streamed::Ended,
        Streamed::Failed(CallError::new(crate::transport::Cause::Status(14), "reset")),
    ] {
        let mut rig = all_but_the_end();
        rig.streamed(lost);
        assert_eq!(rig.engine.meta().ranges[0].cursor, Some(cursor(1, 9)));
        assert_eq!(rig.phase(), Phase::CatchingUp);
    }
}

#[test]
fn what_comes_after_the_end_of_a_snapshot_is_not_used() {
    let mut rig = all_but_the_end();
    rig.snapshot(Snap::Chunk(wire::SnapshotChunk {
        records: vec![record("b", 1, Some("planted")).into()],
    }));
    assert_eq!(rig.phase(), Phase::Waiting);
    assert_eq!(rig.clean().len(), 1);
    assert_eq!(rig.engine.meta().ranges[0].cursor, None);
}

/// Where records were held already, nobody compared what came with what the
/// server said of it (SNAP-021).
#[test]
fn a_snapshot_over_held_records_is_compared_by_what_came() {
    let own = record("a", 1, Some("v")).digest();
    for (fingerprint, phase) in [
        (own.0.to_vec(), Phase::Pushing),
        (vec![7; 32], Phase::Waiting),
    ] {
        let mut rig = Rig::new();
        rig.hold(vec![record("held", 1, Some("v"))], cursor(1, 4));
        rig.online();
        rig.greet(Greeting {
            status: status(wire::Lineage::Unknown, false),
            total: 1_000,
            ..Greeting::at(position(2, 9, 0))
        });
        assert_eq!(rig.phase(), Phase::Bootstrapping);
        rig.snapshot(Snap::Start(wire::SnapshotStart {
            position: Some(position(2, 9, 0).to_wire()),
            held: vec![status(wire::Lineage::Unknown, false)],
            ..wire::SnapshotStart::default()
        }));
        rig.snapshot(Snap::Chunk(wire::SnapshotChunk {
            records: vec![record("a", 1, Some("v")).into()],
        }));
        rig.snapshot(Snap::Complete(wire::SnapshotComplete {
            ranges: vec![wire::RangeState {
                count: 1,
                fingerprint,
            }],
        }));
        if rig.phase() == Phase::Bootstrapping {
            rig.snapshot(Snap::End(wire::StreamEnd::default()));
        }
        assert_eq!(rig.phase(), phase);
        assert_eq!(rig.clean().len(), 2, "what the server lacks is kept");
    }
}

/// It asked for the same Snapshot for ever and pushed nothing (CLIENT-052); and
/// whoever opened the store next took it for one that had broken off.
#[test]
fn a_replica_whose_first_snapshot_lies_pushes_all_the_same_and_forgets_it() {
    let mut rig = Rig::new();
    rig.put("mine", "v");
    rig.online();
    let greeting = || Greeting {
        total: 1,
        ..Greeting::at(position(1, 9, 0))
    };
    rig.greet(greeting());
    assert_eq!(rig.phase(), Phase::Bootstrapping);
    rig.snapshot(Snap::Start(wire::SnapshotStart {
        position: Some(position(1, 9, 0).to_wire()),
        held: vec![same()],
        ..wire::SnapshotStart::default()
    }));
    rig.snapshot(Snap::Chunk(wire::SnapshotChunk {
        records: vec![record("a", 1, Some("v")).into()],
    }));
    assert!(rig.meta().snapshot.is_some());
    rig.snapshot(Snap::Complete(wire::SnapshotComplete {
        ranges: vec![wire::RangeState {
            count: 1,
            fingerprint: vec![7; 32],
        }],
    }));
    assert_eq!(rig.phase(), Phase::Waiting);
    assert_eq!(rig.meta().snapshot, None);
    rig.wait();
    rig.event(Event::Token(TokenNews::Ready));
    rig.greet(greeting());
    assert_eq!(rig.phase(), Phase::Pushing);
    assert_eq!(rig.pushed().records[0].key, b"mine"[..]);
    rig.judge(position(1, 10, 0), vec![held(10)]);
    assert_eq!(rig.phase(), Phase::Bootstrapping);
    assert_eq!(rig.writes(), []);
}

/// A new session at once would have been a call before the delay was over
/// (CLIENT-034).
#[test]
fn a_changed_history_that_names_a_delay_is_followed_after_it() {
    let mut rig = Rig::new();
    rig.live();
    rig.watch(Watched::End(end(Reason::HistoryChanged, 3_000)));
    rig.event(Event::Token(TokenNews::Ready));
    assert_eq!(rig.phase(), Phase::Waiting);
    let calls = rig.calls.len();
    // not even when its user asks
    rig.event(Event::Sync);
    rig.event(Event::Token(TokenNews::Ready));
    assert_eq!(rig.calls.len(), calls);
    assert!(rig.wait() >= 3_000);
    rig.event(Event::Token(TokenNews::Ready));
    assert_eq!(rig.phase(), Phase::Connecting);
}

/// It asked its user to sign in, though the token might still read.
#[test]
fn a_withdrawn_grant_begins_a_new_session() {
    let mut rig = Rig::new();
    rig.live();
    rig.watch(Watched::End(end(Reason::NoAccess, 0)));
    assert_eq!(rig.phase(), Phase::Authenticating);
    rig.event(Event::Token(TokenNews::Ready));
    assert!(matches!(rig.last_call().1, Request::Hello(_)));
}

#[test]
fn the_second_new_session_within_a_minute_begins_after_a_pause() {
    let mut rig = Rig::new();
    rig.live();
    rig.watch(Watched::End(end(Reason::HistoryChanged, 0)));
    assert_eq!(rig.phase(), Phase::Authenticating);
    for (later, phase) in [(10_000, Phase::Waiting), (60_000, Phase::Authenticating)] {
        if rig.phase() == Phase::Waiting {
            rig.wait();
        }
        rig.event(Event::Token(TokenNews::Ready));
        rig.greet(Greeting::at(position(1, 0, 0)).equal());
        rig.now.mono_ms += later;
        rig.watch(Watched::End(end(Reason::HistoryChanged, 0)));
        assert_eq!(rig.phase(), phase);
    }
}
