//! Following the server: cursors, live changes, silence.

use super::tools::{bend_changes, calls, until};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::oracle::Record;
use crate::peer::Action;
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, positive};
use prost::Message;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "watch/resumed",
        profile: Profile::Core,
        needs: &[Need::DurableStore],
        about: "Sessions before and after the process is killed; the server changes in between.",
        checks: &[
            positive(
                "complete",
                &["HIST-009", "SNAP-018"],
                "after each session the store holds what the server holds",
            ),
            positive(
                "genuine-cursors",
                &["HIST-007"],
                "every cursor that is sent is one that the server gave",
            ),
        ],
        run: |cx| Box::pin(resumed(cx)),
    },
    Case {
        name: "watch/live",
        profile: Profile::Live,
        needs: &[Need::Live],
        about: "The client watches; the server and the client write by turns.",
        checks: &[
            positive(
                "comes",
                &["WATCH-042"],
                "what is written at the server is seen without a further session",
            ),
            positive(
                "together",
                &["WATCH-016"],
                "the records of one commit are seen together",
            ),
            positive(
                "goes",
                &["PUSH-027"],
                "what is written here reaches the server",
            ),
        ],
        run: |cx| Box::pin(live(cx)),
    },
    Case {
        name: "watch/go-away",
        profile: Profile::Live,
        needs: &[Need::Live],
        about: "The server sends GOAWAY while a Push is under way, finishes what it accepted, and closes.",
        checks: &[
            positive(
                "finished",
                &["TRANS-036"],
                "the answer to the Push that was accepted counts: it is not sent again",
            ),
            positive(
                "elsewhere",
                &["TRANS-020"],
                "the next write goes over another connection",
            ),
            positive(
                "session",
                &["TRANS-020"],
                "when the old one is closed, a new session brings both sides together",
            ),
        ],
        run: |cx| Box::pin(go_away(cx)),
    },
    Case {
        name: "watch/duplicated",
        profile: Profile::Hardened,
        needs: &[],
        about: "Every message of a Watch comes twice.",
        checks: &[positive(
            "harmless",
            &["WATCH-012"],
            "the store holds what the server holds",
        )],
        run: |cx| Box::pin(duplicated(cx)),
    },
    Case {
        name: "watch/silent",
        profile: Profile::Live,
        needs: &[Need::Live],
        about: "A Watch is accepted and then nothing comes, ever.",
        checks: &[positive(
            "given-up",
            &["WATCH-031"],
            "after watchdog_ms the client tries again, and gets the changes",
        )],
        run: |cx| Box::pin(silent(cx)),
    },
    Case {
        name: "watch/no-end",
        profile: Profile::Hardened,
        needs: &[],
        about: "A Watch ends with status OK in the middle, without StreamEnd.",
        checks: &[positive(
            "not-taken-as-complete",
            &["WATCH-038"],
            "the client asks again until it has everything",
        )],
        run: |cx| Box::pin(no_end(cx)),
    },
    Case {
        name: "watch/unknown-things",
        profile: Profile::Hardened,
        needs: &[],
        about: "A server of a later minor version: unknown fields, features, limits, events.",
        checks: &[positive(
            "ignored",
            &["WATCH-042", "TRANS-030", "EXT-004", "EXT-006"],
            "the session succeeds, and the store holds what the server holds",
        )],
        run: |cx| Box::pin(unknown_things(cx)),
    },
    Case {
        name: "watch/outside-ranges",
        profile: Profile::Hardened,
        needs: &[Need::Ranges],
        about: "The server sends a record outside the ranges that were asked for.",
        checks: &[
            positive("ended", &["WATCH-015"], "the stream is ended"),
            positive("inside", &["SNAP-018"], "what lies inside is seen"),
            positive("not-stored", &["WATCH-015"], "what lies outside never is"),
        ],
        run: |cx| Box::pin(outside_ranges(cx)),
    },
];

async fn resumed(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(20)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "complete", &replica).await?;
    for round in 0..3u64 {
        cx.crash().await?;
        cx.server_writes(&[
            Record::put(format!("round{round}"), time(1_000 + round), 77, "v"),
            Record::put("k001", time(2_000 + round), 77, format!("round {round}")),
            Record::tombstone(format!("k01{round}"), time(2_000 + round), 77),
        ])
        .await;
        let replica = cx.open("a").await?;
        sync_patiently(&replica, &cx).await?;
        same_as_server(&cx, "complete", &replica).await?;
    }
    let space = cx.space().to_owned();
    let (epoch, commits) = cx
        .server(|p| {
            p.service
                .with_space(&space, |s| (s.epoch, s.commits.clone()))
        })
        .await;
    let odd: Vec<v1::Cursor> = cx
        .seen()
        .await
        .iter()
        .flat_map(|s| s.held())
        .filter_map(|h| h.cursor)
        .filter(|c| {
            c.epoch != epoch || (c.sequence != 0 && !commits.contains(&(c.sequence, c.tag)))
        })
        .collect();
    cx.check(
        "genuine-cursors",
        odd.is_empty(),
        "cursors that the server gave",
        format!("{odd:?}"),
    );
    Ok(())
}

