//! Reconcile as a client speaks it: what it asks, what it believes, what it does
//! about what differs.

use super::tools::{bend, calls, cursors, head, held_of, reconciles, server_loses, until};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::client::context::pushed;
use crate::oracle::Record;
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use prost::Message;
use std::collections::BTreeSet;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "reconcile/lost-at-server",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server loses two of many records, without a commit.",
        checks: &[
            positive(
                "kept",
                &["HIST-035", "RECON-033"],
                "they are not dropped here",
            ),
            positive(
                "offered",
                &["HIST-037", "RECON-044", "CLIENT-017"],
                "the server holds them again, with their versions",
            ),
            positive(
                "only-those",
                &["RECON-031", "MODEL-020", "MERKLE-001", "MERKLE-004"],
                "and nothing else is sent",
            ),
        ],
        run: |cx| Box::pin(lost_at_server(cx)),
    },
    Case {
        name: "reconcile/changed-at-server",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server holds newer records than it ever told, and lacks others.",
        checks: &[
            positive(
                "merged",
                &["RECON-032", "WATCH-024", "MODEL-018"],
                "both sides hold the newer of each",
            ),
            positive("once", &["RECON-032"], "and no record comes twice"),
        ],
        run: |cx| Box::pin(changed_at_server(cx)),
    },
    Case {
        name: "reconcile/salt",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "Three sessions, one after the other.",
        checks: &[
            positive("fresh", &["RECON-004"], "each has a salt of its own"),
            positive(
                "within",
                &["RECON-006", "RECON-009"],
                "each asks within its ranges, and is answered",
            ),
        ],
        run: |cx| Box::pin(salt(cx)),
    },
    Case {
        name: "reconcile/never-equal",
        profile: Profile::Heal,
        needs: &[Need::Live, Need::Reconcile],
        about: "The server's fingerprints are wrong for ever.",
        checks: &[
            positive(
                "full-digests",
                &["RECON-037", "RECON-039"],
                "the second session has digests of 32 bytes",
            ),
            positive(
                "then-snapshot",
                &["RECON-045", "CLIENT-040"],
                "after at most two sessions comes a Snapshot",
            ),
            positive(
                "then-rest",
                &["RECON-046"],
                "and then nothing heals for a while",
            ),
        ],
        run: |cx| Box::pin(never_equal(cx)),
    },
    Case {
        name: "reconcile/lagging-answer",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "An answer names a position before the client's cursor.",
        checks: &[
            positive(
                "not-lowered",
                &["RECON-035", "RECON-041"],
                "no later request has a lower cursor",
            ),
            positive("done", &["RECON-044"], "the session ends well"),
        ],
        run: |cx| Box::pin(lagging(cx)),
    },
    Case {
        name: "reconcile/moving-server",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Live],
        about: "While a session goes on, others write where it has been already.",
        checks: &[
            positive(
                "first-position",
                &["RECON-041"],
                "the cursor is the position of the session's first answer, not of a later one",
            ),
            positive("done", &["RECON-044", "WATCH-012"], "nothing is missed"),
        ],
        run: |cx| Box::pin(moving_server(cx)),
    },
    Case {
        name: "reconcile/other-epoch",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "An answer in the middle names another epoch.",
        checks: &[
            positive("begins-anew", &["RECON-034"], "a Hello follows"),
            positive(
                "not-adopted",
                &["RECON-034", "RECON-043"],
                "that epoch is in no cursor",
            ),
            positive("done", &["RECON-044"], "the next session ends well"),
        ],
        run: |cx| Box::pin(other_epoch(cx)),
    },
    Case {
        name: "reconcile/malformed-answers",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "Answers with a part missing, a part too many, a record out of order, a kind that is none.",
        checks: &[
            positive(
                "nothing-used",
                &["RECON-029", "RECON-030", "SEC-011"],
                "nothing of them is stored",
            ),
            positive(
                "done",
                &["RECON-050", "ERR-013"],
                "with a proper answer the session ends well",
            ),
        ],
        run: |cx| Box::pin(malformed_answers(cx)),
    },
    Case {
        name: "reconcile/wanted",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server's copy of an old record rotted; the client is behind a compaction, so that absence would mean deletion.",
        checks: &[
            positive("deleted", &["HIST-034"], "what was deleted is dropped"),
            positive("not-dropped", &["MODEL-028"], "what is wanted is not"),
            positive("offered", &["MODEL-027"], "but offered, with its version"),
        ],
        run: |cx| Box::pin(wanted(cx)),
    },
    Case {
        name: "reconcile/wanted-read-only",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The same, with a token that may only read.",
        checks: &[
            positive("deleted", &["HIST-034"], "what was deleted is dropped"),
            positive(
                "kept-aside",
                &["MODEL-028", "HIST-038"],
                "what is wanted is kept and shown, in quarantine",
            ),
            positive("not-sent", &["HIST-038"], "and not pushed"),
        ],
        run: |cx| Box::pin(wanted_read_only(cx)),
    },
    Case {
        name: "reconcile/read-only",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server lost a record that the client may not write.",
        checks: &[
            positive(
                "kept-aside",
                &["HIST-038", "HIST-041"],
                "it is kept and shown, in quarantine",
            ),
            positive(
                "reported",
                &["HIST-040", "CLIENT-044"],
                "and counted for the application",
            ),
            positive("not-sent", &["HIST-038"], "and not pushed"),
        ],
        run: |cx| Box::pin(read_only(cx, v1::Access::Read as i32)),
    },
    Case {
        name: "reconcile/unknown-access",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "As with a token that may only read, but the access is a value of a later version.",
        checks: &[
            positive(
                "kept-aside",
                &["HELLO-017", "HIST-038", "EXT-004"],
                "the lost record is in quarantine",
            ),
            positive("reported", &["HIST-040"], "and counted"),
            positive("not-sent", &["HELLO-017"], "and not pushed"),
        ],
        run: |cx| Box::pin(read_only(cx, 9)),
    },
    Case {
        name: "reconcile/not-offered",
        profile: Profile::Heal,
        needs: &[],
        about: "The server does not offer FEATURE_RECONCILE, and loses its store.",
        checks: &[
            positive("unused", &["HELLO-011"], "no Reconcile is called"),
            positive(
                "healed",
                &["EXT-001", "SNAP-024", "HIST-037"],
                "a Snapshot heals all the same",
            ),
        ],
        run: |cx| Box::pin(not_offered(cx)),
    },
    Case {
        name: "reconcile/replaced-and-compacted",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server lost commits without a restore, made others, and compacted.",
        checks: &[
            positive(
                "kept",
                &["HIST-014", "HIST-035"],
                "the records of the lost commits are not taken for deleted",
            ),
            positive("offered", &["HIST-037"], "and the server holds them again"),
        ],
        run: |cx| Box::pin(replaced_and_compacted(cx)),
    },
    Case {
        name: "reconcile/unequal-again",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Live],
        about: "The server is another one, with the same records; after the session the fingerprint differs.",
        checks: &[
            positive("session", &["RECON-031"], "the replica reconciles"),
            positive(
                "full-digests",
                &["RECON-039"],
                "the session after the one that ended unequal has digests of 32 bytes",
            ),
        ],
        run: |cx| Box::pin(unequal_again(cx)),
    },
    Case {
        name: "reconcile/not-yet-verified",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Live],
        about: "A session with short digests is over, and the next comparison of whole fingerprints has to wait.",
        checks: &[
            positive(
                "verified",
                &["WATCH-023"],
                "after it, the range is verified",
            ),
            negative(
                "not-verified",
                "verified",
                &["MERKLE-008"],
                "before it, the range is not",
            ),
        ],
        run: |cx| Box::pin(not_yet_verified(cx)),
    },
    Case {
        name: "reconcile/two-ranges",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Ranges],
        about: "A replica of two ranges, between which the server holds others; it loses a record of each.",
        checks: &[
            positive(
                "within",
                &["RECON-006"],
                "each part lies in one range of `held`: no request is refused",
            ),
            positive("healed", &["RECON-033"], "both are offered again"),
            positive(
                "noted",
                &["RECON-033"],
                "without a Snapshot after the Reconcile that shows it",
            ),
            positive("only-held", &["CLIENT-026"], "nothing else is held"),
        ],
        run: |cx| Box::pin(two_ranges(cx)),
    },
    Case {
        name: "reconcile/large",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A thousand records, of which the server loses every fiftieth and holds others anew.",
        checks: &[
            positive(
                "healed",
                &["RECON-031", "RECON-033"],
                "both sides are equal",
            ),
            positive(
                "few-records",
                &["RECON-007"],
                "by far not everything is sent, nor what was told",
            ),
        ],
        run: |cx| Box::pin(large(cx)),
    },
];

