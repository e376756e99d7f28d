//! Writes of the application: their versions and order, batches, what becomes of
//! those that are old, refused or beaten.

use super::tools::{cursors, hello_says};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::client::context::{pushed, visible_entries};
use crate::oracle::Record;
use crate::peer::Seen;
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use prost::Message;
use std::time::{SystemTime, UNIX_EPOCH};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "writes/batch",
        profile: Profile::Core,
        needs: &[Need::Batches],
        about: "The application writes three records as one batch, between single writes.",
        checks: &[
            positive(
                "whole",
                &["PUSH-024", "CLIENT-009"],
                "they are pushed together, with `atomic`",
            ),
            positive(
                "in-order",
                &["CLIENT-013"],
                "in the order in which they were made",
            ),
            positive("done", &["CLIENT-013"], "everything arrives"),
        ],
        run: |cx| Box::pin(batch(cx)),
    },
    Case {
        name: "writes/batches-one-refused",
        profile: Profile::Core,
        needs: &[Need::Batches],
        about: "Five batches wait for the server, which refuses one record of the third.",
        checks: &[
            positive("others", &["PUSH-024"], "the other four arrive"),
            negative(
                "refused",
                "others",
                &["PUSH-041"],
                "the writes of the third are rejected, and no others",
            ),
        ],
        run: |cx| Box::pin(batches_one_refused(cx)),
    },
    Case {
        name: "writes/batch-too-large",
        profile: Profile::Hardened,
        needs: &[Need::Batches],
        about: "A batch with as many records as one Push may have, and one with more.",
        checks: &[
            positive("largest", &["PUSH-024"], "the largest is taken and arrives"),
            negative(
                "larger",
                "largest",
                &["PUSH-025"],
                "the larger is refused to the application, and nothing of it is seen",
            ),
        ],
        run: |cx| Box::pin(batch_too_large(cx)),
    },
    Case {
        name: "writes/one-key-unsent",
        profile: Profile::Core,
        needs: &[],
        about: "Several writes of each of two keys, before anything is sent.",
        checks: &[
            positive(
                "one-each",
                &["PUSH-006"],
                "no Push holds two writes of one key",
            ),
            positive(
                "last-counts",
                &["PUSH-005"],
                "the last of each is what the server holds",
            ),
        ],
        run: |cx| Box::pin(one_key_unsent(cx)),
    },
    Case {
        name: "writes/above-replaced",
        profile: Profile::Core,
        needs: &[],
        about: "The record that is overwritten is dated four minutes ahead.",
        checks: &[positive(
            "above",
            &["CLOCK-002"],
            "the write's version is above it",
        )],
        run: |cx| Box::pin(above_replaced(cx)),
    },
    Case {
        name: "writes/limits-above-ceiling",
        profile: Profile::Hardened,
        needs: &[],
        about: "Hello advertises values of any size.",
        checks: &[positive(
            "ceiling",
            &["LIMIT-016"],
            "a value above the ceiling is refused, a large one below it is taken",
        )],
        run: |cx| Box::pin(above_ceiling(cx)),
    },
    Case {
        name: "writes/limits-below-floor",
        profile: Profile::Hardened,
        needs: &[],
        about: "Hello advertises limits far below their floors.",
        checks: &[positive(
            "floor",
            &["LIMIT-007"],
            "values and batches at the floor are written and pushed",
        )],
        run: |cx| Box::pin(below_floor(cx)),
    },
    Case {
        name: "writes/cursor-stays",
        profile: Profile::Core,
        needs: &[],
        about: "The client pushes although it has not followed what others committed; the server tells no fingerprints.",
        checks: &[
            positive(
                "not-moved",
                &["PUSH-029"],
                "the next Watch begins at the cursor from before the push",
            ),
            positive(
                "complete",
                &["PUSH-029", "WATCH-042"],
                "nothing of the others is missed",
            ),
        ],
        run: |cx| Box::pin(cursor_stays(cx)),
    },
    Case {
        name: "writes/offline-for-long",
        profile: Profile::Core,
        needs: &[],
        about: "Two hundred writes and deletions wait while there is no server.",
        checks: &[
            positive(
                "at-once",
                &["CLIENT-007"],
                "each is taken without the network",
            ),
            positive(
                "limits",
                &["LIMIT-006"],
                "they arrive in Pushes within the limits",
            ),
            positive("all", &["CLIENT-013"], "and the server holds all of them"),
        ],
        run: |cx| Box::pin(offline_for_long(cx)),
    },
    Case {
        name: "writes/odd-bytes",
        profile: Profile::Hardened,
        needs: &[],
        about: "A key of the greatest allowed length, keys that differ in case or in their normal form only, an empty value, and bytes that are no text.",
        checks: &[positive(
            "bytes",
            &["MODEL-007", "MODEL-016"],
            "they arrive byte for byte",
        )],
        run: |cx| Box::pin(odd_bytes(cx)),
    },
];

pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

fn pushes(seen: &[Seen]) -> Vec<v1::PushRequest> {
    seen.iter()
        .filter(|s| s.method == "Push")
        .filter_map(|s| v1::PushRequest::decode(s.message.as_slice()).ok())
        .collect()
}

async fn batch(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.put("single-1", "v").await?;
    replica
        .batch(&[("b1", "v"), ("b2", "v"), ("b3", "v")])
        .await?;
    replica.put("single-2", "v").await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let with: Vec<v1::PushRequest> = pushes(&seen)
        .into_iter()
        .filter(|p| p.records.iter().any(|r| r.key.starts_with(b"b")))
        .collect();
    let whole = with.iter().all(|p| {
        p.atomic && p.records.len() == 3 && p.records.iter().all(|r| r.key.starts_with(b"b"))
    });
    cx.check(
        "whole",
        whole && !with.is_empty(),
        "one atomic Push of exactly the three",
        format!("{with:?}"),
    );
    let orders: Vec<Vec<Vec<u8>>> = with
        .iter()
        .map(|p| p.records.iter().map(|r| r.key.clone()).collect())
        .collect();
    cx.check(
        "in-order",
        !orders.is_empty() && orders.iter().all(|keys| keys.is_sorted()),
        "b1, b2, b3",
        format!("{orders:?}"),
    );
    same_as_server(&cx, "done", &replica).await
}

async fn batches_one_refused(cx: Cx) -> Result<(), Stop> {
    let space = cx.space().to_owned();
    cx.server(|p| {
        p.service.with_space(&space, |s| {
            s.refuses.insert(b"c2".to_vec(), "QUOTA_EXCEEDED")
        })
    })
    .await;
    let replica = cx.open("a").await?;
    replica.set_online(false).await?;
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        let keys = [1, 2, 3].map(|i| format!("{name}{i}"));
        replica.batch(&keys.map(|k| (k, "v"))).await?;
    }
    replica.set_online(true).await?;
    sync_patiently(&replica, &cx).await?;
    let there: Vec<String> = (cx.server_records().await.iter())
        .map(|r| r.key.escape_ascii().to_string())
        .collect();
    let wanted: Vec<String> = (names.iter().filter(|n| **n != "c"))
        .flat_map(|name| [1, 2, 3].map(|i| format!("{name}{i}")))
        .collect();
    cx.equal("others", wanted, there);
    let pending = replica.contents().await?.pending;
    let rejected: Vec<(String, bool)> = (pending.iter())
        .map(|p| (p.key.escape_ascii().to_string(), !p.rejected.is_empty()))
        .collect();
    let third = ["c1", "c2", "c3"].map(|k| (k.to_owned(), true));
    cx.equal("refused", third.to_vec(), rejected);
    Ok(())
}

async fn batch_too_large(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let keys =
        |name: &str, n: usize| -> Vec<String> { (0..n).map(|i| format!("{name}{i:03}")).collect() };
    let as_batch = |keys: &[String]| -> Vec<(String, String)> {
        keys.iter().map(|k| (k.clone(), "v".to_owned())).collect()
    };
    let largest = replica.batch(&as_batch(&keys("l", 200))).await;
    cx.check("largest", largest.is_ok(), "taken", format!("{largest:?}"));
    let larger = replica.batch(&as_batch(&keys("m", 201))).await;
    let seen = replica.entries().await?;
    let none = seen.iter().all(|(k, _)| !k.starts_with('m'));
    cx.check(
        "larger",
        larger.is_err() && none,
        "refused, and nothing of it seen",
        format!("{larger:?}, {none}"),
    );
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "largest", &replica).await
}

async fn one_key_unsent(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    for i in 0..4 {
        replica.put("k", format!("k {i}")).await?;
        replica.put("l", format!("l {i}")).await?;
    }
    replica.delete("l").await?;
    sync_patiently(&replica, &cx).await?;
    for push in pushes(&cx.seen().await) {
        let mut keys: Vec<_> = push.records.iter().map(|r| r.key.clone()).collect();
        let n = keys.len();
        keys.sort();
        keys.dedup();
        cx.equal("one-each", n, keys.len());
    }
    let there = cx.server_records().await;
    let k = there
        .iter()
        .find(|r| r.key == b"k")
        .map(|r| r.value.clone());
    let l = there
        .iter()
        .find(|r| r.key == b"l")
        .map(Record::is_tombstone);
    cx.equal("last-counts", (Some(b"k 3".to_vec()), Some(true)), (k, l));
    Ok(())
}