/// Until the application sees this value, or patience runs out.
async fn sees(
    cx: &Cx,
    replica: &crate::client::Replica,
    key: &str,
    value: &str,
) -> Result<bool, Stop> {
    let deadline = std::time::Instant::now() + cx.patience();
    loop {
        let entries = replica.entries().await?;
        if entries.iter().any(|(k, v)| k == key && v == value) {
            return Ok(true);
        }
        if std::time::Instant::now() > deadline {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

async fn live(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(5)).await;
    let replica = cx.open("a").await?;
    replica.watch().await?;
    replica.await_idle().await?;
    for round in 0..3u64 {
        let value = format!("from there {round}");
        cx.server_writes(&[Record::put("there", time(9_000 + round), 77, &value)])
            .await;
        let came = sees(&cx, &replica, "there", &value).await?;
        cx.check("comes", came, value, "nothing within patience");
        replica.put("here", format!("from here {round}")).await?;
        replica.await_idle().await?;
        let went = cx
            .server_records()
            .await
            .iter()
            .any(|r| r.value == format!("from here {round}").into_bytes());
        cx.check(
            "goes",
            went,
            "the record at the server",
            "idle, but it is not there",
        );
    }
    let commit: Vec<Record> = (0..150)
        .map(|i| Record::put(format!("one{i:03}"), time(9_500), 77, "v"))
        .collect();
    cx.server_writes(&commit).await;
    let deadline = std::time::Instant::now() + cx.patience();
    let mut there = 0;
    while there < commit.len() && std::time::Instant::now() < deadline {
        let entries = replica.entries().await?;
        there = entries.iter().filter(|(k, _)| k.starts_with("one")).count();
        let whole = there == 0 || there == commit.len();
        cx.check("together", whole, "none or all of 150", there);
    }
    cx.equal("together", commit.len(), there);
    Ok(())
}

async fn duplicated(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(10)).await;
    let replica = cx.open("a").await?;
    cx.server(|p| p.script(|s| s.always("Watch", Action::Twice)))
        .await;
    sync_patiently(&replica, &cx).await?;
    cx.server_writes(&[Record::put("k003", time(5_000), 77, "changed")])
        .await;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "harmless", &replica).await?;
    // among what is new, a record that was brought before
    let known = cx
        .server_records()
        .await
        .into_iter()
        .find(|r| r.key == b"k003");
    let again = bend_changes(move |changes| {
        let known = known.iter().map(Record::to_wire);
        changes.records.splice(0..0, known);
    });
    cx.server(|p| p.script(|s| s.always("Watch", again))).await;
    cx.server_writes(&[Record::put("k004", time(6_000), 77, "changed")])
        .await;
    let _ = replica.try_sync(Duration::from_secs(4)).await?;
    same_as_server(&cx, "harmless", &replica).await
}

async fn silent(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    // no stream of that session is to take the silence
    replica.close().await?;
    let replica = cx.open("a").await?;
    cx.server(|p| p.script(|s| s.next("Watch", Action::Silent)))
        .await;
    replica.watch().await?;
    cx.server_writes(&[Record::put("k", time(1), 77, "late")])
        .await;
    let came = sees(&cx, &replica, "k", "late").await?;
    cx.check(
        "given-up",
        came,
        "the change, over another Watch",
        "nothing within patience",
    );
    Ok(())
}

async fn no_end(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(5)).await;
    let replica = cx.open("a").await?;
    cx.server(|p| p.script(|s| s.if_called("Snapshot", Action::EndAfter(1))))
        .await;
    sync_patiently(&replica, &cx).await?;
    for i in 0..5u64 {
        cx.server_writes(&[Record::put(format!("new{i}"), time(i), 77, "v")])
            .await;
    }
    cx.server(|p| {
        p.script(|s| {
            s.next("Watch", Action::EndAfter(2));
            s.next("Watch", Action::EndAfter(1));
        });
    })
    .await;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "not-taken-as-complete", &replica).await
}

