//! What survives restarts, crashes, restored backups, compaction. These cases
//! run only where the server can be controlled.

use crate::net::Reply;
use crate::oracle::descent::{Ask, Part, ask};
use crate::oracle::{Record, reason_name};
use crate::schema::v1;
use crate::server::{Cx, Options, Space, everything, held, time};
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use prost::Message;
use v1::Outcome::{Applied, Rejected};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "resume/restart",
        profile: Profile::Core,
        needs: &[Need::Stop],
        about: "The server is stopped and started again.",
        checks: &[
            positive("records", &["PUSH-018"], "all records are there"),
            positive(
                "same-epoch",
                &["HIST-010"],
                "the epoch is the same, and the cursor SAME",
            ),
            positive(
                "goes-on",
                &["HIST-001"],
                "the next sequence follows without a gap",
            ),
        ],
        run: |cx| Box::pin(restart(cx, false)),
    },
    Case {
        name: "resume/killed",
        profile: Profile::Core,
        needs: &[Need::Kill],
        about: "The server is killed right after acknowledging, and started again.",
        checks: &[
            positive("records", &["PUSH-018"], "everything acknowledged is there"),
            positive(
                "same-epoch",
                &["HIST-010"],
                "the epoch is the same, and the cursor SAME",
            ),
            positive(
                "goes-on",
                &["HIST-001"],
                "the next sequence follows without a gap",
            ),
        ],
        run: |cx| Box::pin(restart(cx, true)),
    },
    Case {
        name: "resume/restored",
        profile: Profile::Heal,
        needs: &[Need::Backup, Need::Stop],
        about: "A backup is restored that lacks the last commits.",
        checks: &[
            positive("new-epoch", &["HIST-011"], "the epoch is another"),
            positive(
                "restore-point",
                &["HIST-012", "HIST-013", "HELLO-020"],
                "the old epoch is listed with the sequence of the backup",
            ),
            positive(
                "restore-points-alike",
                &["HIST-047"],
                "Reconcile, Snapshot and a refused Watch list what Hello lists",
            ),
            positive(
                "rewound",
                &["HIST-015"],
                "a cursor beyond the backup is REWOUND, mapped to it",
            ),
            positive(
                "within",
                &["HIST-015"],
                "a cursor within the backup is REWOUND, mapped to itself",
            ),
            negative(
                "watch-refused",
                "rewound",
                &["WATCH-001"],
                "Watch from the old cursor is HISTORY_CHANGED",
            ),
            positive(
                "refilled",
                &["PUSH-010"],
                "what was lost can be pushed again, with its versions",
            ),
        ],
        run: |cx| Box::pin(restored(cx)),
    },
    Case {
        name: "resume/wiped",
        profile: Profile::Heal,
        needs: &[Need::Wipe, Need::Stop],
        about: "The server comes back with an empty store.",
        checks: &[
            positive("new-epoch", &["HIST-010"], "the epoch is another"),
            positive("unknown", &["HIST-015"], "the old cursor is UNKNOWN"),
            positive(
                "refilled",
                &["HIST-043"],
                "everything can be pushed again, with its versions",
            ),
        ],
        run: |cx| Box::pin(wiped(cx)),
    },
    Case {
        name: "history/ahead",
        profile: Profile::Core,
        needs: &[],
        about: "All calls with a cursor beyond the head.",
        checks: &[positive(
            "one-answer",
            &["HIST-017", "HIST-018"],
            "either all are refused with LAGGING, or all tell LINEAGE_UNKNOWN: a server is authoritative or it is not",
        )],
        run: |cx| Box::pin(ahead(cx)),
    },
    Case {
        name: "compaction/horizon",
        profile: Profile::Heal,
        needs: &[Need::Compact],
        about: "Old tombstones are compacted; replicas that were behind and that were not come back.",
        checks: &[
            positive("horizon", &["HIST-022"], "the horizon rises"),
            positive(
                "gone",
                &["SNAP-008", "HIST-029"],
                "old tombstones are neither sent nor counted, newer ones are",
            ),
            positive(
                "behind-told",
                &["HIST-028", "HIST-015"],
                "a cursor before the compacted tombstone is behind",
            ),
            positive("ahead-told", &["HIST-015"], "a cursor after it is not"),
            negative(
                "watch-refused",
                "ahead-told",
                &["WATCH-001"],
                "Watch from the one behind is HISTORY_CHANGED",
            ),
            negative(
                "old-refused",
                "new-welcome",
                &["HIST-042"],
                "from one behind a record below the horizon is REJECTED BEHIND_COMPACTION",
            ),
            positive(
                "new-welcome",
                &["HIST-043"],
                "from one behind a record at the horizon is APPLIED",
            ),
            positive(
                "caught-up-welcome",
                &["HIST-042"],
                "from one that is not behind a record below the horizon is APPLIED",
            ),
        ],
        run: |cx| Box::pin(horizon(cx)),
    },
];

