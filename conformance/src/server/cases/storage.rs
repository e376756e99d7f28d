//! What the server's store does to its answers: damaged content, quotas, limits
//! other than the defaults, spaces that are deleted. Needs a controlled server.

use crate::oracle::descent::{Ask, Part, ask};
use crate::oracle::{Record, contains, reason_name};
use crate::schema::v1;
use crate::server::{Cx, Options, Space, everything, held, time};
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use std::collections::BTreeMap;
use v1::Outcome::{Applied, Rejected};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "damage/asked-back",
        profile: Profile::Heal,
        needs: &[Need::Stop, Need::Damage, Need::Reconcile],
        about: "The stored bytes of one record rot; it is read, and pushed again.",
        checks: &[
            positive(
                "not-served",
                &["MODEL-022", "MODEL-024", "SNAP-007"],
                "everything but the damaged record can be read, and never its spoilt content",
            ),
            positive(
                "wanted",
                &["MODEL-026", "SNAP-031"],
                "SnapshotStart lists its key as wanted",
            ),
            positive(
                "wanted-here",
                &["RECON-023", "RECON-053"],
                "Reconcile lists its key as wanted",
            ),
            positive(
                "out-of-fingerprint",
                &["MERKLE-003"],
                "fingerprints do not count it",
            ),
            positive(
                "taken-again",
                &["PUSH-011"],
                "the same record is APPLIED, not UNCHANGED",
            ),
            positive("healed", &["PUSH-018"], "afterwards everything is there"),
            positive(
                "no-longer-wanted",
                &["MODEL-026"],
                "and nothing is wanted any more",
            ),
        ],
        run: |cx| Box::pin(damaged(cx)),
    },
    Case {
        name: "damage/older-taken",
        profile: Profile::Heal,
        needs: &[Need::Stop, Need::Damage],
        about: "A replica has only an older version of the record that rotted.",
        checks: &[
            positive(
                "taken",
                &["PUSH-011", "MODEL-023"],
                "the older record is APPLIED: damaged content counts as absent",
            ),
            positive("there", &["PUSH-018"], "and stands"),
            positive(
                "still-wanted",
                &["MODEL-029"],
                "the key is wanted all the same: the newer one is still missed",
            ),
            positive(
                "settled",
                &["MODEL-026"],
                "it no longer is once a record as new as that is there",
            ),
        ],
        run: |cx| Box::pin(older_taken(cx)),
    },
    Case {
        name: "damage/watch",
        profile: Profile::Heal,
        needs: &[Need::Stop, Need::Damage],
        about: "A replica follows from the beginning over a record that rotted.",
        checks: &[positive(
            "not-served",
            &["MODEL-022", "MODEL-024"],
            "the others come, the spoilt content does not",
        )],
        run: |cx| Box::pin(watched(cx)),
    },
    Case {
        name: "push/storing-fails",
        profile: Profile::Core,
        needs: &[Need::FailWrites],
        about: "The server's storage fails while records are pushed, and works again.",
        checks: &[
            positive("before", &["PUSH-010"], "before, records are APPLIED"),
            negative(
                "failed",
                "before",
                &["PUSH-019"],
                "then the whole Push is refused with STORAGE, and nothing of it is there",
            ),
            positive(
                "after",
                &["PUSH-010", "PUSH-018"],
                "afterwards the same records are APPLIED",
            ),
        ],
        run: |cx| Box::pin(storing_fails(cx)),
    },
    Case {
        name: "quota/records",
        profile: Profile::Hardened,
        needs: &[Need::Stop, Need::Limits],
        about: "A space that may hold three records, and is full; another that already holds five.",
        checks: &[
            positive("within", &["LIMIT-002"], "three records are APPLIED"),
            negative(
                "beyond",
                "within",
                &["LIMIT-014", "PUSH-016"],
                "the fourth is REJECTED QUOTA_EXCEEDED",
            ),
            positive(
                "overwritten",
                &["PUSH-012"],
                "in the one that holds too many a record can be overwritten",
            ),
            positive("deleted", &["PUSH-012"], "and deleted"),
        ],
        run: |cx| Box::pin(quota_records(cx)),
    },
    Case {
        name: "quota/bytes",
        profile: Profile::Hardened,
        needs: &[Need::Stop, Need::Limits],
        about: "A space that may hold 1,000 bytes, and is full.",
        checks: &[
            positive("within", &["LIMIT-002"], "1,000 bytes are APPLIED"),
            negative(
                "beyond",
                "within",
                &["LIMIT-014"],
                "200 more are REJECTED QUOTA_EXCEEDED, and nothing is stored",
            ),
            positive(
                "smaller",
                &["PUSH-012"],
                "a smaller value over the large one is APPLIED",
            ),
            positive("room-again", &["LIMIT-002"], "then there is room again"),
        ],
        run: |cx| Box::pin(quota_bytes(cx)),
    },
    Case {
        name: "limits/at-the-floor",
        profile: Profile::Hardened,
        needs: &[Need::Stop, Need::Limits],
        about: "A server with every limit at its floor.",
        checks: &[
            positive("told", &["HELLO-013", "LIMIT-001"], "Hello tells them"),
            positive(
                "records",
                &["LIMIT-002"],
                "100 records in one Push are applied",
            ),
            positive("value", &["LIMIT-002"], "a value of 64 KiB is applied"),
            negative(
                "one-more",
                "records",
                &["PUSH-002", "LIMIT-004"],
                "101 records are LIMIT_EXCEEDED",
            ),
        ],
        run: |cx| Box::pin(at_the_floor(cx)),
    },
    Case {
        name: "limits/stream-lifetime",
        profile: Profile::Live,
        needs: &[Need::Stop, Need::Limits, Need::Live],
        about: "Streams may live for a second.",
        checks: &[
            positive("lives", &["WATCH-018"], "the stream begins like any other"),
            positive(
                "ends",
                &["LIMIT-014", "WATCH-036", "WATCH-037"],
                "it ends by itself with StreamEnd STREAM_EXPIRED and status OK",
            ),
        ],
        run: |cx| Box::pin(lifetime(cx)),
    },
    Case {
        name: "retired/refused",
        profile: Profile::Hardened,
        needs: &[Need::Retire],
        about: "An operator deletes a space; a replica that holds it comes back.",
        checks: &[
            positive("before", &["PUSH-010"], "before, it works"),
            negative(
                "calls",
                "before",
                &["MODEL-003"],
                "SPACE_RETIRED for Hello, Push, Watch and Snapshot",
            ),
            positive("others", &["MODEL-002"], "other spaces go on"),
        ],
        run: |cx| Box::pin(retired(cx)),
    },
];