/// Appends fields that nobody knows.
fn with_unknown(mut message: Vec<u8>) -> Vec<u8> {
    message.extend([0xc0, 0x3e, 0x05]); // 1000: varint
    message.extend([0xd2, 0x3e, 3, b'a', b'b', b'c']); // 1002: bytes
    message
}

async fn unknown_things(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(10)).await;
    cx.server(|p| {
        p.script(|s| {
            s.always(
                "Hello",
                Action::Rewrite(std::sync::Arc::new(|_, message| {
                    let mut hello =
                        v1::HelloResponse::decode(message.as_slice()).unwrap_or_default();
                    hello.features.push(88);
                    vec![with_unknown(hello.encode_to_vec())]
                })),
            );
            for method in ["Watch", "Snapshot"] {
                s.always(
                    method,
                    Action::Rewrite(std::sync::Arc::new(move |i, message| {
                        // events of a later version come around the first message
                        let unknown = vec![0xfa, 0x01, 0x02, 0x08, 0x01]; // field 31
                        let known = with_unknown(message);
                        if i == 0 && method == "Watch" {
                            vec![unknown.clone(), known, unknown]
                        } else if i == 0 {
                            vec![known, unknown]
                        } else {
                            vec![known]
                        }
                    })),
                );
            }
        });
    })
    .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server_writes(&[Record::put("k003", time(5_000), 77, "changed")])
        .await;
    replica.put("mine", "v").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "ignored", &replica).await
}

async fn outside_ranges(cx: Cx) -> Result<(), Stop> {
    let records = [
        Record::put("a/1", time(1), 77, "v"),
        Record::put("b/1", time(1), 77, "v"),
    ];
    cx.server_writes(&records).await;
    let replica = cx
        .open_with("a", "a", |open| open.key_prefixes = vec![b"a/".to_vec()])
        .await?;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| {
        let space = cx.space().to_owned();
        p.service.with_space(&space, |s| {
            s.quirks.insert(crate::peer::Quirk::WatchIgnoresRanges);
        });
    })
    .await;
    cx.server_writes(&[Record::put("b/2", time(2), 77, "v")])
        .await;
    // the session may fail: such a server is broken
    replica.watch().await?;
    replica.await_idle().await?;
    cx.server_writes(&[Record::put("b/3", time(3), 77, "v")])
        .await;
    // streams of before, however many, say nothing about this record
    let before = cx.seen().await.len();
    let again = until(&cx, |seen| !calls(&seen[before..], "Watch").is_empty()).await?;
    cx.check("ended", again, "another stream", "none");
    let keys: Vec<String> = replica
        .entries()
        .await?
        .into_iter()
        .map(|(k, _)| k)
        .collect();
    cx.check(
        "inside",
        keys.contains(&"a/1".to_owned()),
        "a/1",
        format!("{keys:?}"),
    );
    cx.check(
        "not-stored",
        keys.iter().all(|k| k.starts_with("a/")),
        "only keys of a/",
        format!("{keys:?}"),
    );
    Ok(())
}

async fn go_away(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    let replica = cx.open("a").await?;
    replica.watch().await?;
    replica.await_idle().await?;
    let slowly = Action::Delay(Duration::from_millis(600));
    cx.server(|p| p.script(|s| s.next("Push", slowly))).await;
    replica.put("accepted", "v").await?;
    until(&cx, |seen| !calls(seen, "Push").is_empty()).await?;
    cx.server(crate::peer::Peer::go_away).await;
    until(&cx, |seen| {
        calls(seen, "Push").iter().all(|p| !p.is_under_way())
    })
    .await?;
    replica.put("next", "v").await?;
    let sent = |seen: &[crate::peer::Seen], key: &[u8]| {
        let all = crate::client::context::pushed(seen);
        all.iter().filter(|(_, r)| r.key == key).count()
    };
    let arrives = until(&cx, |seen| sent(seen, b"next") > 0).await?;
    cx.check("elsewhere", arrives, "a Push of the next write", "none");
    replica.await_idle().await?;
    cx.equal("finished", 1, sent(&cx.seen().await, b"accepted"));
    cx.server_down().await;
    cx.server_up().await?;
    let before = cx.seen().await.len();
    cx.server_writes(&[Record::put("theirs", time(9_000), 77, "v")])
        .await;
    let again = until(&cx, |seen| !calls(&seen[before..], "Hello").is_empty()).await?;
    cx.check("session", again, "a Hello", "none");
    replica.await_idle().await?;
    same_as_server(&cx, "session", &replica).await
}