fn position(answer: &v1::PushResponse) -> Result<v1::Cursor, Stop> {
    answer
        .position
        .and_then(|p| p.head)
        .ok_or_else(|| Stop::Peer("Push without position.head".into()))
}

async fn status(
    space: &Space,
    cursor: v1::Cursor,
) -> Result<(v1::HelloResponse, v1::HistoryStatus), Stop> {
    let request = space.hello_request(vec![held(vec![everything()], Some(cursor))]);
    let answer = space.cx.hello(&request).await.good()?;
    let status = answer
        .held
        .first()
        .copied()
        .ok_or_else(|| Stop::Peer("Hello without status".into()))?;
    Ok((answer, status))
}

async fn restart(cx: Cx, kill: bool) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let mut last = v1::PushResponse::default();
    for n in 0..5u64 {
        let batch: Vec<Record> = (0..4)
            .map(|i| Record::put(format!("{n}-{i}"), time(n), 1, vec![b'x'; 500]))
            .collect();
        last = space.seed(&batch).await?;
    }
    let cursor = position(&last)?;
    if kill {
        cx.kill_server().await?;
    } else {
        cx.stop_server().await?;
    }
    cx.start_server().await?;
    space.verify("records").await;
    let (answer, status) = status(&space, cursor).await?;
    let epoch = answer.position.and_then(|p| p.head).map(|h| h.epoch);
    cx.equal(
        "same-epoch",
        (Some(cursor.epoch), v1::Lineage::Same, cursor.sequence),
        (epoch, status.lineage(), status.mapped_sequence),
    );
    let next = space.seed(&[Record::put("next", time(9), 1, "v")]).await?;
    cx.equal(
        "goes-on",
        cursor.sequence.saturating_add(1),
        position(&next)?.sequence,
    );
    Ok(())
}

async fn restored(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let early = space.seed(&[Record::put("a", time(1), 1, "early")]).await?;
    let kept = position(&space.seed(&[Record::put("b", time(2), 1, "kept")]).await?)?;
    cx.backup("conf-backup").await?;
    let in_backup = space.records.clone();
    let lost = [
        Record::put("a", time(3), 1, "lost"),
        Record::put("c", time(3), 1, "lost"),
    ];
    let beyond = position(&space.seed(&lost).await?)?;
    cx.stop_server().await?;
    cx.restore("conf-backup").await?;
    cx.forget(&space.id);
    cx.start_server().await?;
    let (answer, at_beyond) = status(&space, beyond).await?;
    let head = answer
        .position
        .and_then(|p| p.head)
        .ok_or_else(|| Stop::Peer("Hello without position.head".into()))?;
    cx.check(
        "new-epoch",
        head.epoch != kept.epoch,
        "another epoch",
        format!("{:x}", head.epoch),
    );
    let point = answer.restore_points.iter().find(|p| p.epoch == kept.epoch);
    cx.equal(
        "restore-point",
        Some(kept.sequence),
        point.map(|p| p.sequence),
    );
    let told = lineages(&cx, &space, beyond).await?;
    let as_hello = |t: &(_, Option<Vec<_>>)| t.1.as_ref() == Some(&answer.restore_points);
    cx.check(
        "restore-points-alike",
        told.iter().all(as_hello),
        format!("{:?} in each", answer.restore_points),
        format!("{told:?}"),
    );
    cx.equal(
        "rewound",
        (v1::Lineage::Rewound, kept.sequence),
        (at_beyond.lineage(), at_beyond.mapped_sequence),
    );
    let early = position(&early)?;
    let (_, at_early) = status(&space, early).await?;
    cx.equal(
        "within",
        (v1::Lineage::Rewound, early.sequence),
        (at_early.lineage(), at_early.mapped_sequence),
    );
    let reply = cx
        .stream_to_end(
            "Watch",
            &space.catch_up_request(Some(beyond)),
            &Options::default(),
        )
        .await;
    let restored = Space {
        records: in_backup,
        ..space.clone()
    };
    restored
        .refused("watch-refused", &reply, "HISTORY_CHANGED")
        .await;
    let answer = space.push(&lost).await.good()?;
    let applied = answer.verdicts.iter().all(|v| v.outcome() == Applied);
    let state = space.as_expected().await;
    cx.check(
        "refilled",
        applied && state.is_ok(),
        "APPLIED, and everything is there again",
        format!("{:?}, {state:?}", answer.verdicts),
    );
    Ok(())
}

