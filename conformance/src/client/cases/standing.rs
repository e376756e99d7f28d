//! What a replica computes of its records: fingerprints of what is clean, the
//! points at which the server held them, and what follows from the horizon.

use super::tools::{bend, calls, from_hello, head, held_of, reconciles, server_loses, until};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::context::pushed;
use crate::client::{Cx, Replica};
use crate::oracle::Record;
use crate::peer::{Action, Refusal, Script};
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, positive};
use prost::Message;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "hello/fingerprints",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Damage],
        about: "A replica with clean records, tombstones, unsent writes over some of them, and one that rotted says Hello.",
        checks: &[
            positive(
                "of-clean-records",
                &["MERKLE-003", "CLIENT-004"],
                "its fingerprint is that of the server's records, without what is unsent",
            ),
            positive(
                "without-damage",
                &["MERKLE-003", "MODEL-023"],
                "and, once it has read it, without the damaged one",
            ),
            positive(
                "horizon",
                &["HIST-030"],
                "each is sent with the horizon that the server told",
            ),
        ],
        run: |cx| Box::pin(fingerprints(cx)),
    },
    Case {
        name: "hello/another-horizon",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server compacted what the replica had followed.",
        checks: &[
            positive(
                "again",
                &["HELLO-027", "HELLO-032"],
                "a Hello follows with the fingerprint at the new horizon",
            ),
            positive(
                "equal",
                &["HIST-031"],
                "nothing is reconciled, and both sides hold the same",
            ),
        ],
        run: |cx| Box::pin(another_horizon(cx)),
    },
    Case {
        name: "hello/odd-answers",
        profile: Profile::Hardened,
        needs: &[Need::Reconcile],
        about: "Hello answers without a position, with an `equal` of another number, and with one at another horizon.",
        checks: &[
            positive(
                "position",
                &["HELLO-032"],
                "without a position it is a failed Hello: nothing else is called",
            ),
            positive(
                "equal",
                &["HELLO-032", "MERKLE-008"],
                "a wrong number of answers proves nothing: what differs is found all the same",
            ),
            positive(
                "lineage",
                &["EXT-004", "HELLO-032"],
                "a lineage of a later version is LINEAGE_UNKNOWN: the replica reconciles",
            ),
        ],
        run: |cx| Box::pin(odd_hello(cx)),
    },
    Case {
        name: "history/point-of-equality",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server begins a new history with the same records, which Hello finds equal; then some are deleted, and compacted.",
        checks: &[
            positive(
                "deleted",
                &["HELLO-030", "HIST-034"],
                "the records count as deleted, not as lost",
            ),
            positive("others-stay", &["HIST-035"], "the others stay"),
        ],
        run: |cx| Box::pin(points(cx, Way::Hello)),
    },
    Case {
        name: "history/point-of-reconcile",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "As before, but one record differs, and a session of Reconcile confirms the others.",
        checks: &[
            positive(
                "deleted",
                &["RECON-042", "HIST-034"],
                "the records count as deleted, not as lost",
            ),
            positive("others-stay", &["HIST-035"], "the others stay"),
        ],
        run: |cx| Box::pin(points(cx, Way::Reconcile)),
    },
    Case {
        name: "history/point-of-snapshot",
        profile: Profile::Core,
        needs: &[],
        about: "As before, of a server without Reconcile: a Snapshot confirms the records.",
        checks: &[
            positive(
                "deleted",
                &["SNAP-026", "HIST-034"],
                "the records count as deleted, not as lost",
            ),
            positive("others-stay", &["HIST-035"], "the others stay"),
        ],
        run: |cx| Box::pin(points(cx, Way::Snapshot)),
    },
    Case {
        name: "history/tombstone-of-another-history",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server is replaced by one that never heard of a deletion, and whose horizon lies above it.",
        checks: &[
            positive(
                "offered",
                &["HIST-032"],
                "the tombstone is offered, with its version",
            ),
            positive(
                "gone",
                &["HIST-032"],
                "and the record is gone on both sides",
            ),
        ],
        run: |cx| Box::pin(foreign_tombstone(cx)),
    },
    Case {
        name: "history/quarantine-does-not-count",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A record that the server lost, and that may not be written, is in quarantine.",
        checks: &[positive(
            "left-out",
            &["HIST-039", "MERKLE-003"],
            "the next Hello's fingerprint is that of the server's records",
        )],
        run: |cx| Box::pin(quarantine(cx)),
    },
    Case {
        name: "history/damaged-and-lost",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Damage],
        about: "The server lost a record, and the replica's copy of it rotted unnoticed.",
        checks: &[
            positive(
                "not-sent",
                &["MODEL-024", "MODEL-022"],
                "the spoilt content is never sent",
            ),
            positive("others", &["HIST-037"], "another lost record is offered"),
        ],
        run: |cx| Box::pin(damaged_and_lost(cx)),
    },
    Case {
        name: "history/damage-known",
        profile: Profile::Core,
        needs: &[Need::Damage],
        about: "The replica read a record that rotted; the server offers no Reconcile, and the cursor is in order.",
        checks: &[
            positive("asked", &["CLIENT-047"], "the next session reconciles"),
            positive("healed", &["MODEL-023"], "and brings the record"),
        ],
        run: |cx| Box::pin(damage_known(cx)),
    },
    Case {
        name: "watch/checkpoint-of-another-horizon",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Live],
        about: "Between Hello and the checkpoint the server compacts tombstones that the replica holds.",
        checks: &[
            positive(
                "followed",
                &["WATCH-025", "HIST-031"],
                "the replica compares without them, and finds itself equal",
            ),
            positive(
                "no-reconcile",
                &["WATCH-025"],
                "without reconciling anything",
            ),
        ],
        run: |cx| Box::pin(moved_horizon(cx)),
    },
    Case {
        name: "watch/shown-when-caught-up",
        profile: Profile::Core,
        needs: &[Need::Live],
        about: "A catch-up ends with the checkpoint; then the stream is silent for long.",
        checks: &[positive(
            "shown",
            &["WATCH-017"],
            "what came before the checkpoint is seen within a second",
        )],
        run: |cx| Box::pin(shown_when_caught_up(cx)),
    },
    Case {
        name: "writes/reconciled-first",
        profile: Profile::Core,
        needs: &[Need::ClientClock],
        about: "A replica behind the compaction has a write below the horizon.",
        checks: &[
            positive(
                "reconciled-first",
                &["CLIENT-029"],
                "nothing below the horizon is pushed before a Reconcile or a Snapshot",
            ),
            positive("arrives", &["CLIENT-022"], "then the write arrives"),
        ],
        run: |cx| Box::pin(reconciled_first(cx)),
    },
    Case {
        name: "writes/in-doubt",
        profile: Profile::Core,
        needs: &[Need::ClientClock],
        about: "Two writes below the horizon, under keys that were deleted and compacted: one was attempted, one was not.",
        checks: &[
            positive(
                "told",
                &["CLIENT-024", "CLIENT-044"],
                "the attempted one is told as in doubt",
            ),
            positive("only-that", &["CLIENT-024"], "the other one is not"),
        ],
        run: |cx| Box::pin(in_doubt(cx)),
    },
    Case {
        name: "writes/outside-the-ranges",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Ranges, Need::ClientClock],
        about: "A replica of one range writes below the horizon under a key outside of it.",
        checks: &[
            positive(
                "one-key",
                &["CLIENT-027"],
                "the key is reconciled as a range of its own, without cursor",
            ),
            positive(
                "restamped",
                &["CLIENT-027"],
                "before the write comes with the horizon as its time",
            ),
            positive(
                "ranges-stay",
                &["CLIENT-049"],
                "the next Hello holds the range as before, with its cursor",
            ),
        ],
        run: |cx| Box::pin(outside_the_ranges(cx)),
    },
];

