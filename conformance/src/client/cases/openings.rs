//! Several openings of one store, another set of ranges, and a store with many
//! records.

use super::streams::{keys, until_seen};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::oracle::Record;
use crate::peer::{Action, Seen};
use crate::suite::{Case, Need, Profile, Stop, positive};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "history/range-added",
        profile: Profile::Core,
        needs: &[Need::Ranges, Need::DurableStore],
        about: "A replica of one range is opened again with a second one.",
        checks: &[
            positive(
                "own-cursors",
                &["HIST-007", "HIST-008", "CLIENT-028"],
                "the first range keeps its cursor, the second begins without",
            ),
            positive(
                "complete",
                &["CLIENT-026"],
                "both ranges are complete, nothing else is held",
            ),
        ],
        run: |cx| Box::pin(range_added(cx)),
    },
    Case {
        name: "history/range-dropped",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Ranges, Need::DurableStore],
        about: "A replica of two ranges is opened again with one of them; the server loses a record of each.",
        checks: &[
            positive("healed", &["HIST-037"], "that of the held range is offered"),
            positive(
                "alone",
                &["CLIENT-026"],
                "the other one is neither asked about nor offered",
            ),
        ],
        run: |cx| Box::pin(range_dropped(cx)),
    },
    Case {
        name: "tabs/one-speaks",
        profile: Profile::Core,
        needs: &[Need::TwoOpenings, Need::Live],
        about: "Two openings of one store: one writes, then both are live.",
        checks: &[
            positive("shared", &["CLIENT-008"], "what one writes the other sees"),
            positive(
                "once",
                &["CLIENT-005", "CLIENT-006"],
                "each write is pushed by one of them",
            ),
            positive(
                "one-stream",
                &["TRANS-021"],
                "no more than one Watch is open for both",
            ),
            positive("complete", &["CLIENT-013"], "and arrives"),
        ],
        run: |cx| Box::pin(one_speaks(cx)),
    },
    Case {
        name: "tabs/other-takes-over",
        profile: Profile::Core,
        needs: &[Need::TwoOpenings, Need::Live],
        about: "The opening that speaks is closed.",
        checks: &[positive(
            "goes-on",
            &["CLIENT-005", "CLIENT-006"],
            "the other syncs on, from the same cursor",
        )],
        run: |cx| Box::pin(other_takes_over(cx)),
    },
    Case {
        name: "sync/two-thousand",
        profile: Profile::Hardened,
        needs: &[],
        about: "Two thousand records come, three hundred go.",
        checks: &[positive(
            "all",
            &["SNAP-018", "LIMIT-006", "PUSH-027"],
            "both sides hold the same",
        )],
        run: |cx| Box::pin(two_thousand(cx)),
    },
];

async fn range_added(cx: Cx) -> Result<(), Stop> {
    let records: Vec<Record> = ["a/1", "a/2", "b/1", "c/1"]
        .map(|k| Record::put(k, time(1), 77, "v"))
        .into();
    cx.server_writes(&records).await;
    let first = cx
        .open_with("a", "a", |o| o.key_prefixes = vec![b"a/".to_vec()])
        .await?;
    sync_patiently(&first, &cx).await?;
    first.close().await?;
    let before = cx.seen().await.len();
    let both = cx
        .open_with("a", "a", |o| {
            o.key_prefixes = vec![b"a/".to_vec(), b"b/".to_vec()]
        })
        .await?;
    sync_patiently(&both, &cx).await?;
    let seen = cx.seen().await;
    let hello = seen.iter().skip(before).find(|s| s.method == "Hello");
    let held = hello.map(|s| s.held()).unwrap_or_default();
    let cursor_of = |key: &[u8]| {
        let entry = held
            .iter()
            .find(|h| h.ranges.iter().any(|r| crate::oracle::contains(r, key)));
        entry.map(|h| h.cursor.is_some())
    };
    cx.equal(
        "own-cursors",
        (Some(true), Some(false)),
        (cursor_of(b"a/1"), cursor_of(b"b/1")),
    );
    cx.equal(
        "complete",
        vec!["a/1".to_owned(), "a/2".into(), "b/1".into()],
        keys(&both).await?,
    );
    Ok(())
}