async fn settled(cx: &Cx, n: usize) -> Result<crate::client::Replica, Stop> {
    cx.server_writes(&others(n)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, cx).await?;
    Ok(replica)
}

/// What differs is found at a checkpoint, in the session or after it.
async fn heal(cx: &Cx, replica: &crate::client::Replica) -> Result<(), Stop> {
    for _ in 0..3 {
        sync_patiently(replica, cx).await?;
    }
    Ok(())
}

async fn lost_at_server(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&[Record::tombstone("gone", time(1), 77)])
        .await;
    let replica = settled(&cx, 120).await?;
    let before = cx.server_records().await;
    server_loses(&cx, &["k013", "k077"]).await;
    heal(&cx, &replica).await?;
    cx.equal("kept", 120, replica.entries().await?.len());
    cx.check(
        "offered",
        cx.server_records().await == before,
        "all records with their versions",
        "others",
    );
    let sent: BTreeSet<Vec<u8>> = pushed(&cx.seen().await)
        .into_iter()
        .map(|(_, r)| r.key)
        .collect();
    let want: BTreeSet<Vec<u8>> = [b"k013".to_vec(), b"k077".to_vec()].into();
    cx.equal("only-those", want, sent);
    Ok(())
}

async fn changed_at_server(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 60).await?;
    let before = cx.seen().await.len();
    let space = cx.space().to_owned();
    server_loses(&cx, &["k001"]).await;
    cx.server(|p| {
        p.service.with_space(&space, |s| {
            for key in ["k020", "k040"] {
                if let Some(stored) = s.records.get_mut(key.as_bytes()) {
                    stored.record = Record::put(key, time(8_000), 78, "never told");
                }
            }
        });
    })
    .await;
    heal(&cx, &replica).await?;
    same_as_server(&cx, "merged", &replica).await?;
    let entries = replica.entries().await?;
    let newer = entries.iter().filter(|(_, v)| v == "never told").count();
    cx.equal("merged", (60, 2), (entries.len(), newer));
    let came: Vec<Vec<u8>> = came(&cx.seen().await[before..])
        .into_iter()
        .filter(|r| r.value == b"never told")
        .map(|r| r.key)
        .collect();
    let once: BTreeSet<&Vec<u8>> = came.iter().collect();
    cx.equal("once", once.len(), came.len());
    Ok(())
}