async fn settled(cx: &Cx, n: usize) -> Result<Replica, Stop> {
    cx.server_writes(&others(n)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, cx).await?;
    Ok(replica)
}

async fn compact(cx: &Cx, before: u64) {
    let space = cx.space().to_owned();
    cx.server(|p| p.service.with_space(&space, |s| s.compact(before)))
        .await;
}

/// The fingerprint of all that the server holds, and its horizon.
async fn of_server(cx: &Cx) -> (Vec<u8>, u64) {
    let space = cx.space().to_owned();
    cx.server(|p| {
        p.service.with_space(&space, |s| {
            (s.range_state(&v1::Range::default()).fingerprint, s.horizon)
        })
    })
    .await
}

/// The Hello requests from the call `before` on.
async fn hellos(cx: &Cx, before: usize) -> Vec<v1::HelloRequest> {
    let seen = cx.seen().await;
    calls(&seen[before..], "Hello")
        .into_iter()
        .filter_map(|s| v1::HelloRequest::decode(s.message.as_slice()).ok())
        .collect()
}

async fn shows(replica: &Replica, key: &str) -> Result<bool, Stop> {
    Ok(replica.entries().await?.iter().any(|(k, _)| k == key))
}

async fn fingerprints(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&[Record::tombstone("gone", time(1), 77)])
        .await;
    cx.server_writes(&[Record::tombstone("kept", time(5_000), 77)])
        .await;
    cx.server_writes(&others(20)).await;
    compact(&cx, time(2_000)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.put("mine", "unsent").await?;
    replica.put("k003", "unsent").await?;
    replica.delete("k004").await?;
    let before = cx.seen().await.len();
    let later = Refusal::new("UNAVAILABLE", "later");
    cx.server(|p| p.script(|s| s.always("Push", Action::Refuse(later))))
        .await;
    let _ = replica.try_sync(Duration::from_millis(400)).await?;
    let (want, horizon) = of_server(&cx).await;
    let first = hellos(&cx, before).await;
    cx.check(
        "of-clean-records",
        first.first().map(|h| &h.fingerprints) == Some(&vec![want]),
        "the fingerprint of the server's records",
        "another, or none",
    );
    let horizons: Vec<u64> = first.iter().map(|h| h.horizon).collect();
    cx.check(
        "horizon",
        !horizons.is_empty() && horizons.iter().all(|h| *h == horizon),
        horizon,
        format!("{horizons:?}"),
    );
    replica.damage("k007").await?;
    let _ = replica.entries().await?;
    let before = cx.seen().await.len();
    let _ = replica.try_sync(Duration::from_millis(1_500)).await?;
    let lost = cx
        .server_records()
        .await
        .into_iter()
        .find(|r| r.key == b"k007");
    let space = cx.space().to_owned();
    let want = cx
        .server(|p| {
            p.service.with_space(&space, |s| {
                let mut without = s.clone();
                without.records.remove(b"k007".as_slice());
                without.range_state(&v1::Range::default()).fingerprint
            })
        })
        .await;
    let next = hellos(&cx, before).await;
    let sent = next.first().map(|h| h.fingerprints.clone());
    let sent_text = format!("{sent:?}, not {want:?}");
    cx.check(
        "without-damage",
        lost.is_some() && sent.is_some_and(|f| f.is_empty() || f == [want]),
        "the fingerprint of the other records, or none",
        format!("{} Hellos, {sent_text}", next.len()),
    );
    Ok(())
}

