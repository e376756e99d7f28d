//! Watch: catch-up, checkpoints, live changes, heartbeats, refusals.

use crate::net::Reply;
use crate::oracle::Record;
use crate::schema::v1;
use crate::server::{Cx, Options, Space, WatchSeen, everything, held, key_range, time};
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use std::time::{Duration, Instant};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "watch/catch-up",
        profile: Profile::Core,
        needs: &[],
        about: "A replica without a cursor follows three commits to the end.",
        checks: &[
            positive("all", &["WATCH-003"], "every record comes once"),
            positive("in-order", &["WATCH-004"], "in the order of sequences"),
            positive(
                "cursors",
                &["WATCH-006"],
                "cursors are ends of commits, and the last one is the head",
            ),
            positive(
                "checkpoint",
                &["WATCH-018", "WATCH-021"],
                "a checkpoint at the head follows the changes",
            ),
            positive(
                "fingerprint",
                &["WATCH-020", "MERKLE-001"],
                "its count and fingerprint are the oracle's",
            ),
            positive(
                "end",
                &["WATCH-022", "WATCH-036", "WATCH-037"],
                "then StreamEnd without reason, and status OK",
            ),
        ],
        run: |cx| Box::pin(catch_up(cx)),
    },
    Case {
        name: "watch/empty",
        profile: Profile::Core,
        needs: &[],
        about: "A Watch of an empty space.",
        checks: &[
            positive("checkpoint", &["WATCH-018"], "a checkpoint comes at once"),
            positive("end", &["WATCH-022", "WATCH-036"], "and StreamEnd"),
        ],
        run: |cx| Box::pin(empty(cx)),
    },
    Case {
        name: "watch/resume",
        profile: Profile::Core,
        needs: &[],
        about: "From the cursor of each commit the rest is followed; overwritten states are not sent.",
        checks: &[
            positive(
                "only-newer",
                &["WATCH-003"],
                "from each cursor exactly what came later",
            ),
            positive(
                "overwritten-once",
                &["WATCH-004"],
                "a record that was overwritten comes once, as it stands",
            ),
            positive(
                "at-head",
                &["WATCH-003"],
                "from the head nothing but a checkpoint",
            ),
        ],
        run: |cx| Box::pin(resume(cx)),
    },
    Case {
        name: "watch/ranges",
        profile: Profile::Core,
        needs: &[],
        about: "Two entries with ranges and cursors of their own.",
        checks: &[
            positive(
                "own-cursors",
                &["WATCH-003"],
                "each entry gets what is above its cursor",
            ),
            positive("nothing-else", &["WATCH-003"], "nothing outside the ranges"),
            positive(
                "states",
                &["WATCH-020", "MERKLE-002"],
                "the checkpoint has one state for each range, in order",
            ),
        ],
        run: |cx| Box::pin(ranges(cx)),
    },
    Case {
        name: "watch/no-ranges",
        profile: Profile::Hardened,
        needs: &[],
        about: "A Watch without held.",
        checks: &[
            positive("with", &["WATCH-003"], "with an entry it is answered"),
            negative("without", "with", &["WATCH-002"], "MALFORMED"),
        ],
        run: |cx| Box::pin(no_ranges(cx)),
    },
    Case {
        name: "watch/history-changed",
        profile: Profile::Core,
        needs: &[],
        about: "Cursors of a foreign epoch, with a wrong tag, and beyond the head.",
        checks: &[
            positive("good", &["WATCH-003"], "the genuine cursor is followed"),
            negative(
                "foreign-epoch",
                "good",
                &["WATCH-001", "HIST-015"],
                "HISTORY_CHANGED",
            ),
            negative(
                "wrong-tag",
                "good",
                &["WATCH-001", "HIST-005"],
                "HISTORY_CHANGED",
            ),
            negative(
                "beyond-head",
                "good",
                &["WATCH-001", "HIST-018"],
                "HISTORY_CHANGED",
            ),
            negative(
                "detail",
                "good",
                &["ERR-003"],
                "HistoryDetail tells position and status UNKNOWN",
            ),
        ],
        run: |cx| Box::pin(history_changed(cx)),
    },
    Case {
        name: "watch/large-commit",
        profile: Profile::Core,
        needs: &[],
        about: "A commit that does not fit into one message of the size asked for.",
        checks: &[
            positive(
                "size",
                &["WATCH-008"],
                "no message is larger than asked for",
            ),
            positive(
                "cursor-at-end",
                &["WATCH-007"],
                "only the commit's last message has a cursor",
            ),
            positive("all", &["WATCH-003"], "every record comes"),
        ],
        run: |cx| Box::pin(large_commit(cx)),
    },
    Case {
        name: "watch/after-snapshot",
        profile: Profile::Core,
        needs: &[],
        about: "Records are written between a Snapshot and the Watch from its position.",
        checks: &[positive(
            "no-gap",
            &["SNAP-003", "WATCH-003"],
            "exactly what was written since comes",
        )],
        run: |cx| Box::pin(after_snapshot(cx)),
    },
    Case {
        name: "watch/live",
        profile: Profile::Live,
        needs: &[Need::Live],
        about: "Two replicas watch; a third one writes.",
        checks: &[
            positive("both", &["WATCH-027"], "both get each commit"),
            positive(
                "at-once",
                &["WATCH-027"],
                "within a second or half a heartbeat interval",
            ),
            positive("own-ranges", &["WATCH-003"], "each only its ranges"),
        ],
        run: |cx| Box::pin(live(cx)),
    },
    Case {
        name: "watch/heartbeat",
        profile: Profile::Live,
        needs: &[Need::Live],
        about: "A Watch on which nothing happens.",
        checks: &[
            positive(
                "beats",
                &["WATCH-028"],
                "something comes within each heartbeat interval",
            ),
            positive("time", &["WATCH-029"], "heartbeats tell the server's time"),
        ],
        run: |cx| Box::pin(heartbeat(cx)),
    },
    Case {
        name: "watch/cancel",
        profile: Profile::Live,
        needs: &[Need::Live],
        about: "Watches that are dropped without a word, again and again.",
        checks: &[
            positive(
                "still-serves",
                &["WATCH-041"],
                "the server goes on serving pushes and watches",
            ),
            positive(
                "another-goes-on",
                &["WATCH-027"],
                "another watch of the space is not disturbed",
            ),
        ],
        run: |cx| Box::pin(cancel(cx)),
    },
    Case {
        name: "watch/slow-reader",
        profile: Profile::Live,
        needs: &[Need::Live],
        about: "A replica that reads late while many large records are written.",
        checks: &[positive(
            "all",
            &["WATCH-003", "WATCH-032"],
            "it gets every record in the end, or StreamEnd SLOW_READER and the rest from its cursor",
        )],
        run: |cx| Box::pin(slow_reader(cx)),
    },
];