/// The records of all answers to Reconcile and Snapshot.
fn came(seen: &[crate::peer::Seen]) -> Vec<v1::Record> {
    let of = |s: &crate::peer::Seen, answer: &Vec<u8>| -> Vec<v1::Record> {
        let answer = answer.as_slice();
        let reconcile = || v1::ReconcileResponse::decode(answer).map(|a| a.records);
        let chunk = || match v1::SnapshotResponse::decode(answer).map(|m| m.event) {
            Ok(Some(v1::snapshot_response::Event::Chunk(chunk))) => chunk.records,
            _ => Vec::new(),
        };
        match s.method.as_str() {
            "Reconcile" => reconcile().unwrap_or_default(),
            "Snapshot" => chunk(),
            _ => Vec::new(),
        }
    };
    let answers = seen
        .iter()
        .flat_map(|s| s.answers.iter().map(move |a| (s, a)));
    answers.flat_map(|(s, a)| of(s, a)).collect()
}

async fn salt(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 40).await?;
    let mut salts = Vec::new();
    for key in ["k001", "k011", "k021"] {
        let before = cx.seen().await.len();
        server_loses(&cx, &[key]).await;
        heal(&cx, &replica).await?;
        let seen = cx.seen().await;
        let own: BTreeSet<u64> = reconciles(&seen[before..]).iter().map(|r| r.salt).collect();
        salts.push(own);
        let refused = calls(&seen[before..], "Reconcile")
            .iter()
            .filter(|s| s.answers.is_empty())
            .count();
        cx.equal("within", 0, refused);
    }
    let distinct: BTreeSet<u64> = salts.iter().flatten().copied().collect();
    let enough = salts.iter().all(|s| !s.is_empty()) && distinct.len() >= 3;
    cx.check(
        "fresh",
        enough,
        "a salt for each session",
        format!("{salts:x?}"),
    );
    Ok(())
}