fn verdict(answer: &v1::PushResponse, i: usize) -> Option<(v1::Outcome, &'static str)> {
    let verdict = answer.verdicts.get(i)?;
    Some((verdict.outcome(), reason_name(verdict.reason)))
}

fn five() -> Vec<Record> {
    (0..5)
        .map(|i| Record::put(format!("k{i}"), time(10), 1, format!("value {i}")))
        .collect()
}

/// Stops the server, spoils what it stores under `k2`, and starts it.
async fn spoil(space: &Space) -> Result<(), Stop> {
    let cx = &space.cx;
    cx.forget(&space.id);
    cx.stop_server().await?;
    let done = cx.damage_server(&space.id, b"k2").await;
    cx.start_server().await?;
    done
}

/// Whether each range ends before the next one begins.
fn ascending(ranges: &[v1::Range]) -> bool {
    ranges
        .windows(2)
        .all(|w| w[0].end.as_ref().is_some_and(|end| *end <= w[1].start))
}

/// Whether what was spoilt is in one of them.
fn is_k2(ranges: &[v1::Range]) -> bool {
    ranges.iter().any(|r| contains(r, b"k2"))
}

async fn damaged(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed(&five()).await?;
    spoil(&space).await?;
    let mut others = space.records.clone();
    let lost = others.remove(b"k2".as_slice());
    // a stream that meets the damage may end; the next one knows of it
    let request = space.snapshot_request(vec![everything()]);
    let mut seen = cx.snapshot(&request).await;
    for _ in 0..2 {
        if seen.is_err() {
            seen = cx.snapshot(&request).await;
        }
    }
    let seen = seen?;
    let others: Vec<Record> = others.into_values().collect();
    cx.equal("not-served", others.clone(), seen.records());
    cx.check(
        "wanted",
        is_k2(&seen.start.wanted) && ascending(&seen.start.wanted),
        "a range with k2, and no two that overlap",
        format!("{:?}", seen.start.wanted),
    );
    let (count, fingerprint) = crate::oracle::range_state(others.iter(), &everything(), 0);
    cx.equal(
        "out-of-fingerprint",
        vec![v1::RangeState {
            count,
            fingerprint: fingerprint.to_vec(),
        }],
        seen.complete.ranges,
    );
    let mut request = v1::ReconcileRequest {
        space: space.id.clone(),
        held: vec![held(vec![everything()], None)],
        salt: cx.random(),
        turns_left: 2,
        ..v1::ReconcileRequest::default()
    };
    let parts = vec![Part {
        range: everything(),
        ask: Ask::Items,
    }];
    ask(&mut request, &parts, &space.records);
    let answer: v1::ReconcileResponse = cx
        .unary("Reconcile", &request, &Options::default())
        .await
        .good()?;
    cx.check(
        "wanted-here",
        is_k2(&answer.wanted) && ascending(&answer.wanted),
        "a range with k2, and no two that overlap",
        format!("{:?}", answer.wanted),
    );
    let answer = space
        .push(&lost.into_iter().collect::<Vec<_>>())
        .await
        .good()?;
    cx.equal("taken-again", Some((Applied, "")), verdict(&answer, 0));
    space.verify("healed").await;
    let seen = cx
        .snapshot(&space.snapshot_request(vec![everything()]))
        .await?;
    cx.equal("no-longer-wanted", vec![], seen.start.wanted);
    Ok(())
}