async fn above_replaced(cx: Cx) -> Result<(), Stop> {
    let ahead = (now() + 240_000) << 16;
    cx.server_writes(&[Record::put("k", ahead, 77, "ahead")])
        .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.put("k", "mine").await?;
    sync_patiently(&replica, &cx).await?;
    let sent: Vec<u64> = pushed(&cx.seen().await)
        .into_iter()
        .map(|(_, r)| r.time)
        .collect();
    let above = !sent.is_empty() && sent.iter().all(|t| *t > ahead);
    cx.check(
        "above",
        above,
        format!("above {ahead}"),
        format!("{sent:?}"),
    );
    Ok(())
}

async fn above_ceiling(cx: Cx) -> Result<(), Stop> {
    hello_says(&cx, |m| {
        if let Some(limits) = &mut m.limits {
            limits.max_value_bytes = 1 << 40;
        }
    })
    .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let large = replica.put("large", vec![b'v'; 512 << 10]).await;
    let larger = replica.put("larger", vec![b'v'; (16 << 20) + 1]).await;
    cx.check(
        "ceiling",
        large.is_ok() && larger.is_err(),
        "512 KiB are taken, 16 MiB and a byte refused",
        format!("{large:?}, {larger:?}"),
    );
    Ok(())
}

async fn below_floor(cx: Cx) -> Result<(), Stop> {
    hello_says(&cx, |m| {
        if let Some(limits) = &mut m.limits {
            limits.max_value_bytes = 10;
            limits.max_push_records = 1;
            limits.max_message_bytes = 100;
            limits.max_response_bytes = 100;
        }
    })
    .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let written = replica.put("k", vec![b'v'; 64 << 10]).await;
    cx.check(
        "floor",
        written.is_ok(),
        "64 KiB are written",
        format!("{written:?}"),
    );
    for i in 0..20 {
        replica.put(format!("l{i:02}"), "v").await?;
    }
    sync_patiently(&replica, &cx).await?;
    let arrived = visible_entries(&cx.server_records().await).len();
    cx.check(
        "floor",
        arrived == 21,
        "the server holds 21 records",
        format!("it holds {arrived}"),
    );
    same_as_server(&cx, "floor", &replica).await
}

async fn cursor_stays(cx: Cx) -> Result<(), Stop> {
    // nothing but the cursor leads to what was missed
    cx.server(|p| p.service.with_settings(|s| s.features.clear()))
        .await;
    cx.server_writes(&others(5)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let known = cursors(&seen)
        .last()
        .map(|(_, c)| c.sequence)
        .unwrap_or(0)
        .max(super::tools::head(&cx).await.sequence);
    let before = seen.len();
    cx.server_writes(&[Record::put("theirs", time(9_000), 77, "v")])
        .await;
    replica.put("mine", "v").await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let push = seen
        .iter()
        .skip(before)
        .position(|s| s.method == "Push")
        .map(|i| i + before);
    let next = push.and_then(|at| {
        cursors(&seen)
            .into_iter()
            .find(|(i, _)| *i > at && seen[*i].method == "Watch")
    });
    cx.check(
        "not-moved",
        next.is_none_or(|(_, c)| c.sequence <= known),
        format!("at most {known}"),
        format!("{next:?}"),
    );
    same_as_server(&cx, "complete", &replica).await
}

async fn offline_for_long(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server_down().await;
    for i in 0..200 {
        let key = format!("k{:03}", i % 150);
        let written = match i % 10 {
            9 => replica.delete(&key).await,
            _ => replica.put(&key, format!("value {i}")).await,
        };
        cx.check("at-once", written.is_ok(), "taken", format!("{written:?}"));
    }
    cx.server(|p| p.service.with_settings(|s| s.limits.max_push_records = 100))
        .await;
    cx.server_up().await?;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let most = pushes(&cx.seen().await)
        .iter()
        .map(|p| p.records.len())
        .max()
        .unwrap_or(0);
    cx.check("limits", most <= 100, "at most 100 records in a Push", most);
    same_as_server(&cx, "all", &replica).await?;
    cx.equal("all", 150, cx.server_records().await.len());
    Ok(())
}

async fn odd_bytes(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    let long = vec![0xff; 512];
    let all: Vec<u8> = (0..=255).collect();
    replica.put(&long, "long").await?;
    replica.put([0u8], "zero").await?;
    replica.put("empty", "").await?;
    replica.put("all", &all).await?;
    let alike = ["Key", "key", "\u{e9}", "e\u{301}"];
    for key in alike {
        replica.put(key, key).await?;
    }
    sync_patiently(&replica, &cx).await?;
    let there = cx.server_records().await;
    let value = |key: &[u8]| there.iter().find(|r| r.key == key).map(|r| r.value.clone());
    cx.equal("bytes", Some(b"long".to_vec()), value(&long));
    cx.equal("bytes", Some(b"zero".to_vec()), value(&[0]));
    cx.equal("bytes", Some(vec![]), value(b"empty"));
    cx.equal("bytes", Some(all), value(b"all"));
    for key in alike {
        cx.equal("bytes", Some(key.into()), value(key.as_bytes()));
    }
    Ok(())
}
