//! What a replica bears from a server, and what it does not: messages without
//! end, calls without an answer, keys without measure, fields of later versions.

use super::tools::{calls, server_loses, until};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::{Cx, Outcome};
use crate::oracle::Record;
use crate::peer::{Action, Quirk, Seen};
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use prost::Message;
use std::time::{Duration, Instant};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "bounds/key",
        profile: Profile::Core,
        needs: &[],
        about: "A key of 512 bytes, and one of 513.",
        checks: &[
            positive(
                "longest",
                &["LIMIT-010"],
                "512 bytes are written and arrive",
            ),
            negative(
                "longer",
                "longest",
                &["LIMIT-010", "MODEL-005"],
                "513 are refused to the application, and never sent",
            ),
        ],
        run: |cx| Box::pin(key(cx)),
    },
    Case {
        name: "bounds/large-message",
        profile: Profile::Core,
        needs: &[],
        about: "A server whose messages are nearly as large as a replica has to bear.",
        checks: &[positive(
            "taken",
            &["LIMIT-011"],
            "a message of twice max_response_bytes is taken",
        )],
        run: |cx| Box::pin(large_message(cx)),
    },
    Case {
        name: "bounds/endless-message",
        profile: Profile::Hardened,
        needs: &[],
        about: "Answers begin with a message of 4 GiB, in Hello and in Snapshot.",
        checks: &[
            positive(
                "broken-off",
                &["LIMIT-011", "SEC-012"],
                "the replica breaks the call off long before its end",
            ),
            positive(
                "afterwards",
                &["CLIENT-031"],
                "with proper answers the session succeeds",
            ),
        ],
        run: |cx| Box::pin(endless(cx)),
    },
    Case {
        name: "bounds/slow-answer",
        profile: Profile::Core,
        needs: &[],
        about: "The answers to Hello and to a Push take nine seconds.",
        checks: &[positive(
            "awaited",
            &["LIMIT-013"],
            "the session succeeds with one of each",
        )],
        run: |cx| Box::pin(slow_answer(cx)),
    },
    Case {
        name: "bounds/no-answer",
        profile: Profile::Core,
        needs: &[],
        about: "A Push is never answered; the next one is.",
        checks: &[
            positive(
                "given-up",
                &["LIMIT-013"],
                "a minute later the replica has given it up, and its second Push is answered",
            ),
            positive("awaited", &["LIMIT-013"], "it waited 10 seconds"),
            positive(
                "unchanged",
                &["PUSH-031"],
                "the second one has the same record, version included",
            ),
        ],
        run: |cx| Box::pin(no_answer(cx)),
    },
    Case {
        name: "extension/fields-of-records",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A server of a later version sends records with fields that nobody knows, and loses one.",
        checks: &[
            positive(
                "taken",
                &["EXT-006", "EXT-004", "SNAP-018"],
                "the records are taken as they are without these fields",
            ),
            positive(
                "dropped",
                &["EXT-009"],
                "the lost one is offered without them",
            ),
        ],
        run: |cx| Box::pin(fields_of_records(cx)),
    },
];

async fn key(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    let longest = replica.put(vec![b'k'; 512], "v").await;
    let longer = replica.put(vec![b'k'; 513], "v").await;
    sync_patiently(&replica, &cx).await?;
    let there = cx.server_records().await;
    let lengths: Vec<usize> = there.iter().map(|r| r.key.len()).collect();
    cx.check(
        "longest",
        longest.is_ok() && lengths.contains(&512),
        "written, and at the server",
        format!("{longest:?}, {lengths:?}"),
    );
    let shown: Vec<usize> = replica
        .entries()
        .await?
        .iter()
        .map(|(k, _)| k.len())
        .collect();
    let kept_out = !shown.contains(&513) && !lengths.contains(&513);
    cx.check(
        "longer",
        matches!(longer, Err(Stop::Peer(_))) && kept_out,
        "a refusal, and no such record anywhere",
        format!("{longer:?}, {shown:?}, {lengths:?}"),
    );
    Ok(())
}

async fn large_message(cx: Cx) -> Result<(), Stop> {
    let space = cx.space().to_owned();
    let records: Vec<Record> = (0..25)
        .map(|i| Record::put(format!("k{i:02}"), time(i), 77, vec![b'v'; 20_000]))
        .collect();
    cx.server_writes(&records).await;
    cx.server(|p| {
        p.service.with_space(&space, |s| {
            s.quirks.insert(Quirk::BigChunks);
        })
    })
    .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let largest = calls(&seen, "Snapshot")
        .iter()
        .flat_map(|s| s.answers.iter().map(Vec::len))
        .max()
        .unwrap_or(0);
    // a replica may read by Watch instead, in messages of any size
    cx.check(
        "taken",
        largest == 0 || largest >= 500_000,
        "a chunk of half a megabyte",
        largest,
    );
    same_as_server(&cx, "taken", &replica).await
}

