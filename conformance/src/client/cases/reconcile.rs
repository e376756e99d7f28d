//! Reconcile as a client speaks it: what it asks, what it believes, what it does
//! about what differs.

use super::tools::{bend, calls, granted, heal, server_loses, settled};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::client::context::pushed;
use crate::oracle::Record;
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, positive};
use prost::Message;
use std::collections::BTreeSet;

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
                &["RECON-031", "RECON-033", "RECON-055"],
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