fn head_of(answer: &v1::PushResponse) -> Result<v1::Cursor, Stop> {
    answer
        .position
        .and_then(|p| p.head)
        .ok_or_else(|| Stop::Peer("Push without position.head".into()))
}

fn last_cursor(seen: &WatchSeen) -> Option<v1::Cursor> {
    seen.changes.iter().rev().find_map(|(_, cursor)| *cursor)
}

/// Three commits: their records and ends.
async fn three_commits(space: &mut Space) -> Result<Vec<(Vec<Record>, v1::Cursor)>, Stop> {
    let mut commits = Vec::new();
    for n in 0..3u64 {
        let records: Vec<Record> = ["z", "a", "m"]
            .iter()
            .map(|k| Record::put(format!("{k}{n}"), time(n), 1, format!("{k} of {n}")))
            .collect();
        let answer = space.seed(&records).await?;
        commits.push((records, head_of(&answer)?));
    }
    Ok(commits)
}

async fn catch_up(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let commits = three_commits(&mut space).await?;
    let head = commits[2].1;
    let seen = cx.catch_up(&space.catch_up_request(None)).await?;
    let want: Vec<Record> = commits.iter().flat_map(|(r, _)| r.clone()).collect();
    let got = seen.records();
    let (mut sorted_want, mut sorted_got) = (want.clone(), got.clone());
    sorted_want.sort();
    sorted_got.sort();
    cx.check(
        "all",
        sorted_want == sorted_got,
        format!("{} records", want.len()),
        format!("{} records", got.len()),
    );
    cx.check(
        "in-order",
        want == got,
        "the order of sequences",
        "another order",
    );
    let ends: Vec<v1::Cursor> = commits.iter().map(|(_, end)| *end).collect();
    let proper = seen
        .changes
        .iter()
        .filter_map(|(_, c)| c.as_ref())
        .all(|c| ends.contains(c));
    cx.check(
        "cursors",
        proper && last_cursor(&seen) == Some(head),
        "ends of commits, at last the head",
        format!(
            "{:?}",
            seen.changes.iter().map(|(_, c)| c).collect::<Vec<_>>()
        ),
    );
    let checkpoint = seen.checkpoints.first();
    cx.check(
        "checkpoint",
        seen.before_checkpoint == seen.changes.len()
            && checkpoint.and_then(|c| c.position).and_then(|p| p.head) == Some(head),
        "a checkpoint at the head, after all changes",
        format!("{checkpoint:?} after {} messages", seen.before_checkpoint),
    );
    cx.equal(
        "fingerprint",
        Some(space.states(&[&everything()])),
        checkpoint.map(|c| c.ranges.clone()),
    );
    cx.equal("end", Some(0), seen.end.as_ref().map(|e| e.reason));
    Ok(())
}

