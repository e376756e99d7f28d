//! Compaction: what the horizon may and may not do, and what is left of
//! tombstones below it. Needs a server that compacts on demand.

use crate::oracle::{Record, range_state, reason_name};
use crate::schema::v1;
use crate::server::{Cx, Space, everything, held, key_range, time};
use crate::suite::{Case, Need, Profile, Stop, positive};
use v1::Outcome::{Applied, Superseded, Unchanged};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "compaction/none-yet",
        profile: Profile::Core,
        needs: &[],
        about: "A space of which nothing was ever compacted, empty and with tombstones.",
        checks: &[positive(
            "zero",
            &["HIST-021", "HIST-048"],
            "its horizon is 0 in Hello, Push, Snapshot and Watch",
        )],
        run: |cx| Box::pin(none_yet(cx)),
    },
    Case {
        name: "compaction/bounds",
        profile: Profile::Heal,
        needs: &[Need::Compact],
        about: "Compaction is asked for up to a time beyond the newest version, then for an earlier one.",
        checks: &[
            positive(
                "not-above-newest",
                &["HIST-024"],
                "the horizon does not rise above the newest version",
            ),
            positive("not-lowered", &["HIST-023"], "and does not fall again"),
            positive(
                "puts-stay",
                &["HIST-025"],
                "records that are no tombstones are all there, however old",
            ),
        ],
        run: |cx| Box::pin(bounds(cx)),
    },
    Case {
        name: "compaction/old-tombstone-comes",
        profile: Profile::Heal,
        needs: &[Need::Compact],
        about: "After a compaction a replica that is not behind pushes a tombstone below the horizon.",
        checks: &[
            positive("applied", &["HIST-042"], "it is APPLIED"),
            positive(
                "not-counted",
                &["HIST-029", "MERKLE-003"],
                "fingerprint and count leave it out",
            ),
            positive("not-sent", &["SNAP-008"], "Snapshot does not send it"),
            positive("followed", &["WATCH-005"], "Watch does"),
            positive(
                "deletes",
                &["MODEL-018"],
                "the older record under its key is gone",
            ),
        ],
        run: |cx| Box::pin(old_tombstone(cx)),
    },
    Case {
        name: "compaction/behind-is-served",
        profile: Profile::Heal,
        needs: &[Need::Compact, Need::Reconcile],
        about: "A replica behind the compaction calls everything but Watch.",
        checks: &[
            positive("hello", &["HELLO-019"], "Hello tells that it is behind"),
            positive(
                "push",
                &["PUSH-008", "PUSH-034"],
                "Push is answered, and tells it",
            ),
            positive(
                "snapshot",
                &["SNAP-004", "SNAP-005"],
                "Snapshot is served, and tells it",
            ),
            positive(
                "reconcile",
                &["RECON-014", "RECON-016"],
                "Reconcile is answered, and tells it",
            ),
        ],
        run: |cx| Box::pin(behind_is_served(cx)),
    },
    Case {
        name: "compaction/horizon-named",
        profile: Profile::Heal,
        needs: &[Need::Compact, Need::Reconcile],
        about: "After a compaction, all answers that carry fingerprints.",
        checks: &[
            positive("raised", &["HIST-022"], "Hello tells a horizon above 0"),
            positive(
                "snapshot",
                &["HIST-030"],
                "Snapshot names the horizon for which its fingerprint is right",
            ),
            positive("checkpoint", &["HIST-030"], "so does a checkpoint"),
            positive("reconcile", &["HIST-030"], "so does Reconcile"),
        ],
        run: |cx| Box::pin(horizon_named(cx)),
    },
    Case {
        name: "compaction/retention",
        profile: Profile::Heal,
        needs: &[Need::Compact, Need::Retention, Need::Clock],
        about: "Two old tombstones, of which one arrived two hours before the other; what arrived within the last hour is to be kept.",
        checks: &[
            positive("old-goes", &["HIST-028"], "the first is compacted"),
            positive("young-stays", &["HIST-026"], "the second is not"),
            positive(
                "still-beats",
                &["HIST-026", "PUSH-015"],
                "it supersedes what it deleted",
            ),
        ],
        run: |cx| Box::pin(retention(cx)),
    },
    Case {
        name: "compaction/after-restart",
        profile: Profile::Heal,
        needs: &[Need::Compact, Need::Kill],
        about: "The server is killed after a compaction, and started again.",
        checks: &[
            positive("horizon", &["HIST-022"], "the horizon is the same"),
            positive(
                "behind",
                &["HIST-028"],
                "a cursor before the compacted tombstone is behind, as before",
            ),
        ],
        run: |cx| Box::pin(after_restart(cx)),
    },
    Case {
        name: "compaction/horizon-ahead-of-clock",
        profile: Profile::Heal,
        needs: &[Need::Compact, Need::Stop, Need::Limits],
        about: "The horizon lies further ahead than the skew that the server now allows.",
        checks: &[
            positive(
                "unchanged",
                &["CLOCK-009"],
                "what the server holds is UNCHANGED, though ahead",
            ),
            positive(
                "superseded",
                &["CLOCK-009"],
                "what it beats is SUPERSEDED, though ahead",
            ),
            positive(
                "at-horizon",
                &["CLOCK-010"],
                "a version at the horizon is APPLIED",
            ),
            positive(
                "above",
                &["CLOCK-005"],
                "one above it is REJECTED CLOCK_SKEW",
            ),
        ],
        run: |cx| Box::pin(ahead_of_clock(cx)),
    },
];