/// Turns a bit of the fingerprints of checkpoints and ends of snapshots.
async fn lie(cx: &Cx) {
    fn turn(states: &mut [v1::RangeState]) {
        for state in states {
            if let Some(byte) = state.fingerprint.last_mut() {
                *byte ^= 1;
            }
        }
    }
    cx.server(|p| {
        p.script(|s| {
            s.always(
                "Watch",
                bend(|_, m: &mut v1::WatchResponse| {
                    if let Some(v1::watch_response::Event::Checkpoint(c)) = &mut m.event {
                        turn(&mut c.ranges);
                    }
                }),
            );
            s.always(
                "Snapshot",
                bend(|_, m: &mut v1::SnapshotResponse| {
                    if let Some(v1::snapshot_response::Event::Complete(c)) = &mut m.event {
                        turn(&mut c.ranges);
                    }
                }),
            );
            s.always(
                "Hello",
                bend(|_, m: &mut v1::HelloResponse| m.equal.fill(false)),
            );
        });
    })
    .await;
}

async fn never_equal(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 30).await?;
    let before = cx.seen().await.len();
    lie(&cx).await;
    replica.watch().await?;
    let came = until(&cx, |seen| !calls(&seen[before..], "Snapshot").is_empty()).await?;
    let seen = cx.seen().await;
    let at = seen
        .iter()
        .skip(before)
        .position(|s| s.method == "Snapshot")
        .map_or(seen.len(), |i| i + before);
    let own = reconciles(&seen[before..at]);
    let sessions: BTreeSet<u64> = own.iter().map(|r| r.salt).collect();
    cx.check(
        "then-snapshot",
        came && !sessions.is_empty() && sessions.len() <= 2,
        "one or two sessions, then a Snapshot",
        format!("{} sessions, snapshot: {came}", sessions.len()),
    );
    let last = own.last().map(|r| r.salt);
    let lengths: BTreeSet<u32> = own
        .iter()
        .filter(|r| Some(r.salt) == last)
        .map(|r| r.digest_len)
        .collect();
    cx.check(
        "full-digests",
        sessions.len() < 2 || lengths == BTreeSet::from([32]),
        "digest_len 32",
        format!("{lengths:?}"),
    );
    // what follows the Snapshot at once belongs to it
    tokio::time::sleep(Duration::from_secs(1)).await;
    let then = cx.seen().await.len();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let later = cx.seen().await;
    let heals = later[then..]
        .iter()
        .filter(|s| matches!(s.method.as_str(), "Snapshot" | "Reconcile"))
        .count();
    cx.equal("then-rest", 0, heals);
    Ok(())
}