/// The restore points that every message but Hello's answer lists, by the call;
/// none where the message did not come.
async fn lineages(
    cx: &Cx,
    space: &Space,
    cursor: v1::Cursor,
) -> Result<Vec<(&'static str, Option<Vec<v1::RestorePoint>>)>, Stop> {
    let options = Options::default();
    let scope = || vec![held(vec![everything()], Some(cursor))];
    let mut reconcile = v1::ReconcileRequest {
        space: space.id.clone(),
        held: scope(),
        ..v1::ReconcileRequest::default()
    };
    let part = Part {
        range: everything(),
        ask: Ask::Fingerprint,
    };
    ask(&mut reconcile, &[part], &space.records);
    let reconciled = cx
        .unary::<_, v1::ReconcileResponse>("Reconcile", &reconcile, &options)
        .await;
    let snapshot = v1::SnapshotRequest {
        held: scope(),
        ..space.snapshot_request(vec![])
    };
    let start = cx.snapshot(&snapshot).await?.start;
    let watch = space.catch_up_request(Some(cursor));
    let refused = cx.stream_to_end("Watch", &watch, &options).await;
    let detail = refused
        .status
        .as_ref()
        .and_then(crate::net::Status::history);
    Ok(vec![
        ("Reconcile", reconciled.message.map(|m| m.restore_points)),
        ("Snapshot", Some(start.restore_points)),
        ("Watch", detail.map(|d| d.restore_points)),
    ])
}

async fn wiped(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let records: Vec<Record> = (0..20)
        .map(|i| Record::put(format!("k{i:02}"), time(i), 1, "v"))
        .collect();
    let cursor = position(&space.seed(&records).await?)?;
    cx.stop_server().await?;
    cx.wipe().await?;
    cx.forget(&space.id);
    cx.start_server().await?;
    let (answer, status) = status(&space, cursor).await?;
    let epoch = answer.position.and_then(|p| p.head).map(|h| h.epoch);
    cx.check(
        "new-epoch",
        epoch.is_some_and(|e| e != cursor.epoch),
        "another epoch",
        format!("{epoch:x?}"),
    );
    cx.equal("unknown", v1::Lineage::Unknown, status.lineage());
    // as the replica that followed the old store sends them
    let request = v1::PushRequest {
        held: vec![held(vec![everything()], Some(cursor))],
        ..space.push_request(&records)
    };
    let answer = cx.push(&request).await.good()?;
    let applied = answer.verdicts.iter().all(|v| v.outcome() == Applied);
    let state = space.as_expected().await;
    cx.check(
        "refilled",
        applied && state.is_ok(),
        "APPLIED, and everything is there again",
        format!("{state:?}"),
    );
    Ok(())
}

/// What a server says to a cursor beyond its head.
fn said(reply: &Reply, told: Option<v1::Lineage>) -> &'static str {
    let status = reply.status.as_ref();
    let in_refusal = status
        .and_then(crate::net::Status::history)
        .and_then(|d| d.held.first().map(v1::HistoryStatus::lineage));
    match status.map(|s| s.reason.as_str()) {
        Some("LAGGING") => "LAGGING",
        Some("" | "HISTORY_CHANGED") if told.or(in_refusal) == Some(v1::Lineage::Unknown) => {
            "UNKNOWN"
        }
        _ => "something else",
    }
}