async fn none_yet(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    for round in 0..2 {
        let hello = cx.hello(&space.hello_request(vec![])).await.good()?;
        cx.equal("zero", Some(0), hello.position.map(|p| p.horizon));
        let seen = cx
            .snapshot(&space.snapshot_request(vec![everything()]))
            .await?;
        cx.equal("zero", Some(0), seen.start.position.map(|p| p.horizon));
        let seen = cx.catch_up(&space.catch_up_request(None)).await?;
        let checkpoint = seen.checkpoints.first().and_then(|c| c.position);
        cx.equal("zero", Some(0), checkpoint.map(|p| p.horizon));
        if round == 0 {
            let pushed = space
                .seed(&[
                    Record::tombstone("a", time(1), 1),
                    Record::put("b", time(9), 1, "v"),
                ])
                .await?;
            cx.equal("zero", Some(0), pushed.position.map(|p| p.horizon));
        }
    }
    Ok(())
}

fn head(answer: &v1::PushResponse) -> Result<v1::Cursor, Stop> {
    answer
        .position
        .and_then(|p| p.head)
        .ok_or_else(|| Stop::Peer("Push without position.head".into()))
}

/// Two records, the first of which is deleted; the cursor between.
async fn deleted(space: &mut Space) -> Result<v1::Cursor, Stop> {
    let first = space
        .seed(&[
            Record::put("a", time(1), 1, "v"),
            Record::put("old", time(2), 1, "v"),
        ])
        .await?;
    space.seed(&[Record::tombstone("a", time(10), 1)]).await?;
    space.seed(&[Record::put("b", time(9_000), 1, "v")]).await?;
    head(&first)
}

async fn horizon_of(space: &Space) -> Result<u64, Stop> {
    let hello = space.cx.hello(&space.hello_request(vec![])).await.good()?;
    Ok(hello.position.map_or(0, |p| p.horizon))
}

async fn bounds(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    deleted(&mut space).await?;
    cx.compact(&space.id, time(1_000_000) >> 16).await?;
    let high = horizon_of(&space).await?;
    cx.check(
        "not-above-newest",
        high > 0 && high <= time(9_000),
        format!("above 0, at most {}", time(9_000)),
        high,
    );
    cx.compact(&space.id, time(20) >> 16).await?;
    cx.equal("not-lowered", high, horizon_of(&space).await?);
    space.verify("puts-stay").await;
    Ok(())
}

async fn old_tombstone(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    deleted(&mut space).await?;
    cx.compact(&space.id, time(5_000) >> 16).await?;
    let seen = cx
        .snapshot(&space.snapshot_request(vec![everything()]))
        .await?;
    let cursor = seen.start.position.and_then(|p| p.head);
    let late = Record::tombstone("old", time(50), 2);
    let request = v1::PushRequest {
        held: vec![held(vec![everything()], cursor)],
        ..space.push_request(std::slice::from_ref(&late))
    };
    let answer = cx.push(&request).await.good()?;
    cx.equal(
        "applied",
        Some(Applied),
        answer.verdicts.first().map(v1::Verdict::outcome),
    );
    let seen = cx
        .snapshot(&space.snapshot_request(vec![everything()]))
        .await?;
    let sent = seen.records();
    cx.check(
        "not-sent",
        !sent.iter().any(Record::is_tombstone),
        "no tombstone",
        format!("{sent:?}"),
    );
    cx.check(
        "deletes",
        !sent.iter().any(|r| r.key == b"old" && !r.is_tombstone()),
        "no record under the key",
        format!("{sent:?}"),
    );
    // only "b" is left to be counted
    let kept = [Record::put("b", time(9_000), 1, "v")];
    let (count, fingerprint) = range_state(kept.iter(), &everything(), 0);
    let states = vec![v1::RangeState {
        count,
        fingerprint: fingerprint.to_vec(),
    }];
    let with_states = !space.states(&[&everything()]).is_empty();
    cx.equal(
        "not-counted",
        if with_states { states } else { vec![] },
        seen.complete.ranges,
    );
    let seen = cx.catch_up(&space.catch_up_request(cursor)).await?;
    cx.equal("followed", vec![late], seen.records());
    Ok(())
}