async fn lagging(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(20)).await;
    let early = head(&cx).await;
    let replica = cx.open("a").await?;
    for i in 0..4u64 {
        cx.server_writes(&[Record::put(format!("later{i}"), time(7_000 + i), 77, "v")])
            .await;
    }
    sync_patiently(&replica, &cx).await?;
    let highest = head(&cx).await.sequence;
    let before = cx.seen().await.len();
    server_loses(&cx, &["k003"]).await;
    cx.server(|p| {
        p.script(|s| {
            s.next(
                "Reconcile",
                bend(move |_, m: &mut v1::ReconcileResponse| {
                    if let Some(position) = &mut m.position {
                        position.head = Some(early);
                    }
                }),
            );
        });
    })
    .await;
    heal(&cx, &replica).await?;
    let seen = cx.seen().await;
    let lower: Vec<u64> = cursors(&seen)
        .into_iter()
        .filter(|(i, c)| *i >= before && c.sequence < highest)
        .map(|(_, c)| c.sequence)
        .collect();
    cx.check(
        "not-lowered",
        lower.is_empty(),
        format!("at least {highest}"),
        format!("{lower:?}"),
    );
    same_as_server(&cx, "done", &replica).await?;
    cx.equal("done", 24, replica.entries().await?.len());
    Ok(())
}

async fn moving_server(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 900).await?;
    let first = head(&cx).await.sequence;
    let before = cx.seen().await.len();
    server_loses(&cx, &["k850"]).await;
    cx.server(|p| {
        p.script(|s| {
            s.next("Reconcile", crate::peer::Action::Pass);
            let late = crate::peer::Action::Delay(Duration::from_millis(1_200));
            s.next("Reconcile", late);
        });
    })
    .await;
    replica.watch().await?;
    let second = until(&cx, |seen| calls(&seen[before..], "Reconcile").len() > 1).await?;
    cx.server_writes(&[Record::put("a-first", time(9_000), 77, "meanwhile")])
        .await;
    let after = |seen: &[crate::peer::Seen]| -> Option<v1::Cursor> {
        let last = seen.iter().rposition(|s| s.method == "Reconcile")?;
        let watch = seen.iter().skip(last).find(|s| s.method == "Watch")?;
        held_of("Watch", &watch.message).first()?.cursor
    };
    until(&cx, |seen| after(&seen[before..]).is_some()).await?;
    let cursor = after(&cx.seen().await[before..]).map(|c| c.sequence);
    // a session of one answer has one position
    cx.check(
        "first-position",
        !second || cursor.is_some_and(|c| c <= first),
        format!("at most {first}"),
        format!("{cursor:?}"),
    );
    replica.await_idle().await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "done", &replica).await
}

async fn other_epoch(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 40).await?;
    let genuine = head(&cx).await;
    server_loses(&cx, &["k003", "k030"]).await;
    let foreign = v1::Cursor {
        epoch: genuine.epoch ^ 0xff,
        ..genuine
    };
    cx.server(|p| {
        p.script(|s| {
            s.next(
                "Reconcile",
                bend(move |_, m: &mut v1::ReconcileResponse| {
                    if let Some(position) = &mut m.position {
                        position.head = Some(foreign);
                    }
                }),
            );
        });
    })
    .await;
    heal(&cx, &replica).await?;
    let seen = cx.seen().await;
    let first = seen
        .iter()
        .position(|s| s.method == "Reconcile")
        .unwrap_or(seen.len());
    let hello = seen.iter().skip(first).any(|s| s.method == "Hello");
    cx.check("begins-anew", hello, "a Hello after the answer", "none");
    let adopted = cursors(&seen)
        .iter()
        .filter(|(_, c)| c.epoch == foreign.epoch)
        .count();
    cx.equal("not-adopted", 0, adopted);
    same_as_server(&cx, "done", &replica).await?;
    cx.equal("done", 40, replica.entries().await?.len());
    Ok(())
}

