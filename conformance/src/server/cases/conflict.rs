//! Conflicts: which record wins, whoever comes first.

use crate::oracle::{Merge, Record, merge};
use crate::schema::v1;
use crate::server::{Cx, Space, time};
use crate::suite::{Case, Profile, Stop, positive};
use v1::Outcome::{Applied, Superseded, Unchanged};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "conflict/newer-and-older",
        profile: Profile::Core,
        needs: &[],
        about: "A newer record, then an older one, under one key.",
        checks: &[
            positive(
                "newer-applied",
                &["MODEL-018", "PUSH-010"],
                "the newer one is APPLIED",
            ),
            positive(
                "older-superseded",
                &["MODEL-018", "PUSH-010"],
                "the older one is SUPERSEDED",
            ),
            positive("winner", &["PUSH-015"], "with the record that won"),
            positive("sequence", &["PUSH-014"], "and its sequence"),
            positive("there", &["MODEL-018"], "the newer one stays"),
        ],
        run: |cx| Box::pin(newer_and_older(cx)),
    },
    Case {
        name: "conflict/tie-by-replica",
        profile: Profile::Core,
        needs: &[],
        about: "Equal times of two replicas, in both orders of arrival; replica ids compare as unsigned.",
        checks: &[positive(
            "greater-wins",
            &["MODEL-017", "MODEL-018"],
            "the greater replica id wins",
        )],
        run: |cx| Box::pin(tie_by_replica(cx)),
    },
    Case {
        name: "conflict/tie-by-content",
        profile: Profile::Core,
        needs: &[],
        about: "One version with two contents, as a faulty replica makes them, in both orders of arrival.",
        checks: &[
            positive(
                "greater-hash-wins",
                &["MODEL-018"],
                "the greater value hash wins",
            ),
            positive(
                "tombstone-wins",
                &["MODEL-018"],
                "a tombstone wins over a put",
            ),
            positive(
                "not-the-same",
                &["MODEL-019"],
                "the loser is SUPERSEDED, not UNCHANGED",
            ),
        ],
        run: |cx| Box::pin(tie_by_content(cx)),
    },
    Case {
        name: "conflict/permutations",
        profile: Profile::Core,
        needs: &[],
        about: "Four records under one key in all 24 orders of arrival.",
        checks: &[positive(
            "converge",
            &["MODEL-018"],
            "the same record stays in every order",
        )],
        run: |cx| Box::pin(permutations(cx)),
    },
    Case {
        name: "conflict/random",
        profile: Profile::Core,
        needs: &[],
        about: "A thousand random writes of three replicas reach two spaces in different orders and batches.",
        checks: &[
            positive("verdicts", &["PUSH-010"], "every verdict is the oracle's"),
            positive(
                "converge",
                &["MODEL-018"],
                "both spaces hold what the oracle holds",
            ),
        ],
        run: |cx| Box::pin(random(cx)),
    },
];

async fn newer_and_older(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let middle = Record::put("k", time(5), 1, "middle");
    let newer = Record::put("k", time(5) + 1, 1, "newer by one tick");
    space.seed(&[middle]).await?;
    let answer = space.push(std::slice::from_ref(&newer)).await.good()?;
    space.expect(&newer);
    let first = answer.verdicts.first().cloned().unwrap_or_default();
    cx.equal("newer-applied", Applied, first.outcome());
    let older = Record::put("k", time(4), u64::MAX, "older");
    let answer = space.push(&[older]).await.good()?;
    let verdict = answer.verdicts.first().cloned().unwrap_or_default();
    cx.equal("older-superseded", Superseded, verdict.outcome());
    cx.equal("winner", Some(newer.to_wire()), verdict.winner);
    cx.equal("sequence", first.sequence, verdict.sequence);
    space.verify("there").await;
    Ok(())
}

/// Pushes two records of one key in both orders and compares with the oracle.
async fn both_orders(cx: &Cx, check: &'static str, a: &Record, b: &Record) -> Result<(), Stop> {
    for (first, second) in [(a, b), (b, a)] {
        let mut space = Space::fresh(cx);
        space.seed(std::slice::from_ref(first)).await?;
        let answer = space.push(std::slice::from_ref(second)).await.good()?;
        let want = match merge(second, first) {
            Merge::Wins => Applied,
            Merge::Same => Unchanged,
            Merge::Loses => Superseded,
        };
        let got = answer.verdicts.first().map(v1::Verdict::outcome);
        cx.equal(check, Some(want), got);
        space.expect(second);
        let state = space.as_expected().await;
        cx.check(
            check,
            state.is_ok(),
            "the winner is there",
            state.err().unwrap_or_else(|| "it is".into()),
        );
    }
    Ok(())
}