async fn behind_is_served(cx: Cx) -> Result<(), Stop> {
    use crate::oracle::descent::{Ask, Part, ask};
    let mut space = Space::fresh(&cx);
    let behind = deleted(&mut space).await?;
    cx.compact(&space.id, time(5_000) >> 16).await?;
    let scope = || vec![held(vec![everything()], Some(behind))];
    let told = |held: &[v1::HistoryStatus]| held.iter().map(|s| s.behind_compaction).collect();
    let hello = cx.hello(&space.hello_request(scope())).await.good()?;
    let h = hello.position.map_or(0, |p| p.horizon);
    cx.equal("hello", vec![true], told(&hello.held));
    let request = v1::PushRequest {
        held: scope(),
        ..space.push_request(&[Record::put("new", time(9_100), 1, "v")])
    };
    let answer = cx.push(&request).await.good()?;
    cx.equal("push", vec![true], told(&answer.held));
    let request = v1::SnapshotRequest {
        held: scope(),
        ..space.snapshot_request(vec![everything()])
    };
    let seen = cx.snapshot(&request).await?;
    cx.equal("snapshot", vec![true], told(&seen.start.held));
    let mut request = v1::ReconcileRequest {
        space: space.id.clone(),
        held: scope(),
        horizon: h,
        salt: cx.random(),
        turns_left: 2,
        ..v1::ReconcileRequest::default()
    };
    let part = Part {
        range: everything(),
        ask: Ask::Fingerprint,
    };
    ask(&mut request, &[part], &space.records);
    let answer = super::session::call(&space, &request).await?;
    cx.equal("reconcile", vec![true], told(&answer.held));
    Ok(())
}

async fn horizon_named(cx: Cx) -> Result<(), Stop> {
    use crate::oracle::descent::{Ask, Part, ask};
    let mut space = Space::fresh(&cx);
    deleted(&mut space).await?;
    cx.compact(&space.id, time(5_000) >> 16).await?;
    let h = horizon_of(&space).await?;
    cx.check("raised", h > 0, "a horizon above 0", h);
    let (count, fingerprint) = range_state(space.records.values(), &everything(), h);
    let states = vec![v1::RangeState {
        count,
        fingerprint: fingerprint.to_vec(),
    }];
    let named = |position: Option<v1::Position>| position.map_or(0, |p| p.horizon);
    let seen = cx
        .snapshot(&space.snapshot_request(vec![everything()]))
        .await?;
    let told = (named(seen.start.position), &seen.complete.ranges);
    cx.equal("snapshot", (h, &states), told);
    let cursor = seen.start.position.and_then(|p| p.head);
    let seen = cx.catch_up(&space.catch_up_request(cursor)).await?;
    let checkpoint = seen.checkpoints.first().cloned().unwrap_or_default();
    let told = (named(checkpoint.position), &checkpoint.ranges);
    cx.equal("checkpoint", (h, &states), told);
    let mut request = v1::ReconcileRequest {
        space: space.id.clone(),
        held: vec![held(vec![everything()], cursor)],
        horizon: h,
        salt: cx.random(),
        turns_left: 2,
        ..v1::ReconcileRequest::default()
    };
    let part = Part {
        range: everything(),
        ask: Ask::Fingerprint,
    };
    ask(&mut request, &[part], &space.records);
    let answer = super::session::call(&space, &request).await?;
    cx.equal("reconcile", h, named(answer.position));
    Ok(())
}