async fn malformed_answers(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 60).await?;
    let planted = Record::put("k0301", time(1), 5, "planted").to_wire();
    let changes: [fn(&mut v1::ReconcileResponse, &v1::Record); 4] = [
        |m, _| m.parts.truncate(m.parts.len().saturating_sub(1)),
        |m, _| m.parts.push(4),
        |m, r| m.records.extend([r.clone(), r.clone()]),
        |m, _| m.parts = vec![7],
    ];
    for (i, change) in changes.into_iter().enumerate() {
        server_loses(&cx, &[&format!("k0{}0", i + 1)]).await;
        let planted = planted.clone();
        let action = bend(move |_, m: &mut v1::ReconcileResponse| change(m, &planted));
        cx.server(|p| p.script(|s| s.next("Reconcile", action)))
            .await;
        heal(&cx, &replica).await?;
        let entries = replica.entries().await?;
        let odd = entries.iter().filter(|(_, v)| v == "planted").count();
        cx.equal("nothing-used", (60, 0), (entries.len(), odd));
    }
    same_as_server(&cx, "done", &replica).await
}

/// k001 is deleted and its tombstone compacted away, the content of k005 rots.
async fn compacted_and_rotten(cx: &Cx) {
    cx.server_writes(&[Record::tombstone("k001", time(1_000), 77)])
        .await;
    cx.server_writes(&[Record::put("later", time(9_000), 77, "v")])
        .await;
    let space = cx.space().to_owned();
    cx.server(|p| p.service.with_space(&space, |s| s.compact(time(5_000))))
        .await;
    server_loses(cx, &["k005"]).await;
    cx.server(|p| {
        p.script(|s| {
            s.always(
                "Reconcile",
                bend(|_, m: &mut v1::ReconcileResponse| {
                    m.wanted = vec![v1::Range {
                        start: b"k005".to_vec(),
                        end: Some(b"k005\0".to_vec()),
                    }];
                }),
            );
        });
    })
    .await;
}

async fn keys_of(replica: &crate::client::Replica) -> Result<Vec<String>, Stop> {
    let entries = replica.entries().await?.into_iter();
    Ok(entries.map(|(key, _)| key).collect())
}

async fn wanted(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 20).await?;
    let before = cx.server_records().await;
    compacted_and_rotten(&cx).await;
    heal(&cx, &replica).await?;
    let keys = keys_of(&replica).await?;
    let has = |key: &str| keys.iter().any(|k| k == key);
    cx.check("deleted", !has("k001"), "no k001", "k001");
    cx.check("not-dropped", has("k005"), "k005", "no k005");
    let original = before.iter().find(|r| r.key == b"k005");
    let there = cx.server_records().await;
    cx.check(
        "offered",
        there.iter().any(|r| Some(r) == original),
        "k005 as it was",
        "it is missing, or another",
    );
    Ok(())
}

async fn wanted_read_only(cx: Cx) -> Result<(), Stop> {
    granted(&cx, v1::Access::Read as i32).await;
    let replica = settled(&cx, 20).await?;
    compacted_and_rotten(&cx).await;
    heal(&cx, &replica).await?;
    let keys = keys_of(&replica).await?;
    let has = |key: &str| keys.iter().any(|k| k == key);
    cx.check("deleted", !has("k001"), "no k001", "k001");
    let aside = replica.contents().await?.quarantined;
    cx.equal("kept-aside", (true, 1), (has("k005"), aside));
    cx.equal("not-sent", 0, pushed(&cx.seen().await).len());
    Ok(())
}

/// Hello grants this access to all keys, and nothing else.
async fn granted(cx: &Cx, access: i32) {
    cx.server(|p| {
        p.script(|s| {
            s.always(
                "Hello",
                bend(move |_, m: &mut v1::HelloResponse| {
                    m.grants = vec![v1::Grant {
                        key_prefix: vec![],
                        access,
                    }];
                }),
            );
        });
    })
    .await;
}