async fn empty(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let seen = cx.catch_up(&space.catch_up_request(None)).await?;
    cx.equal(
        "checkpoint",
        Some(space.states(&[&everything()])),
        seen.checkpoints.first().map(|c| c.ranges.clone()),
    );
    cx.equal("end", Some(0), seen.end.as_ref().map(|e| e.reason));
    Ok(())
}

async fn resume(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let commits = three_commits(&mut space).await?;
    for i in 0..3 {
        let seen = cx
            .catch_up(&space.catch_up_request(Some(commits[i].1)))
            .await?;
        let want: Vec<Record> = commits[i + 1..]
            .iter()
            .flat_map(|(r, _)| r.clone())
            .collect();
        let check = if i == 2 { "at-head" } else { "only-newer" };
        cx.equal(check, want, seen.records());
    }
    let over = Record::put("a0", time(50), 2, "over");
    space.seed(std::slice::from_ref(&over)).await?;
    let seen = cx.catch_up(&space.catch_up_request(None)).await?;
    let of_key: Vec<Record> = seen
        .records()
        .into_iter()
        .filter(|r| r.key == b"a0")
        .collect();
    cx.equal("overwritten-once", vec![over.clone()], of_key);
    cx.equal(
        "overwritten-once",
        Some(over),
        seen.records().last().cloned(),
    );
    Ok(())
}

async fn ranges(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let commits = three_commits(&mut space).await?;
    let (first, second) = (key_range("a", "b"), key_range("m", "n"));
    let request = v1::WatchRequest {
        held: vec![
            held(vec![first.clone()], Some(commits[1].1)),
            held(vec![second.clone()], None),
        ],
        ..space.catch_up_request(None)
    };
    let seen = cx.catch_up(&request).await?;
    let mut got: Vec<Vec<u8>> = seen.records().into_iter().map(|r| r.key).collect();
    got.sort();
    got.dedup();
    let inside = got.iter().all(|k| k[0] == b'a' || k[0] == b'm');
    cx.check(
        "nothing-else",
        inside,
        "keys that begin with a or m",
        format!("{got:?}"),
    );
    let want: Vec<Vec<u8>> = ["a2", "m0", "m1", "m2"]
        .iter()
        .map(|k| k.as_bytes().to_vec())
        .collect();
    // a server may send more of an entry than its cursor asks for: merge makes it harmless
    let missing: Vec<_> = want.iter().filter(|k| !got.contains(k)).collect();
    let unasked: Vec<_> = got
        .iter()
        .filter(|k| k[0] == b'a' && !want.contains(k))
        .collect();
    cx.check(
        "own-cursors",
        missing.is_empty() && unasked.is_empty(),
        "a2, m0, m1, m2",
        format!("{got:?}"),
    );
    cx.equal(
        "states",
        Some(space.states(&[&first, &second])),
        seen.checkpoints.first().map(|c| c.ranges.clone()),
    );
    Ok(())
}

async fn refused_watch(cx: &Cx, request: &v1::WatchRequest) -> Reply {
    cx.stream_to_end("Watch", request, &Options::default())
        .await
}