async fn range_dropped(cx: Cx) -> Result<(), Stop> {
    let records: Vec<Record> = ["a/1", "a/2", "b/1", "b/2"]
        .map(|k| Record::put(k, time(1), 77, "v"))
        .into();
    cx.server_writes(&records).await;
    let both = cx
        .open_with("a", "a", |o| {
            o.key_prefixes = vec![b"a/".to_vec(), b"b/".to_vec()]
        })
        .await?;
    sync_patiently(&both, &cx).await?;
    both.close().await?;
    let before = cx.seen().await.len();
    let one = cx
        .open_with("a", "a", |o| o.key_prefixes = vec![b"a/".to_vec()])
        .await?;
    super::tools::server_loses(&cx, &["a/2", "b/2"]).await;
    for _ in 0..3 {
        sync_patiently(&one, &cx).await?;
    }
    let seen = cx.seen().await;
    let offered: Vec<Vec<u8>> = crate::client::context::pushed(&seen)
        .into_iter()
        .map(|(_, r)| r.key)
        .collect();
    cx.check(
        "healed",
        offered.contains(&b"a/2".to_vec()),
        "a/2",
        format!("{offered:?}"),
    );
    let asked = seen[before..]
        .iter()
        .flat_map(Seen::held)
        .flat_map(|h| h.ranges)
        .filter(|r| crate::oracle::contains(r, b"b/2"))
        .count();
    let other = offered.iter().filter(|k| k.starts_with(b"b/")).count();
    cx.equal("alone", (0, 0), (asked, other));
    Ok(())
}