async fn tie_by_replica(cx: Cx) -> Result<(), Stop> {
    for (low, high) in [(1, 2), (0, u64::MAX), (i64::MAX as u64, 1 << 63)] {
        let a = Record::put("k", time(1), low, "zzz");
        let b = Record::put("k", time(1), high, "aaa");
        both_orders(&cx, "greater-wins", &a, &b).await?;
    }
    Ok(())
}

async fn tie_by_content(cx: Cx) -> Result<(), Stop> {
    let (a, b) = (
        Record::put("k", time(1), 1, "a"),
        Record::put("k", time(1), 1, "b"),
    );
    both_orders(&cx, "greater-hash-wins", &a, &b).await?;
    let empty = Record::put("k", time(1), 1, "");
    both_orders(&cx, "greater-hash-wins", &a, &empty).await?;
    let tombstone = Record::tombstone("k", time(1), 1);
    both_orders(&cx, "tombstone-wins", &a, &tombstone).await?;
    both_orders(&cx, "tombstone-wins", &empty, &tombstone).await?;
    let (winner, loser) = match merge(&a, &b) {
        Merge::Wins => (a, b),
        _ => (b, a),
    };
    let mut space = Space::fresh(&cx);
    space.seed(&[winner]).await?;
    let answer = space.push(&[loser]).await.good()?;
    let got = answer.verdicts.first().map(v1::Verdict::outcome);
    cx.equal("not-the-same", Some(Superseded), got);
    Ok(())
}

async fn permutations(cx: Cx) -> Result<(), Stop> {
    let records = |key: &str| {
        [
            Record::put(key, time(3), 1, "newest time"),
            Record::put(key, time(2), 9, "greatest replica"),
            Record::tombstone(key, time(3), 1),
            Record::put(key, time(1), 1, "oldest"),
        ]
    };
    let mut space = Space::fresh(&cx);
    let mut orders = Vec::new();
    for i in 0..4 {
        for j in (0..4).filter(|j| *j != i) {
            for k in (0..4).filter(|k| *k != i && *k != j) {
                orders.push([i, j, k, 6 - i - j - k]);
            }
        }
    }
    // all keys take their n-th record in the n-th push
    for step in 0..4 {
        let batch: Vec<Record> = orders
            .iter()
            .enumerate()
            .map(|(n, order)| records(&format!("k{n:02}"))[order[step]].clone())
            .collect();
        space.seed(&batch).await?;
    }
    space.verify("converge").await;
    Ok(())
}

async fn random(cx: Cx) -> Result<(), Stop> {
    let writes: Vec<Record> = (0..1_000)
        .map(|i| {
            let key = format!("k{}", cx.below(20));
            let (ms, replica) = (cx.below(10), cx.below(3));
            if cx.below(4) == 0 {
                Record::tombstone(key, time(ms), replica)
            } else {
                Record::put(key, time(ms), replica, (i % 7).to_string())
            }
        })
        .collect();
    let mut backwards = writes.clone();
    backwards.reverse();
    let (mut first, mut second) = (Space::fresh(&cx), Space::fresh(&cx));
    for (space, list, size) in [(&mut first, writes, 6), (&mut second, backwards, 15)] {
        let mut left = list;
        while !left.is_empty() {
            // each key once in a push
            let mut batch: Vec<Record> = Vec::new();
            let mut later = Vec::new();
            for record in left {
                let fits = batch.len() < size && batch.iter().all(|r| r.key != record.key);
                if fits { &mut batch } else { &mut later }.push(record);
            }
            left = later;
            let answer = space.push(&batch).await.good()?;
            for (record, verdict) in batch.iter().zip(&answer.verdicts) {
                let want = match space
                    .records
                    .get(&record.key)
                    .map(|held| merge(record, held))
                {
                    None | Some(Merge::Wins) => Applied,
                    Some(Merge::Same) => Unchanged,
                    Some(Merge::Loses) => Superseded,
                };
                cx.equal("verdicts", want, verdict.outcome());
                space.expect(record);
            }
        }
    }
    first.verify("converge").await;
    second.verify("converge").await;
    cx.check(
        "converge",
        first.records == second.records,
        "the same records in both",
        "the oracle itself differs",
    );
    Ok(())
}