async fn ahead(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let head = position(&space.seed(&[Record::put("k", time(1), 1, "v")]).await?)?;
    let beyond = v1::Cursor {
        sequence: head.sequence.saturating_add(1_000),
        ..head
    };
    let scope = || vec![held(vec![everything()], Some(beyond))];
    let first = |held: &[v1::HistoryStatus]| held.first().map(v1::HistoryStatus::lineage);
    let options = Options::default();
    let mut all = Vec::new();
    let hello = cx.hello(&space.hello_request(scope())).await;
    let told = hello.message.and_then(|m| first(&m.held));
    all.push(("Hello", said(&hello.reply, told)));
    let push = v1::PushRequest {
        held: scope(),
        ..space.push_request(&[])
    };
    let push = cx.push(&push).await;
    let told = push.message.and_then(|m| first(&m.held));
    all.push(("Push", said(&push.reply, told)));
    let watch = space.catch_up_request(Some(beyond));
    let watch = cx.stream_to_end("Watch", &watch, &options).await;
    all.push(("Watch", said(&watch, None)));
    let snapshot = v1::SnapshotRequest {
        held: scope(),
        ..space.snapshot_request(vec![])
    };
    let reply = cx.stream_to_end("Snapshot", &snapshot, &options).await;
    let told = reply
        .messages
        .first()
        .and_then(|m| v1::SnapshotResponse::decode(m.clone()).ok())
        .and_then(|m| match m.event {
            Some(v1::snapshot_response::Event::Start(start)) => first(&start.held),
            _ => None,
        });
    all.push(("Snapshot", said(&reply, told)));
    if cx.target().meets(Need::Reconcile) {
        let mut request = v1::ReconcileRequest {
            space: space.id.clone(),
            held: scope(),
            ..v1::ReconcileRequest::default()
        };
        let part = Part {
            range: everything(),
            ask: Ask::Fingerprint,
        };
        ask(&mut request, &[part], &space.records);
        let answer = cx
            .unary::<_, v1::ReconcileResponse>("Reconcile", &request, &options)
            .await;
        let told = answer.message.and_then(|m| first(&m.held));
        all.push(("Reconcile", said(&answer.reply, told)));
    }
    let alike = |want| all.iter().all(|(_, said)| *said == want);
    cx.check(
        "one-answer",
        alike("LAGGING") || alike("UNKNOWN"),
        "LAGGING everywhere, or UNKNOWN everywhere",
        format!("{all:?}"),
    );
    Ok(())
}

async fn horizon(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let behind = position(
        &space
            .seed(&[
                Record::put("a", time(1), 1, "v"),
                Record::put("b", time(1), 1, "v"),
            ])
            .await?,
    )?;
    space
        .seed(&[Record::tombstone("a", time(1_000), 1)])
        .await?;
    let newer = Record::tombstone("b", time(9_000), 1);
    let ahead = position(
        &space
            .seed(&[newer, Record::put("c", time(9_000), 1, "v")])
            .await?,
    )?;
    let before_ms = time(5_000) >> 16;
    cx.compact(&space.id, before_ms).await?;
    let (answer, at_behind) = status(&space, behind).await?;
    let h = answer.position.map_or(0, |p| p.horizon);
    cx.equal("horizon", before_ms << 16, h);
    if h <= time(1_000) {
        return Err(Stop::Suite(
            "the compaction did not raise the horizon far enough for this case".into(),
        ));
    }
    // the compacted tombstone is gone; the expectation leaves it out by itself
    let state = space.as_expected().await;
    cx.check(
        "gone",
        state.is_ok(),
        "everything but the old tombstone",
        format!("{state:?}"),
    );
    cx.equal("behind-told", true, at_behind.behind_compaction);
    let (_, at_ahead) = status(&space, ahead).await?;
    cx.equal(
        "ahead-told",
        (v1::Lineage::Same, false),
        (at_ahead.lineage(), at_ahead.behind_compaction),
    );
    let reply = cx
        .stream_to_end(
            "Watch",
            &space.catch_up_request(Some(behind)),
            &Options::default(),
        )
        .await;
    space
        .refused("watch-refused", &reply, "HISTORY_CHANGED")
        .await;
    let push =
        async |record: &Record, cursor: v1::Cursor| -> Result<(v1::Outcome, &'static str), Stop> {
            let request = v1::PushRequest {
                held: vec![held(vec![everything()], Some(cursor))],
                ..space.push_request(std::slice::from_ref(record))
            };
            let answer = cx.push(&request).await.good()?;
            let verdict = answer.verdicts.first().cloned().unwrap_or_default();
            Ok((verdict.outcome(), reason_name(verdict.reason)))
        };
    let at_horizon = Record::put("x", h, 1, "at the horizon");
    cx.equal(
        "new-welcome",
        (Applied, ""),
        push(&at_horizon, behind).await?,
    );
    let below = Record::put("a", time(2), 2, "revived?");
    let got = push(&below, behind).await?;
    let mut after = space.clone();
    after.expect(&at_horizon);
    let state = after.as_expected().await;
    cx.check(
        "old-refused",
        got == (Rejected, "BEHIND_COMPACTION") && state.is_ok(),
        "REJECTED BEHIND_COMPACTION, and an unchanged space",
        format!("{got:?}, {state:?}"),
    );
    let below = Record::put("y", time(2), 2, "old but caught up");
    cx.equal(
        "caught-up-welcome",
        (Applied, ""),
        push(&below, ahead).await?,
    );
    Ok(())
}