async fn retention(cx: Cx) -> Result<(), Stop> {
    const HOUR_MS: u64 = 3_600_000;
    let mut space = Space::fresh(&cx);
    let gone = [("old", time(10)), ("young", time(20))].map(|(key, at)| {
        (
            Record::put(key, time(1), 1, "v"),
            Record::tombstone(key, at, 1),
        )
    });
    let [(old, old_gone), (young, young_gone)] = gone;
    let behind = head(&space.seed(&[old, young.clone()]).await?)?;
    let between = head(&space.seed(&[old_gone]).await?)?;
    cx.set_server_clock(2 * HOUR_MS as i64).await?;
    let judged = async {
        let newest = Record::put("newest", time(9_000), 1, "v");
        space.seed(&[young_gone.clone(), newest]).await?;
        cx.compact_sparing(&space.id, time(5_000) >> 16, HOUR_MS)
            .await?;
        let request = space.hello_request(vec![
            held(vec![key_range("a", "b")], Some(behind)),
            held(vec![key_range("c", "d")], Some(between)),
        ]);
        let hello = cx.hello(&request).await.good()?;
        let told: Vec<bool> = hello.held.iter().map(|s| s.behind_compaction).collect();
        cx.equal("old-goes", Some(&true), told.first());
        cx.equal("young-stays", Some(&false), told.get(1));
        let seen = cx.catch_up(&space.catch_up_request(Some(between))).await;
        let came = seen.is_ok_and(|seen| seen.records().contains(&young_gone));
        cx.check("young-stays", came, "Watch brings it", "it does not");
        let again = v1::PushRequest {
            held: vec![held(vec![everything()], Some(between))],
            ..space.push_request(&[young])
        };
        let answer = cx.push(&again).await.good()?;
        let verdict = answer.verdicts.into_iter().next().unwrap_or_default();
        cx.equal(
            "still-beats",
            (Superseded, Some(young_gone.to_wire())),
            (verdict.outcome(), verdict.winner),
        );
        Ok(())
    };
    let result = judged.await;
    cx.set_server_clock(0).await?;
    result
}

async fn after_restart(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let behind = deleted(&mut space).await?;
    cx.compact(&space.id, time(5_000) >> 16).await?;
    let before = horizon_of(&space).await?;
    cx.kill_server().await?;
    cx.start_server().await?;
    cx.check(
        "horizon",
        before > 0 && horizon_of(&space).await? == before,
        before,
        horizon_of(&space).await?,
    );
    let request = space.hello_request(vec![held(vec![everything()], Some(behind))]);
    let hello = cx.hello(&request).await.good()?;
    let told = hello.held.first().map(|s| s.behind_compaction);
    cx.equal("behind", Some(true), told);
    Ok(())
}

async fn ahead_of_clock(cx: Cx) -> Result<(), Stop> {
    let minutes = |n: u64| n * 60_000;
    let wide = [("max_clock_skew_ms", minutes(10))];
    let made = cx.with_limits(&wide, |cx| async move {
        let mut own = Space::fresh(&cx);
        let hello = cx.hello(&own.hello_request(vec![])).await.good()?;
        let at = hello.server_time_ms.saturating_add(minutes(8)) << 16;
        own.seed(&[
            Record::put("k", at, 5, "v"),
            Record::tombstone("gone", at - 1, 5),
        ])
        .await?;
        cx.compact(&own.id, at >> 16).await?;
        Ok((own, at))
    });
    let (space, at) = made.await?;
    cx.with_limits(&[("max_clock_skew_ms", minutes(1))], |cx| async move {
        let h = horizon_of(&space).await?;
        let push = async |record: Record| -> Result<(v1::Outcome, &'static str), Stop> {
            let answer = space.push(&[record]).await.good()?;
            let verdict = answer.verdicts.into_iter().next().unwrap_or_default();
            Ok((verdict.outcome(), reason_name(verdict.reason)))
        };
        let held = push(Record::put("k", at, 5, "v")).await?;
        cx.equal("unchanged", (Unchanged, ""), held);
        let beaten = push(Record::put("k", at, 4, "w")).await?;
        cx.equal("superseded", (Superseded, ""), beaten);
        let at_horizon = push(Record::put("re-stamped", h, 1, "v")).await?;
        cx.equal("at-horizon", (Applied, ""), at_horizon);
        let above = push(Record::put("above", h + 1, 1, "v")).await?;
        cx.equal("above", (v1::Outcome::Rejected, "CLOCK_SKEW"), above);
        Ok(())
    })
    .await
}