async fn no_ranges(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let seen = cx.catch_up(&space.catch_up_request(None)).await?;
    cx.equal("with", 1, seen.checkpoints.len());
    let request = v1::WatchRequest {
        held: vec![],
        ..space.catch_up_request(None)
    };
    let reply = refused_watch(&cx, &request).await;
    space.refused("without", &reply, "MALFORMED").await;
    Ok(())
}

async fn history_changed(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let commits = three_commits(&mut space).await?;
    let genuine = commits[1].1;
    let seen = cx.catch_up(&space.catch_up_request(Some(genuine))).await?;
    cx.equal("good", 3, seen.records().len());
    for (check, cursor) in [
        (
            "foreign-epoch",
            v1::Cursor {
                epoch: !genuine.epoch,
                ..genuine
            },
        ),
        (
            "wrong-tag",
            v1::Cursor {
                tag: !genuine.tag,
                ..genuine
            },
        ),
        (
            "beyond-head",
            v1::Cursor {
                sequence: 1_000,
                ..genuine
            },
        ),
    ] {
        let reply = refused_watch(&cx, &space.catch_up_request(Some(cursor))).await;
        space.refused(check, &reply, "HISTORY_CHANGED").await;
        let detail = reply.status.and_then(|s| s.history());
        let told = detail.as_ref().is_some_and(|d| {
            d.position.and_then(|p| p.head) == Some(commits[2].1)
                && d.held.first().map(v1::HistoryStatus::lineage) == Some(v1::Lineage::Unknown)
        });
        cx.check(
            "detail",
            told,
            "the head and LINEAGE_UNKNOWN",
            format!("{detail:?}"),
        );
    }
    Ok(())
}

async fn large_commit(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let records: Vec<Record> = (0..90)
        .map(|i| Record::put(format!("k{i:02}"), time(1), 1, vec![i as u8; 1000]))
        .collect();
    let head = head_of(&space.seed(&records).await?)?;
    let request = v1::WatchRequest {
        max_response_bytes: 10_000,
        ..space.catch_up_request(None)
    };
    let seen = cx.catch_up(&request).await?;
    let largest = seen.sizes.iter().max().copied().unwrap_or(0);
    cx.check(
        "size",
        largest <= 10_000,
        "at most 10,000 bytes",
        format!("{largest} bytes"),
    );
    let cursors: Vec<Option<v1::Cursor>> = seen
        .changes
        .iter()
        .filter(|(r, _)| !r.is_empty())
        .map(|(_, c)| *c)
        .collect();
    let proper = cursors
        .split_last()
        .is_some_and(|(last, rest)| *last == Some(head) && rest.iter().all(Option::is_none));
    cx.check(
        "cursor-at-end",
        proper,
        "a cursor on the last message only",
        format!(
            "{} messages, {} with a cursor",
            cursors.len(),
            cursors.iter().flatten().count()
        ),
    );
    cx.equal("all", records.len(), seen.records().len());
    Ok(())
}

async fn after_snapshot(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    three_commits(&mut space).await?;
    let snapshot = cx
        .snapshot(&space.snapshot_request(vec![everything()]))
        .await?;
    let later = [
        Record::put("a1", time(90), 1, "changed since"),
        Record::put("new", time(90), 1, "new since"),
        Record::tombstone("m0", time(90), 1),
    ];
    space.seed(&later).await?;
    let cursor = snapshot.start.position.and_then(|p| p.head);
    let seen = cx.catch_up(&space.catch_up_request(cursor)).await?;
    cx.equal("no-gap", later.to_vec(), seen.records());
    Ok(())
}

fn live_request(space: &Space, ranges: Vec<v1::Range>) -> v1::WatchRequest {
    v1::WatchRequest {
        held: vec![held(ranges, None)],
        until_caught_up: false,
        ..space.catch_up_request(None)
    }
}