async fn another_horizon(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&[Record::tombstone("gone", time(1), 77)])
        .await;
    let replica = settled(&cx, 20).await?;
    cx.server_writes(&[Record::put("later", time(9_000), 77, "v")])
        .await;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    compact(&cx, time(5_000)).await;
    let (want, horizon) = of_server(&cx).await;
    let before = cx.seen().await.len();
    sync_patiently(&replica, &cx).await?;
    let again = hellos(&cx, before)
        .await
        .iter()
        .any(|h| h.horizon == horizon && h.fingerprints == [want.clone()]);
    cx.check("again", again, "such a Hello", "none");
    let seen = cx.seen().await;
    let heals = reconciles(&seen[before..]).len() + calls(&seen[before..], "Snapshot").len();
    cx.equal("equal", 0, heals);
    same_as_server(&cx, "equal", &replica).await
}

async fn odd_hello(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 20).await?;
    let bad = bend(|_, m: &mut v1::HelloResponse| m.position = None);
    cx.server(|p| p.script(|s| s.always("Hello", bad))).await;
    let before = cx.seen().await.len();
    let _ = replica.try_sync(Duration::from_millis(700)).await?;
    let seen = cx.seen().await;
    let own: Vec<&str> = from_hello(&seen[before..])
        .iter()
        .map(|s| s.method.as_str())
        .collect();
    let nothing_else = !own.is_empty() && own.iter().all(|m| *m == "Hello");
    cx.check(
        "position",
        nothing_else,
        "Hello and nothing else",
        format!("{own:?}"),
    );
    cx.server(|p| p.script(Script::clear)).await;
    sync_patiently(&replica, &cx).await?;
    server_loses(&cx, &["k003"]).await;
    let many = bend(|_, m: &mut v1::HelloResponse| m.equal = vec![true, true]);
    cx.server(|p| p.script(|s| s.next("Hello", many))).await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    cx.equal("equal", 20, cx.server_records().await.len());
    server_loses(&cx, &["k004"]).await;
    let odd = bend(|_, m: &mut v1::HelloResponse| {
        m.held.iter_mut().for_each(|h| h.lineage = 9);
    });
    let before = cx.seen().await.len();
    cx.server(|p| p.script(|s| s.next("Hello", odd))).await;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let own = from_hello(&seen[before..]);
    let heals = reconciles(own).len() + calls(own, "Snapshot").len();
    let first_watch = own.iter().position(|s| s.method == "Watch");
    let first_heal = own
        .iter()
        .position(|s| matches!(s.method.as_str(), "Reconcile" | "Snapshot"));
    cx.check(
        "lineage",
        heals > 0 && first_heal < first_watch,
        "a Reconcile or a Snapshot before the Watch",
        format!("{first_heal:?}, {first_watch:?}"),
    );
    cx.equal("lineage", 20, cx.server_records().await.len());
    Ok(())
}