async fn endless(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(20)).await;
    cx.server(|p| {
        p.script(|s| {
            s.next("Hello", Action::Endless);
            s.next("Snapshot", Action::Endless);
        })
    })
    .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "afterwards", &replica).await?;
    let ended = until(&cx, |seen| {
        let mut odd = seen.iter().filter(|s| s.end.contains("endless message"));
        odd.any(|s| s.method == "Hello")
    })
    .await?;
    let ends: Vec<String> = cx
        .seen()
        .await
        .into_iter()
        .filter(|s| s.end.contains("endless message"))
        .map(|s| s.end)
        .collect();
    cx.check(
        "broken-off",
        ended && ends.iter().all(|e| e.contains("went away")),
        "the caller goes away",
        format!("{ends:?}"),
    );
    Ok(())
}

async fn slow_answer(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    let replica = cx.open("a").await?;
    replica.put("mine", "v").await?;
    let late = Action::Delay(Duration::from_secs(9));
    cx.server(|p| {
        p.script(|s| {
            s.next("Hello", late.clone());
            s.next("Push", late);
        })
    })
    .await;
    let outcome = replica.try_sync(cx.patience() * 2).await?;
    let seen = cx.seen().await;
    let count = (calls(&seen, "Hello").len(), calls(&seen, "Push").len());
    cx.check(
        "awaited",
        count == (1, 1),
        "one Hello, one Push",
        format!("{count:?}, {outcome:?}"),
    );
    same_as_server(&cx, "awaited", &replica).await
}

/// The longest time of LIMIT-013, and a pause before the next try.
const TRIED_AGAIN: Duration = Duration::from_secs(70);
/// The shortest, and what a busy machine takes from it.
const AWAITED: Duration = Duration::from_millis(9_500);

async fn no_answer(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    replica.put("mine", "v").await?;
    cx.server(|p| p.script(|s| s.next("Push", Action::Silent)))
        .await;
    let began = Instant::now();
    let mut left = TRIED_AGAIN;
    // some leave the retry to their users
    while let Outcome::SyncError(_) = replica.try_sync(left).await? {
        left = TRIED_AGAIN.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seen = cx.seen().await;
    let pushes = calls(&seen, "Push");
    let again = pushes.get(1).map(|p| p.at.saturating_sub(pushes[0].at));
    cx.check(
        "given-up",
        again.is_some_and(|after| after <= TRIED_AGAIN),
        format!("a second Push within {TRIED_AGAIN:?}"),
        format!("{again:?}"),
    );
    cx.check(
        "awaited",
        again.is_some_and(|after| after >= AWAITED),
        "not before 10 s",
        format!("{again:?}"),
    );
    let sent = |push: &&Seen| {
        let push = v1::PushRequest::decode(push.message.as_slice());
        push.map(|p| p.records).unwrap_or_default()
    };
    let sent: Vec<Vec<v1::Record>> = pushes.iter().map(sent).collect();
    cx.check(
        "unchanged",
        sent.len() == 2 && sent[0].len() == 1 && sent[0] == sent[1],
        "the same record twice",
        format!("{sent:?}"),
    );
    same_as_server(&cx, "given-up", &replica).await
}

/// Field 99 of a record, with text that is found again.
fn marked(record: &v1::Record) -> Vec<u8> {
    let mut bytes = record.encode_to_vec();
    bytes.extend([0x9a, 0x06, MARK.len() as u8]);
    bytes.extend(MARK);
    bytes
}

const MARK: &[u8] = b"of-a-later-version";

async fn fields_of_records(cx: Cx) -> Result<(), Stop> {
    let all = others(40);
    cx.server_writes(&all).await;
    let action = Action::Rewrite(std::sync::Arc::new(|_, bytes| {
        let message = v1::SnapshotResponse::decode(bytes.as_slice());
        let chunk = message.ok().and_then(|m| match m.event {
            Some(v1::snapshot_response::Event::Chunk(chunk)) => Some(chunk),
            _ => None,
        });
        let Some(chunk) = chunk else {
            return vec![bytes];
        };
        // the same chunk, its records longer by a field
        let mut inner = Vec::new();
        for record in &chunk.records {
            let record = marked(record);
            inner.push(0x0a);
            prost::encoding::encode_varint(record.len() as u64, &mut inner);
            inner.extend(record);
        }
        let mut out = vec![bytes[0]];
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        out.extend(inner);
        vec![out]
    }));
    cx.server(|p| p.script(|s| s.always("Snapshot", action)))
        .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "taken", &replica).await?;
    let marked_sent = |seen: &[crate::peer::Seen], method: &str| {
        let has = |bytes: &[u8]| bytes.windows(MARK.len()).any(|w| w == MARK);
        let of = |s: &&crate::peer::Seen| s.method == method;
        let answers = seen
            .iter()
            .filter(of)
            .any(|s| s.answers.iter().any(|a| has(a)));
        let requests = seen.iter().filter(of).any(|s| has(&s.message));
        (answers, requests)
    };
    server_loses(&cx, &["k007"]).await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let seen = cx.seen().await;
    let told = marked_sent(&seen, "Snapshot").0;
    let kept = marked_sent(&seen, "Push").1;
    let back = cx.server_records().await.iter().any(|r| r.key == b"k007");
    cx.equal("dropped", (true, false, true), (told, kept, back));
    Ok(())
}