async fn read_only(cx: Cx, access: i32) -> Result<(), Stop> {
    granted(&cx, access).await;
    let replica = settled(&cx, 40).await?;
    server_loses(&cx, &["k007"]).await;
    heal(&cx, &replica).await?;
    let contents = replica.contents().await?;
    let shown = contents.entries.iter().any(|e| e.key == b"k007");
    cx.equal("kept-aside", (40, true), (contents.entries.len(), shown));
    cx.equal("reported", 1, contents.quarantined);
    cx.equal("not-sent", 0, pushed(&cx.seen().await).len());
    Ok(())
}

async fn not_offered(cx: Cx) -> Result<(), Stop> {
    cx.server(|p| p.service.with_settings(|s| s.features.clear()))
        .await;
    let replica = settled(&cx, 20).await?;
    cx.server(|p| p.service.wipe()).await;
    heal(&cx, &replica).await?;
    cx.equal("unused", 0, calls(&cx.seen().await, "Reconcile").len());
    same_as_server(&cx, "healed", &replica).await?;
    cx.equal("healed", 20, replica.entries().await?.len());
    Ok(())
}

async fn replaced_and_compacted(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(10)).await;
    let space = cx.space().to_owned();
    let old = cx
        .server(|p| p.service.with_space(&space, |s| s.clone()))
        .await;
    cx.server_writes(&[Record::put(
        "lost",
        time(50),
        77,
        "of a commit that is gone",
    )])
    .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| p.service.with_space(&space, |s| *s = old))
        .await;
    cx.server_writes(&[Record::tombstone("k009", time(1_000), 77)])
        .await;
    cx.server_writes(&[Record::put("later", time(9_000), 77, "v")])
        .await;
    cx.server(|p| p.service.with_space(&space, |s| s.compact(time(5_000))))
        .await;
    heal(&cx, &replica).await?;
    let here = replica.entries().await?.iter().any(|(k, _)| k == "lost");
    cx.check("kept", here, "the record of the lost commit", "it is gone");
    let there = cx.server_records().await.iter().any(|r| r.key == b"lost");
    cx.check("offered", there, "it is at the server", "it is not");
    Ok(())
}

async fn unequal_again(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 300).await?;
    cx.server(|p| p.service.wipe()).await;
    cx.server_writes(&others(300)).await;
    let before = cx.seen().await.len();
    lie(&cx).await;
    replica.watch().await?;
    // a Snapshot may take the place of the second session
    let salts = |seen: &[crate::peer::Seen]| {
        let mut salts: Vec<u64> = reconciles(seen).iter().map(|r| r.salt).collect();
        salts.dedup();
        salts
    };
    until(&cx, |seen| {
        let own = &seen[before..];
        salts(own).len() > 1 || !calls(own, "Snapshot").is_empty()
    })
    .await?;
    let seen = cx.seen().await;
    let own = reconciles(&seen[before..]);
    let salts = salts(&seen[before..]);
    let others = !calls(&seen[before..], "Snapshot").is_empty();
    cx.check(
        "session",
        !salts.is_empty() || others,
        "a Reconcile, or a Snapshot",
        format!("{} sessions", salts.len()),
    );
    let second = salts.get(1).copied();
    let lengths: BTreeSet<u32> = own
        .iter()
        .filter(|r| Some(r.salt) == second)
        .map(|r| r.digest_len)
        .collect();
    cx.check(
        "full-digests",
        second.is_none() || lengths == BTreeSet::from([32]),
        "digest_len 32",
        format!("{lengths:?}"),
    );
    Ok(())
}