async fn one_speaks(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(5)).await;
    let a = cx.open_with("a", "shared", |_| {}).await?;
    let b = cx.open_with("b", "shared", |_| {}).await?;
    a.put("early", "v").await?;
    let all = keys(&b).await?;
    cx.equal("shared", vec!["early".to_owned()], all);
    a.watch().await?;
    // it has its stream before the other one comes
    a.await_idle().await?;
    b.watch().await?;
    // whichever of them speaks
    until_seen(&cx, &a, "k004").await?;
    takeover_is_over(&cx).await;
    // while one of them waits for its answer, the other has the time to push
    let late = Action::Delay(Duration::from_millis(400));
    cx.server(|p| p.script(|s| s.always("Push", late))).await;
    a.put("from-a", "v").await?;
    b.put("from-b", "v").await?;
    for replica in [&a, &b] {
        let all = keys(replica).await?;
        let written = ["early", "from-a", "from-b"];
        let there = written.iter().all(|k| all.contains(&(*k).to_owned()));
        cx.check("shared", there, "all that was written", format!("{all:?}"));
    }
    let deadline = Instant::now() + cx.patience();
    while Instant::now() < deadline && cx.server_records().await.len() < 8 {
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let mut all = pushed_by_one(&cx.seen().await);
    all.sort();
    let each = ["early", "from-a", "from-b"].map(|k| k.as_bytes().to_vec());
    cx.equal("once", each.to_vec(), all);
    let open = |seen: &[crate::peer::Seen]| {
        let watches = super::tools::calls(seen, "Watch");
        watches.iter().filter(|w| w.is_under_way()).count()
    };
    // each had the time to open one, and one may still be on its way out
    super::tools::until(&cx, |seen| open(seen) > 0).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut most = 0;
    if super::tools::until(&cx, |seen| open(seen) == 1).await? {
        // and so it stays
        let over = Instant::now() + Duration::from_secs(1);
        while Instant::now() < over {
            most = most.max(open(&cx.seen().await));
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
    cx.equal("one-stream", 1, most);
    cx.equal("complete", 8, cx.server_records().await.len());
    Ok(())
}

/// Waits until no session has begun for a while: the second opening may take
/// the exchange over, at a time of its own.
async fn takeover_is_over(cx: &Cx) {
    let deadline = Instant::now() + cx.patience();
    let (mut sessions, mut since) = (0, Instant::now());
    while Instant::now() < deadline && since.elapsed() < Duration::from_millis(500) {
        let begun = super::tools::calls(&cx.seen().await, "Hello").len();
        if begun != sessions {
            (sessions, since) = (begun, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// The keys that were pushed. A record that came again counts once more only
/// if no session began in between: whoever takes over cannot know what of the
/// other's last Push was accepted, and sends it again.
fn pushed_by_one(seen: &[Seen]) -> Vec<Vec<u8>> {
    let mut last: HashMap<Record, usize> = HashMap::new();
    let mut keys = Vec::new();
    for (call, record) in crate::client::context::pushed(seen) {
        let before = last.insert(record.clone(), call);
        let taken_over =
            before.is_some_and(|before| seen[before..call].iter().any(|s| s.method == "Hello"));
        if !taken_over {
            keys.push(record.key);
        }
    }
    keys
}

async fn other_takes_over(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(5)).await;
    let a = cx.open_with("a", "shared", |_| {}).await?;
    let b = cx.open_with("b", "shared", |_| {}).await?;
    a.watch().await?;
    a.await_idle().await?;
    b.watch().await?;
    a.close().await?;
    b.put("after", "v").await?;
    cx.server_writes(&[Record::put("theirs", time(9_000), 77, "v")])
        .await;
    let deadline = Instant::now() + cx.patience();
    let mut both = (false, false);
    while Instant::now() < deadline && both != (true, true) {
        let here = keys(&b).await?.contains(&"theirs".to_owned());
        let there = cx.server_records().await;
        both = (here, there.iter().any(|r| r.key == b"after"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cx.equal("goes-on", (true, true), both);
    Ok(())
}

async fn two_thousand(cx: Cx) -> Result<(), Stop> {
    let all: Vec<Record> = (0..2_000)
        .map(|i| Record::put(format!("k{i:05}"), time(i), 77, format!("value {i}")))
        .collect();
    cx.server(|p| {
        p.service
            .with_settings(|s| s.limits.max_push_records = 2_000)
    })
    .await;
    cx.server_writes(&all).await;
    cx.server(|p| p.service.with_settings(|s| s.limits.max_push_records = 200))
        .await;
    let replica = cx.open("a").await?;
    for i in 0..300 {
        replica.put(format!("mine{i:03}"), "v").await?;
    }
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "all", &replica).await?;
    cx.equal("all", 2_300, replica.entries().await?.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn seen(method: &str, keys: &[&str]) -> Seen {
        let records = keys
            .iter()
            .map(|k| Record::put(k, time(1), 7, "v").to_wire());
        let push = crate::schema::v1::PushRequest {
            records: records.collect(),
            ..Default::default()
        };
        Seen {
            method: method.into(),
            headers: Vec::new(),
            message: push.encode_to_vec(),
            problems: Vec::new(),
            answers: Vec::new(),
            end: String::new(),
            at: Duration::ZERO,
        }
    }

    /// On a slow machine the second opening took over while the first waited
    /// for its answer, and was blamed for sending the write again.
    #[test]
    fn what_is_sent_again_after_a_takeover_is_not_sent_by_two() {
        let one = [seen("Hello", &[]), seen("Push", &["a"])];
        let again = [seen("Push", &["a", "b"])];
        let two = [&one[..], &again[..]].concat();
        assert_eq!(
            pushed_by_one(&two),
            [b"a".to_vec(), b"a".to_vec(), b"b".to_vec()]
        );
        let taken_over = [&one[..], &[seen("Hello", &[])], &again[..]].concat();
        assert_eq!(pushed_by_one(&taken_over), [b"a".to_vec(), b"b".to_vec()]);
    }
}