async fn live(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    three_commits(&mut space).await?;
    let mut whole = cx
        .open(
            "Watch",
            &live_request(&space, vec![everything()]),
            &Options::default(),
        )
        .await;
    let mut part = cx
        .open(
            "Watch",
            &live_request(&space, vec![key_range("a", "b")]),
            &Options::default(),
        )
        .await;
    whole.until_checkpoint().await?;
    part.until_checkpoint().await?;
    let heartbeat = Duration::from_millis(cx.limits().heartbeat_interval_ms);
    let soon = Duration::from_secs(1).max(heartbeat / 2);
    for n in 0..3u64 {
        let records = [
            Record::put("a-live", time(100 + n), 1, n.to_string()),
            Record::put("z-live", time(100 + n), 1, n.to_string()),
        ];
        space.seed(&records).await?;
        let began = Instant::now();
        let got = whole.changes(cx.target().patience).await?;
        let took = began.elapsed();
        cx.check(
            "at-once",
            took < soon,
            format!("within {soon:?}"),
            format!("after {took:?}"),
        );
        let wire: Vec<v1::Record> = records.iter().map(Record::to_wire).collect();
        cx.equal("both", wire.clone(), got.records);
        let got = part.changes(cx.target().patience).await?;
        cx.equal("both", 1, got.records.len());
        cx.equal("own-ranges", wire[..1].to_vec(), got.records);
    }
    Ok(())
}

async fn heartbeat(cx: Cx) -> Result<(), Stop> {
    use v1::watch_response::Event;
    let space = Space::fresh(&cx);
    let interval = Duration::from_millis(cx.limits().heartbeat_interval_ms);
    let options = Options {
        patience: Some(cx.target().patience.max(2 * interval)),
        ..Options::default()
    };
    let request = live_request(&space, vec![everything()]);
    let mut stream = cx.open("Watch", &request, &options).await;
    stream.until_checkpoint().await?;
    let rounds = if interval > Duration::from_secs(2) {
        1
    } else {
        3
    };
    // scheduling of a busy machine is not the server's fault
    let grace = interval / 2 + Duration::from_secs(2);
    for _ in 0..rounds {
        let event = tokio::time::timeout(interval + grace, stream.event()).await;
        cx.check(
            "beats",
            event.is_ok(),
            format!("a message within {interval:?}"),
            format!("none within {:?}", interval + grace),
        );
        match event {
            Ok(event) => match event? {
                Event::Heartbeat(beat) => cx.check(
                    "time",
                    beat.server_time_ms > 1_577_836_800_000,
                    "Unix milliseconds",
                    beat.server_time_ms,
                ),
                other => cx.check("time", true, "", format!("another message: {other:?}")),
            },
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

async fn cancel(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let request = live_request(&space, vec![everything()]);
    let mut steady = cx.open("Watch", &request, &Options::default()).await;
    steady.until_checkpoint().await?;
    for _ in 0..20 {
        let mut dropped = cx.open("Watch", &request, &Options::default()).await;
        dropped.until_checkpoint().await?;
    }
    let record = Record::put("k", time(1), 1, "v");
    space.seed(std::slice::from_ref(&record)).await?;
    let got = steady.changes(cx.target().patience).await?;
    cx.equal("another-goes-on", vec![record.to_wire()], got.records);
    let seen = cx.catch_up(&space.catch_up_request(None)).await?;
    cx.equal("still-serves", vec![record], seen.records());
    Ok(())
}

async fn slow_reader(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let request = live_request(&space, vec![everything()]);
    let mut stream = cx.open("Watch", &request, &Options::default()).await;
    stream.until_checkpoint().await?;
    for n in 0..12u64 {
        let batch: Vec<Record> = (0..8)
            .map(|i| Record::put(format!("{n:02}{i}"), time(n), 1, vec![i; 30_000]))
            .collect();
        space.seed(&batch).await?;
    }
    let mut missing: std::collections::BTreeSet<Vec<u8>> = space.records.keys().cloned().collect();
    let mut cursor = None;
    for _ in 0..2_000 {
        if missing.is_empty() {
            break;
        }
        match stream.event().await {
            Ok(v1::watch_response::Event::Changes(changes)) => {
                changes.records.iter().for_each(|r| {
                    missing.remove(&r.key);
                });
                cursor = changes.cursor.or(cursor);
            }
            Ok(v1::watch_response::Event::End(end)) => {
                if end.reason() != v1::Reason::SlowReader {
                    return Err(Stop::Peer(format!("the stream ends with {end:?}")));
                }
                let seen = cx.catch_up(&space.catch_up_request(cursor)).await?;
                seen.records().iter().for_each(|r| {
                    missing.remove(&r.key);
                });
                break;
            }
            Ok(_) => {}
            Err(stop) => return Err(stop),
        }
    }
    cx.check(
        "all",
        missing.is_empty(),
        "every record",
        format!("{} are missing", missing.len()),
    );
    Ok(())
}
