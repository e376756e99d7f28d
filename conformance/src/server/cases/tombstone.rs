//! Tombstones: they replicate like records and win like records.

use crate::oracle::Record;
use crate::schema::v1;
use crate::server::{Cx, Space, everything, time};
use crate::suite::{Case, Profile, Stop, positive};
use v1::Outcome::{Applied, Superseded};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "tombstone/propagates",
        profile: Profile::Core,
        needs: &[],
        about: "A record is deleted; a replica that follows and a new one learn it.",
        checks: &[
            positive("applied", &["PUSH-010"], "the tombstone is APPLIED"),
            positive(
                "in-watch",
                &["WATCH-005"],
                "Watch sends it to a replica that held the record",
            ),
            positive("in-snapshot", &["SNAP-007"], "Snapshot sends it"),
            positive(
                "in-fingerprint",
                &["MODEL-020", "MERKLE-001"],
                "it counts in the fingerprint",
            ),
        ],
        run: |cx| Box::pin(propagates(cx)),
    },
    Case {
        name: "tombstone/unknown-key",
        profile: Profile::Core,
        needs: &[],
        about: "A tombstone for a key that the server never saw, then an older put.",
        checks: &[
            positive("applied", &["PUSH-010"], "the tombstone is APPLIED"),
            positive(
                "older-put-loses",
                &["MODEL-018"],
                "the older put is SUPERSEDED by the tombstone",
            ),
            positive("there", &["SNAP-007"], "the tombstone stays"),
        ],
        run: |cx| Box::pin(unknown_key(cx)),
    },
    Case {
        name: "tombstone/loses-to-newer",
        profile: Profile::Core,
        needs: &[],
        about: "A newer put over a tombstone, then an older tombstone over the put.",
        checks: &[
            positive("revived", &["MODEL-018"], "the newer put is APPLIED"),
            positive(
                "older-tombstone-loses",
                &["MODEL-018"],
                "the older tombstone is SUPERSEDED",
            ),
            positive("there", &["MODEL-018"], "the put stays"),
        ],
        run: |cx| Box::pin(loses_to_newer(cx)),
    },
];

async fn propagates(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let kept = Record::put("kept", time(1), 1, "v");
    let before = space
        .seed(&[kept, Record::put("gone", time(1), 1, "v")])
        .await?;
    let cursor = before.position.and_then(|p| p.head);
    let tombstone = Record::tombstone("gone", time(2), 2);
    let answer = space.push(std::slice::from_ref(&tombstone)).await.good()?;
    space.expect(&tombstone);
    cx.equal(
        "applied",
        Some(Applied),
        answer.verdicts.first().map(v1::Verdict::outcome),
    );
    let seen = cx.catch_up(&space.catch_up_request(cursor)).await?;
    cx.equal("in-watch", vec![tombstone.clone()], seen.records());
    let seen = cx
        .snapshot(&space.snapshot_request(vec![everything()]))
        .await?;
    cx.check(
        "in-snapshot",
        seen.records().contains(&tombstone),
        "the tombstone among the records",
        format!("{} records without it", seen.records().len()),
    );
    cx.equal(
        "in-fingerprint",
        space.states(&[&everything()]),
        seen.complete.ranges,
    );
    Ok(())
}

async fn unknown_key(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let tombstone = Record::tombstone("never", time(5), 1);
    let answer = space.push(std::slice::from_ref(&tombstone)).await.good()?;
    space.expect(&tombstone);
    cx.equal(
        "applied",
        Some(Applied),
        answer.verdicts.first().map(v1::Verdict::outcome),
    );
    let answer = space
        .push(&[Record::put("never", time(4), 9, "late")])
        .await
        .good()?;
    let verdict = answer.verdicts.into_iter().next().unwrap_or_default();
    cx.equal(
        "older-put-loses",
        (Superseded, Some(tombstone.to_wire())),
        (verdict.outcome(), verdict.winner),
    );
    space.verify("there").await;
    Ok(())
}

async fn loses_to_newer(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed(&[Record::tombstone("k", time(5), 9)]).await?;
    let put = Record::put("k", time(6), 1, "back");
    let answer = space.push(std::slice::from_ref(&put)).await.good()?;
    space.expect(&put);
    cx.equal(
        "revived",
        Some(Applied),
        answer.verdicts.first().map(v1::Verdict::outcome),
    );
    let answer = space
        .push(&[Record::tombstone("k", time(5), 10)])
        .await
        .good()?;
    cx.equal(
        "older-tombstone-loses",
        Some(Superseded),
        answer.verdicts.first().map(v1::Verdict::outcome),
    );
    space.verify("there").await;
    Ok(())
}