/// How a replica learns that it holds what a new history holds.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Hello,
    Reconcile,
    Snapshot,
}

async fn points(cx: Cx, way: Way) -> Result<(), Stop> {
    if way == Way::Snapshot {
        cx.server(|p| p.service.with_settings(|s| s.features.clear()))
            .await;
    }
    let replica = settled(&cx, 30).await?;
    cx.server(|p| p.service.wipe()).await;
    cx.server_writes(&others(30)).await;
    if way == Way::Reconcile {
        cx.server_writes(&[Record::put("k020", time(3_000), 77, "another")])
            .await;
    }
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    cx.server_writes(&[
        Record::tombstone("k001", time(1_000), 77),
        Record::tombstone("k002", time(1_000), 77),
    ])
    .await;
    cx.server_writes(&[Record::put("later", time(9_000), 77, "v")])
        .await;
    compact(&cx, time(5_000)).await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let gone = !shows(&replica, "k001").await? && !shows(&replica, "k002").await?;
    let back = cx.server_records().await.iter().any(|r| r.key == b"k001");
    cx.check(
        "deleted",
        gone && !back,
        "neither here nor at the server",
        format!("gone here: {gone}, back at the server: {back}"),
    );
    cx.equal("others-stay", 29, replica.entries().await?.len());
    same_as_server(&cx, "others-stay", &replica).await
}

async fn foreign_tombstone(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 20).await?;
    let deleted = Record::tombstone("k002", time(1_000), 77);
    cx.server_writes(std::slice::from_ref(&deleted)).await;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| p.service.wipe()).await;
    // k002 among them, as it was before the deletion
    cx.server_writes(&others(20)).await;
    cx.server_writes(&[Record::put("later", time(9_000), 77, "v")])
        .await;
    compact(&cx, time(5_000)).await;
    for _ in 0..4 {
        sync_patiently(&replica, &cx).await?;
    }
    let offered: Vec<Record> = pushed(&cx.seen().await)
        .into_iter()
        .map(|(_, r)| r)
        .filter(|r| r.key == b"k002")
        .collect();
    cx.check(
        "offered",
        offered.contains(&deleted),
        "the tombstone as it was",
        format!("{offered:?}"),
    );
    cx.equal("gone", false, shows(&replica, "k002").await?);
    same_as_server(&cx, "gone", &replica).await
}

async fn quarantine(cx: Cx) -> Result<(), Stop> {
    let reader = bend(|_, m: &mut v1::HelloResponse| {
        m.grants = vec![v1::Grant {
            key_prefix: vec![],
            access: v1::Access::Read as i32,
        }];
    });
    cx.server(|p| p.script(|s| s.always("Hello", reader))).await;
    let replica = settled(&cx, 40).await?;
    server_loses(&cx, &["k007"]).await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let aside = replica.contents().await?.quarantined;
    let before = cx.seen().await.len();
    sync_patiently(&replica, &cx).await?;
    let (want, _) = of_server(&cx).await;
    let sent: Vec<Vec<Vec<u8>>> = hellos(&cx, before)
        .await
        .into_iter()
        .map(|h| h.fingerprints)
        .collect();
    cx.check(
        "left-out",
        aside == 1 && sent.first() == Some(&vec![want]),
        "one record aside, and the fingerprint of the server's records",
        format!("{aside} aside, and another"),
    );
    Ok(())
}