async fn older_taken(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed(&five()).await?;
    spoil(&space).await?;
    let older = Record::put("k2", time(3), 2, "an older one");
    let answer = space.push(std::slice::from_ref(&older)).await.good()?;
    cx.equal("taken", Some((Applied, "")), verdict(&answer, 0));
    space.records.insert(older.key.clone(), older);
    space.verify("there").await;
    let request = space.snapshot_request(vec![everything()]);
    let wanted = cx.snapshot(&request).await?.start.wanted;
    cx.check(
        "still-wanted",
        is_k2(&wanted),
        "a range with k2",
        format!("{wanted:?}"),
    );
    let lost = five().into_iter().filter(|r| r.key == b"k2");
    let answer = space.push(&lost.collect::<Vec<_>>()).await.good()?;
    cx.equal("settled", Some((Applied, "")), verdict(&answer, 0));
    let request = space.snapshot_request(vec![everything()]);
    let wanted = cx.snapshot(&request).await?.start.wanted;
    cx.equal("settled", vec![], wanted);
    Ok(())
}

async fn watched(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed(&five()).await?;
    spoil(&space).await?;
    let seen = cx.catch_up(&space.catch_up_request(None)).await?;
    let got: BTreeMap<Vec<u8>, Record> = seen
        .records()
        .into_iter()
        .map(|r| (r.key.clone(), r))
        .collect();
    let mut want = space.records.clone();
    want.remove(b"k2".as_slice());
    cx.equal("not-served", want, got);
    Ok(())
}

async fn storing_fails(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed_as("before", &five()).await?;
    let more: Vec<Record> = (3..8)
        .map(|i| Record::put(format!("k{i}"), time(20), 2, "more"))
        .collect();
    cx.fail_writes(true).await?;
    let reply = space.push(&more).await.reply;
    space.refused("failed", &reply, "STORAGE").await;
    cx.fail_writes(false).await?;
    let answer = space.push(&more).await.good()?;
    for i in 0..more.len() {
        cx.equal("after", Some((Applied, "")), verdict(&answer, i));
    }
    more.iter().for_each(|r| space.expect(r));
    space.verify("after").await;
    Ok(())
}

async fn quota_records(cx: Cx) -> Result<(), Stop> {
    // it was filled under another quota
    let mut crowded = Space::fresh(&cx);
    crowded.seed(&five()).await?;
    cx.with_limits(&[("max_space_records", 3)], |cx| async move {
        let mut space = Space::fresh(&cx);
        let three = &five()[..3];
        let answer = space.push(three).await.good()?;
        for i in 0..3 {
            cx.equal("within", Some((Applied, "")), verdict(&answer, i));
        }
        three.iter().for_each(|r| space.expect(r));
        let answer = space.push(&five()[3..4]).await.good()?;
        let state = space.as_expected().await;
        let got = verdict(&answer, 0);
        cx.check(
            "beyond",
            got == Some((Rejected, "QUOTA_EXCEEDED")) && state.is_ok(),
            "REJECTED QUOTA_EXCEEDED, and an unchanged space",
            format!("{got:?}, {state:?}"),
        );
        let over = Record::put("k0", time(20), 1, "value 9");
        let gone = Record::tombstone("k1", time(20), 1);
        for (check, record) in [("overwritten", over), ("deleted", gone)] {
            let answer = crowded.push(&[record]).await.good()?;
            cx.equal(check, Some((Applied, "")), verdict(&answer, 0));
        }
        Ok(())
    })
    .await
}

