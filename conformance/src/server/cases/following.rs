//! Watch while the history changes, and while nothing changes in its ranges.

use crate::oracle::{Record, reason_name};
use crate::schema::v1;
use crate::server::{Cx, Options, Space, held, key_range, time};
use crate::suite::{Case, Need, Profile, Stop, positive};
use std::time::Duration;
use tokio::time::Instant;
use v1::watch_response::Event;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "watch/quiet-range",
        profile: Profile::Live,
        needs: &[Need::Live],
        about: "A range in which nothing happens is followed; elsewhere in the space there are commits.",
        checks: &[
            positive("beats", &["WATCH-028"], "Heartbeats come"),
            positive(
                "young",
                &["WATCH-030"],
                "one of them brings the cursor of the newest commit",
            ),
        ],
        run: |cx| Box::pin(quiet_range(cx)),
    },
    Case {
        name: "watch/compacted-meanwhile",
        profile: Profile::Heal,
        needs: &[Need::Compact],
        about: "A stream that is read slowly has not come to a tombstone when it is compacted.",
        checks: &[
            positive(
                "begins",
                &["WATCH-003"],
                "the stream brings what comes first",
            ),
            positive(
                "not-passed-over",
                &["WATCH-033"],
                "it does not go on to the end as if the tombstone had never been",
            ),
            positive(
                "told",
                &["WATCH-034", "WATCH-036", "WATCH-037"],
                "it ends with StreamEnd HISTORY_CHANGED and status OK",
            ),
            positive(
                "history",
                &["WATCH-043"],
                "the StreamEnd says that the cursor is behind the compaction",
            ),
        ],
        run: |cx| Box::pin(compacted_meanwhile(cx)),
    },
];

async fn quiet_range(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed(&[Record::put("a", time(1), 1, "quiet")]).await?;
    let request = v1::WatchRequest {
        held: vec![held(vec![key_range("a", "b")], None)],
        until_caught_up: false,
        ..space.catch_up_request(None)
    };
    let interval = Duration::from_millis(cx.limits().heartbeat_interval_ms);
    let options = Options {
        patience: Some(cx.target().patience.max(2 * interval)),
        ..Options::default()
    };
    let mut stream = cx.open("Watch", &request, &options).await;
    stream.until_checkpoint().await?;
    let mut head = None;
    for n in 0..3u64 {
        let busy = space.seed(&[Record::put("z", time(n), 1, "busy")]).await?;
        head = busy.position.and_then(|p| p.head);
    }
    let (mut beats, mut told) = (0, None);
    let until = Instant::now() + 3 * interval + cx.target().patience / 2;
    while told != head {
        let Ok(event) = tokio::time::timeout_at(until, stream.event()).await else {
            break;
        };
        if let Event::Heartbeat(beat) = event? {
            beats += 1;
            told = beat.cursor;
        }
    }
    cx.check("beats", beats > 0, "at least one", beats);
    cx.equal("young", head, told);
    Ok(())
}

async fn compacted_meanwhile(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    // far more than the connection's buffers take
    let megabytes = match cx.wire() {
        crate::net::Wire::Grpc => 3,
        crate::net::Wire::GrpcWeb => 6,
    };
    let first = space.seed(&[Record::put("a", time(1), 1, "v")]).await?;
    let cursor = first.position.and_then(|p| p.head);
    let piece = (cx.limits().max_value_bytes as usize).min(60_000);
    let whole = (cx.limits().max_message_bytes as usize / 2 / piece).clamp(1, 10);
    let bulk: Vec<Record> = (0..megabytes * 1_000_000 / piece)
        .map(|i| Record::put(format!("m{i:04}"), time(10), 1, vec![i as u8; piece]))
        .collect();
    for batch in bulk.chunks(whole) {
        space.seed(batch).await?;
    }
    space.seed(&[Record::tombstone("a", time(20), 1)]).await?;
    space.seed(&[Record::put("z", time(9_000), 1, "v")]).await?;
    let request = v1::WatchRequest {
        max_response_bytes: 64 << 10,
        ..space.catch_up_request(cursor)
    };
    let options = Options {
        narrow: true,
        ..Options::default()
    };
    let mut stream = cx.open("Watch", &request, &options).await;
    let begins = stream.changes(cx.target().patience).await;
    cx.check("begins", begins.is_ok(), "the first records", "none");
    cx.compact(&space.id, time(5_000) >> 16).await?;
    // nobody reads all of that again
    cx.forget(&space.id);
    let (mut deleted, mut last, mut end) = (false, Vec::new(), None);
    let mut history = None;
    while end.is_none() {
        match stream.event().await? {
            Event::Changes(changes) => {
                deleted |= changes.records.iter().any(|r| r.key == b"a");
                last = changes.records.last().map_or(last, |r| r.key.clone());
            }
            Event::End(e) => {
                end = Some(reason_name(e.reason));
                history = e.history;
            }
            _ => {}
        }
    }
    if deleted {
        let note = "the tombstone was under way before the compaction: nothing was to be seen";
        cx.recorder().note(note);
    }
    cx.check(
        "not-passed-over",
        deleted || last != b"z",
        "no later record without it",
        format!("the last key is {}", last.escape_ascii()),
    );
    let after = stream.bytes().await.is_err();
    cx.check(
        "told",
        (deleted || end == Some("HISTORY_CHANGED")) && after && stream.reply().is_ok(),
        "HISTORY_CHANGED, then nothing, and status OK",
        format!("{end:?}, {}", stream.reply().summary()),
    );
    let behind = |h: &v1::HistoryDetail| {
        let standing = h.held.first();
        h.position.is_some() && standing.is_some_and(|s| s.behind_compaction)
    };
    cx.check(
        "history",
        deleted || history.as_ref().is_some_and(behind),
        "a position, and a status behind the compaction",
        format!("{history:?}"),
    );
    Ok(())
}