async fn damaged_and_lost(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 40).await?;
    replica.damage("k004").await?;
    server_loses(&cx, &["k004", "k005"]).await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let sent = pushed(&cx.seen().await);
    let odd: Vec<&Record> = sent
        .iter()
        .map(|(_, r)| r)
        .filter(|r| r.key == b"k004" && r.value != b"value 4")
        .collect();
    cx.check(
        "not-sent",
        odd.is_empty(),
        "no such push",
        format!("{odd:?}"),
    );
    let other = sent.iter().any(|(_, r)| r.key == b"k005");
    cx.check("others", other, "k005", "it was not pushed");
    Ok(())
}

async fn damage_known(cx: Cx) -> Result<(), Stop> {
    cx.server(|p| p.service.with_settings(|s| s.features.clear()))
        .await;
    let replica = settled(&cx, 10).await?;
    replica.damage("k004").await?;
    let _ = replica.entries().await?;
    let before = cx.seen().await.len();
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let asked = calls(&cx.seen().await[before..], "Snapshot").len();
    cx.check("asked", asked > 0, "a Snapshot", "none");
    same_as_server(&cx, "healed", &replica).await
}

async fn moved_horizon(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&[Record::tombstone("gone", time(1), 77)])
        .await;
    let replica = settled(&cx, 20).await?;
    cx.server_writes(&[Record::put("later", time(9_000), 77, "v")])
        .await;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let before = cx.seen().await.len();
    let late = Action::Delay(Duration::from_millis(500));
    cx.server(|p| p.script(|s| s.next("Watch", late))).await;
    replica.watch().await?;
    let came = until(&cx, |seen| !calls(&seen[before..], "Watch").is_empty()).await?;
    compact(&cx, time(5_000)).await;
    replica.await_idle().await?;
    let deadline = std::time::Instant::now() + cx.patience();
    let mut verified = false;
    while std::time::Instant::now() < deadline && !verified {
        verified = replica.contents().await?.verified;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    cx.equal("followed", (true, true), (came, verified));
    same_as_server(&cx, "followed", &replica).await?;
    let seen = cx.seen().await;
    let heals = reconciles(&seen[before..]).len() + calls(&seen[before..], "Snapshot").len();
    cx.equal("no-reconcile", 0, heals);
    Ok(())
}

async fn shown_when_caught_up(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 5).await?;
    cx.server(|p| {
        p.service.with_settings(|s| {
            s.limits.heartbeat_interval_ms = 20_000;
            s.limits.watchdog_ms = 60_000;
        })
    })
    .await;
    cx.server_writes(&[Record::put("theirs", time(9_000), 77, "v")])
        .await;
    let before = cx.seen().await.len();
    replica.watch().await?;
    let came = until(&cx, |seen| {
        let watch = seen[before..].iter().find(|s| s.method == "Watch");
        watch.is_some_and(|w| w.answers.len() >= 2)
    })
    .await?;
    let deadline = std::time::Instant::now() + Duration::from_secs(1);
    let mut shown = false;
    while std::time::Instant::now() < deadline && !shown {
        shown = shows(&replica, "theirs").await?;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    cx.equal("shown", (true, true), (came, shown));
    Ok(())
}

/// A write of long ago under `key`, which others delete; the deletion is
/// compacted. The client's clock is right again afterwards.
async fn old_write(cx: &Cx, replica: &Replica, keys: &[&str]) -> Result<(), Stop> {
    cx.set_clock(time(500) >> 16).await?;
    for key in keys {
        replica.put(key, "written long ago").await?;
    }
    cx.set_clock(0).await
}

async fn deleted_and_compacted(cx: &Cx, keys: &[&str]) {
    let gone: Vec<Record> = keys
        .iter()
        .map(|k| Record::tombstone(k, time(60_000), 77))
        .collect();
    cx.server_writes(&gone).await;
    cx.server_writes(&[Record::put("later", time(200_000), 77, "v")])
        .await;
    compact(cx, time(100_000)).await;
}