async fn not_yet_verified(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 40).await?;
    server_loses(&cx, &["k003"]).await;
    let before = cx.seen().await.len();
    cx.server(|p| {
        p.script(|s| {
            s.next("Watch", crate::peer::Action::Pass);
            let late = crate::peer::Action::Delay(Duration::from_secs(2));
            s.next("Watch", late);
        });
    })
    .await;
    replica.watch().await?;
    until(&cx, |seen| {
        let healed = seen.iter().rposition(|s| s.method == "Reconcile");
        healed.is_some_and(|at| seen[at..].iter().any(|s| s.method == "Push"))
    })
    .await?;
    // a Hello, or what a Watch answers, may have compared in full
    let compared = |seen: &[crate::peer::Seen]| {
        let healed = seen.iter().rposition(|s| s.method == "Reconcile");
        let after = &seen[healed.unwrap_or(before)..];
        let told = |s: &crate::peer::Seen| s.method == "Watch" && !s.answers.is_empty();
        after.iter().any(|s| s.method == "Hello" || told(s))
    };
    let deadline = std::time::Instant::now() + cx.patience();
    let mut early = false;
    while std::time::Instant::now() < deadline {
        let verified = replica.contents().await?.verified;
        if compared(&cx.seen().await) {
            break;
        }
        early |= verified;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut verified = false;
    while std::time::Instant::now() < deadline && !verified {
        verified = replica.contents().await?.verified;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cx.equal("verified", true, verified);
    cx.equal("not-verified", false, early);
    Ok(())
}

async fn two_ranges(cx: Cx) -> Result<(), Stop> {
    let of = |name: &str| -> Vec<Record> {
        (0..40)
            .map(|i| Record::put(format!("{name}/{i:02}"), time(i), 77, "v"))
            .collect()
    };
    for name in ["a", "b", "c"] {
        cx.server_writes(&of(name)).await;
    }
    let all = cx.server_records().await;
    let replica = cx
        .open_with("a", "a", |o| {
            o.key_prefixes = vec![b"a/".to_vec(), b"c/".to_vec()]
        })
        .await?;
    sync_patiently(&replica, &cx).await?;
    server_loses(&cx, &["a/07", "b/07", "c/07"]).await;
    heal(&cx, &replica).await?;
    let seen = cx.seen().await;
    let refused = calls(&seen, "Reconcile")
        .iter()
        .filter(|s| s.answers.is_empty())
        .count();
    cx.equal("within", 0, refused);
    let found = seen.iter().position(|s| s.method == "Reconcile");
    let offered = pushed(&seen).into_iter().find(|(_, r)| r.key == b"a/07");
    let until = offered.map_or(seen.len(), |(i, _)| i);
    let again = calls(&seen[found.unwrap_or(until).min(until)..until], "Snapshot").len();
    cx.equal("noted", 0, again);
    let there = cx.server_records().await;
    let back = |key: &[u8]| there.iter().any(|r| r.key == key && all.contains(r));
    cx.equal("healed", (true, true), (back(b"a/07"), back(b"c/07")));
    let entries = replica.entries().await?;
    let others = entries.iter().filter(|(k, _)| k.starts_with('b')).count();
    cx.equal("only-held", (80, 0), (entries.len(), others));
    Ok(())
}

async fn large(cx: Cx) -> Result<(), Stop> {
    cx.server(|p| {
        p.service
            .with_settings(|s| s.limits.max_push_records = 2_000)
    })
    .await;
    let replica = settled(&cx, 1_000).await?;
    let before = cx.seen().await.len();
    let lost: Vec<String> = (0..20).map(|i| format!("k{:03}", i * 50)).collect();
    let lost: Vec<&str> = lost.iter().map(String::as_str).collect();
    server_loses(&cx, &lost).await;
    let space = cx.space().to_owned();
    cx.server(|p| {
        p.service.with_space(&space, |s| {
            for i in 0..20 {
                let key = format!("k{:03}", i * 50 + 7);
                if let Some(stored) = s.records.get_mut(key.as_bytes()) {
                    stored.record = Record::put(&key, time(8_000), 78, "never told");
                }
            }
        });
    })
    .await;
    heal(&cx, &replica).await?;
    same_as_server(&cx, "healed", &replica).await?;
    cx.equal("healed", 1_000, replica.entries().await?.len());
    let sent = pushed(&cx.seen().await).len();
    cx.check("few-records", sent <= 60, "at most 60 records", sent);
    let came = came(&cx.seen().await[before..]).len();
    cx.check("few-records", came <= 100, "at most 100 come", came);
    Ok(())
}