async fn quota_bytes(cx: Cx) -> Result<(), Stop> {
    cx.with_limits(&[("max_space_bytes", 1_000)], |cx| async move {
        let mut space = Space::fresh(&cx);
        let large = Record::put("large", time(1), 1, vec![b'x'; 995]);
        let answer = space.push(std::slice::from_ref(&large)).await.good()?;
        cx.equal("within", Some((Applied, "")), verdict(&answer, 0));
        space.expect(&large);
        let more = Record::put("more", time(1), 1, vec![b'y'; 200]);
        let answer = space.push(std::slice::from_ref(&more)).await.good()?;
        let (got, state) = (verdict(&answer, 0), space.as_expected().await);
        cx.check(
            "beyond",
            got == Some((Rejected, "QUOTA_EXCEEDED")) && state.is_ok(),
            "REJECTED QUOTA_EXCEEDED, and an unchanged space",
            format!("{got:?}, {state:?}"),
        );
        // so large that it fits only where the larger one counts no more
        let small = Record::put("large", time(2), 1, vec![b's'; 150]);
        let answer = space.push(&[small]).await.good()?;
        cx.equal("smaller", Some((Applied, "")), verdict(&answer, 0));
        let answer = space.push(&[more]).await.good()?;
        cx.equal("room-again", Some((Applied, "")), verdict(&answer, 0));
        Ok(())
    })
    .await
}

async fn at_the_floor(cx: Cx) -> Result<(), Stop> {
    let floor: Vec<(&str, u64)> = crate::oracle::FLOOR
        .iter()
        .copied()
        .filter(|(_, least)| *least > 0)
        .collect();
    let floors = floor.clone();
    cx.with_limits(&floors, |cx| async move {
        let mut space = Space::fresh(&cx);
        let answer = cx.hello(&space.hello_request(vec![])).await.good()?;
        let told = answer.limits.unwrap_or_default();
        for (name, least) in &floor {
            let got = crate::oracle::limit_field(&told, name).unwrap_or(0);
            cx.check("told", got == *least, format!("{name} {least}"), got);
        }
        let hundred: Vec<Record> = (0..100)
            .map(|i| Record::put(format!("k{i:03}"), time(1), 1, "v"))
            .collect();
        let answer = space.push(&hundred).await.good()?;
        let applied = answer.verdicts.iter().all(|v| v.outcome() == Applied);
        cx.check("records", applied, "100 times APPLIED", "not all");
        hundred.iter().for_each(|r| space.expect(r));
        let large = Record::put("large", time(1), 1, vec![7; 64 << 10]);
        let answer = space.push(std::slice::from_ref(&large)).await.good()?;
        cx.equal("value", Some((Applied, "")), verdict(&answer, 0));
        space.expect(&large);
        let more: Vec<Record> = (0..101)
            .map(|i| Record::put(format!("l{i:03}"), time(1), 1, "v"))
            .collect();
        let reply = space.push(&more).await.reply;
        space.refused("one-more", &reply, "LIMIT_EXCEEDED").await;
        Ok(())
    })
    .await
}

async fn lifetime(cx: Cx) -> Result<(), Stop> {
    use v1::watch_response::Event;
    cx.with_limits(&[("max_stream_lifetime_ms", 1_000)], |cx| async move {
        let space = Space::fresh(&cx);
        let request = v1::WatchRequest {
            until_caught_up: false,
            ..space.catch_up_request(None)
        };
        let mut stream = cx.open("Watch", &request, &Options::default()).await;
        let began = stream.until_checkpoint().await;
        cx.check("lives", began.is_ok(), "a checkpoint", "none");
        let mut end = None;
        for _ in 0..100 {
            if let Event::End(e) = stream.event().await? {
                end = Some(reason_name(e.reason));
                break;
            }
        }
        cx.equal("ends", Some("STREAM_EXPIRED"), end);
        // reads to the end of the call
        let after = stream.bytes().await.is_err();
        cx.check(
            "ends",
            after && stream.reply().is_ok(),
            "nothing more, and status OK",
            stream.reply().summary(),
        );
        Ok(())
    })
    .await
}

async fn retired(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed_as("before", &five()).await?;
    cx.forget(&space.id);
    cx.retire(&space.id).await?;
    let hello = cx.hello(&space.hello_request(vec![])).await.reply;
    let push = space.push(&five()).await.reply;
    let options = Options::default();
    let watch = space.catch_up_request(None);
    let watch = cx.stream_to_end("Watch", &watch, &options).await;
    let snapshot = space.snapshot_request(vec![everything()]);
    let snapshot = cx.stream_to_end("Snapshot", &snapshot, &options).await;
    for reply in [hello, push, watch, snapshot] {
        let refusal = Cx::refusal(&reply, "SPACE_RETIRED");
        let got = refusal.as_ref().err().cloned().unwrap_or_default();
        cx.check("calls", refusal.is_ok(), "SPACE_RETIRED", got);
    }
    let mut other = Space::fresh(&cx);
    let seeded = other.seed(&five()).await;
    cx.check("others", seeded.is_ok(), "five records", "refused");
    Ok(())
}