async fn reconciled_first(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 10).await?;
    old_write(&cx, &replica, &["k001"]).await?;
    deleted_and_compacted(&cx, &["k001"]).await;
    let before = cx.seen().await.len();
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let seen = cx.seen().await;
    let healed = seen[before..]
        .iter()
        .position(|s| matches!(s.method.as_str(), "Reconcile" | "Snapshot"))
        .map_or(seen.len(), |i| i + before);
    let horizon = of_server(&cx).await.1;
    let early: Vec<(usize, u64)> = pushed(&seen)
        .into_iter()
        .filter(|(i, r)| *i >= before && *i < healed && r.time < horizon)
        .map(|(i, r)| (i, r.time))
        .collect();
    cx.check(
        "reconciled-first",
        early.is_empty(),
        "no such push",
        format!("{early:?} before call {healed}"),
    );
    let there = cx.server_records().await;
    let arrived = there.iter().any(|r| r.key == b"k001" && !r.is_tombstone());
    cx.check("arrives", arrived, "the write", "it is missing");
    Ok(())
}

async fn in_doubt(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 10).await?;
    old_write(&cx, &replica, &["k001"]).await?;
    let later = Refusal::new("UNAVAILABLE", "later");
    cx.server(|p| p.script(|s| s.always("Push", Action::Refuse(later))))
        .await;
    let _ = replica.try_sync(Duration::from_millis(600)).await?;
    let attempted = !calls(&cx.seen().await, "Push").is_empty();
    old_write(&cx, &replica, &["k002"]).await?;
    deleted_and_compacted(&cx, &["k001", "k002"]).await;
    let _ = replica.try_sync(Duration::from_secs(3)).await?;
    let pending = replica.contents().await?.pending;
    let doubted = |key: &[u8]| pending.iter().find(|p| p.key == key).map(|p| p.in_doubt);
    cx.equal("told", (true, Some(true)), (attempted, doubted(b"k001")));
    cx.equal("only-that", Some(false), doubted(b"k002"));
    Ok(())
}

async fn outside_the_ranges(cx: Cx) -> Result<(), Stop> {
    let records: Vec<Record> = ["a/1", "a/2", "b/1"]
        .map(|k| Record::put(k, time(1), 77, "v"))
        .into();
    cx.server_writes(&records).await;
    let replica = cx
        .open_with("a", "a", |o| o.key_prefixes = vec![b"a/".to_vec()])
        .await?;
    sync_patiently(&replica, &cx).await?;
    deleted_and_compacted(&cx, &["b/1"]).await;
    sync_patiently(&replica, &cx).await?;
    let cursor = head(&cx).await;
    old_write(&cx, &replica, &["b/1"]).await?;
    let before = cx.seen().await.len();
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let single = v1::Range {
        start: b"b/1".to_vec(),
        end: Some(b"b/1\0".to_vec()),
    };
    let asked = seen[before..]
        .iter()
        .position(|s| {
            matches!(s.method.as_str(), "Reconcile" | "Snapshot")
                && held_of(&s.method, &s.message)
                    .iter()
                    .any(|h| h.ranges == [single.clone()] && h.cursor.is_none())
        })
        .map(|i| i + before);
    cx.check(
        "one-key",
        asked.is_some(),
        "such a Reconcile or Snapshot",
        "none",
    );
    let horizon = of_server(&cx).await.1;
    let sent: Vec<(usize, u64)> = pushed(&seen)
        .into_iter()
        .filter(|(i, r)| *i >= before && r.key == b"b/1")
        .map(|(i, r)| (i, r.time))
        .collect();
    let restamped = sent.iter().find(|(_, t)| *t == horizon).map(|(i, _)| *i);
    cx.check(
        "restamped",
        asked.is_some() && restamped > asked,
        format!("a push at {horizon} after call {asked:?}"),
        format!("{sent:?}"),
    );
    let before = seen.len();
    sync_patiently(&replica, &cx).await?;
    let hello = hellos(&cx, before).await;
    let held: Vec<(usize, Option<u64>)> = hello
        .first()
        .map(|h| {
            let entries = h.held.iter();
            entries
                .map(|e| (e.ranges.len(), e.cursor.map(|c| c.sequence)))
                .collect()
        })
        .unwrap_or_default();
    cx.check(
        "ranges-stay",
        held.len() == 1 && held[0].0 == 1 && held[0].1 >= Some(cursor.sequence),
        format!("one range, from {} on", cursor.sequence),
        format!("{held:?}"),
    );
    Ok(())
}
