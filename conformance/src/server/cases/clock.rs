//! Clock: the future is bounded, the past is not.

use crate::oracle::{Record, reason_name};
use crate::schema::v1;
use crate::server::{Cx, Space};
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use v1::Outcome::{Applied, Rejected, Superseded, Unchanged};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "clock/far-future",
        profile: Profile::Core,
        needs: &[],
        about: "Versions at the server's time, just within the allowed skew, well beyond it, and at the end of time.",
        checks: &[
            positive(
                "within",
                &["CLOCK-005", "LIMIT-002"],
                "a version within the bound is APPLIED",
            ),
            negative(
                "beyond",
                "within",
                &["CLOCK-005"],
                "REJECTED CLOCK_SKEW for a minute beyond the bound",
            ),
            negative(
                "end-of-time",
                "within",
                &["CLOCK-005"],
                "REJECTED CLOCK_SKEW for the greatest time",
            ),
            positive(
                "time-told",
                &["PUSH-020"],
                "the answer tells the server's time",
            ),
            positive(
                "only-good-there",
                &["PUSH-007"],
                "the others of the batch are applied",
            ),
        ],
        run: |cx| Box::pin(far_future(cx)),
    },
    Case {
        name: "clock/past",
        profile: Profile::Core,
        needs: &[],
        about: "Versions of 1970, of time zero and counter values at both ends.",
        checks: &[positive(
            "accepted",
            &["CLOCK-008"],
            "all are APPLIED: the past is not bounded",
        )],
        run: |cx| Box::pin(past(cx)),
    },
    Case {
        name: "clock/records-do-not-move-it",
        profile: Profile::Core,
        needs: &[],
        about: "A record near the bound does not let a later one go further.",
        checks: &[
            positive(
                "near-bound",
                &["LIMIT-002"],
                "a version near the bound is APPLIED",
            ),
            negative(
                "further",
                "near-bound",
                &["CLOCK-007"],
                "REJECTED CLOCK_SKEW for one further by the skew again",
            ),
        ],
        run: |cx| Box::pin(records_do_not_move_it(cx)),
    },
    Case {
        name: "clock/set-back",
        profile: Profile::Core,
        needs: &[Need::Clock],
        about: "The server's clock was an hour ahead and is set right.",
        checks: &[
            positive("ahead", &["CLOCK-005"], "a version of its hour is APPLIED"),
            positive(
                "still-writable",
                &["CLOCK-006"],
                "afterwards the key can still be written above that version",
            ),
            positive(
                "told",
                &["CLOCK-013", "HELLO-012"],
                "and the time that is told is the one that versions are judged by",
            ),
            positive(
                "merge-first",
                &["CLOCK-009"],
                "what is UNCHANGED or SUPERSEDED is so whatever the clock",
            ),
        ],
        run: |cx| Box::pin(set_back(cx)),
    },
];

/// The server's clock, from Hello, in milliseconds.
async fn server_time(space: &Space) -> Result<u64, Stop> {
    let answer = space.cx.hello(&space.hello_request(vec![])).await.good()?;
    Ok(answer.server_time_ms)
}

fn verdict(answer: &v1::PushResponse, i: usize) -> Option<(v1::Outcome, &'static str)> {
    answer
        .verdicts
        .get(i)
        .map(|v| (v.outcome(), reason_name(v.reason)))
}

async fn far_future(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let now = server_time(&space).await?;
    let skew = cx.limits().max_clock_skew_ms;
    let at = |key: &str, ms: u64| Record::put(key, ms << 16, 1, "v");
    let records = [
        at("now", now),
        at("within", now.saturating_add(skew.saturating_sub(500))),
        at("beyond", now.saturating_add(skew).saturating_add(60_000)),
        Record::put("end", u64::MAX, 1, "v"),
    ];
    let answer = space.push(&records).await.good()?;
    cx.equal("within", Some((Applied, "")), verdict(&answer, 0));
    cx.equal("within", Some((Applied, "")), verdict(&answer, 1));
    cx.equal(
        "beyond",
        Some((Rejected, "CLOCK_SKEW")),
        verdict(&answer, 2),
    );
    cx.equal(
        "end-of-time",
        Some((Rejected, "CLOCK_SKEW")),
        verdict(&answer, 3),
    );
    cx.check(
        "time-told",
        answer.server_time_ms >= now,
        format!("at least {now}"),
        answer.server_time_ms,
    );
    records[..2].iter().for_each(|r| space.expect(r));
    space.verify("only-good-there").await;
    Ok(())
}

async fn past(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let records = [
        Record::put("zero", 0, 0, "v"),
        Record::put("one", 1, 1, "v"),
        Record::put("counter", 0xffff, 1, "v"),
        Record::put("1970", 1 << 16, 1, "v"),
    ];
    let answer = space.push(&records).await.good()?;
    for i in 0..records.len() {
        cx.equal("accepted", Some((Applied, "")), verdict(&answer, i));
    }
    records.iter().for_each(|r| space.expect(r));
    Ok(())
}

async fn records_do_not_move_it(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let now = server_time(&space).await?;
    let skew = cx.limits().max_clock_skew_ms;
    let near = Record::put(
        "k",
        now.saturating_add(skew.saturating_sub(500)) << 16,
        1,
        "v",
    );
    let answer = space.push(std::slice::from_ref(&near)).await.good()?;
    cx.equal("near-bound", Some((Applied, "")), verdict(&answer, 0));
    space.expect(&near);
    let further = Record::put(
        "k",
        now.saturating_add(skew.saturating_mul(2))
            .saturating_sub(1_000)
            << 16,
        1,
        "v",
    );
    let answer = space.push(&[further]).await.good()?;
    let got = verdict(&answer, 0);
    let state = space.as_expected().await;
    cx.check(
        "further",
        got == Some((Rejected, "CLOCK_SKEW")) && state.is_ok(),
        "REJECTED CLOCK_SKEW, and an unchanged space",
        format!("{got:?}, {state:?}"),
    );
    Ok(())
}

async fn set_back(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    // what was pushed while the clock was right is not to judge what comes
    let before = Record::put("before", server_time(&space).await? << 16, 1, "v");
    space.push(std::slice::from_ref(&before)).await.good()?;
    space.expect(&before);
    let hour = 3_600_000;
    cx.set_server_clock(hour).await?;
    let result = async {
        let ahead = server_time(&space).await?;
        let record = Record::put("k", ahead << 16, 1, "v");
        let answer = space.push(std::slice::from_ref(&record)).await.good()?;
        cx.equal("ahead", Some((Applied, "")), verdict(&answer, 0));
        space.expect(&record);
        cx.set_server_clock(0).await?;
        let told = server_time(&space).await?;
        cx.check("told", told >= ahead, format!("at least {ahead}"), told);
        let above = Record::put("k", (ahead << 16) + 1, 1, "above");
        let answer = space.push(std::slice::from_ref(&above)).await.good()?;
        cx.equal("still-writable", Some((Applied, "")), verdict(&answer, 0));
        let told = answer.server_time_ms;
        cx.check("told", told >= ahead, format!("at least {ahead}"), told);
        space.expect(&above);
        let answer = space.push(std::slice::from_ref(&above)).await.good()?;
        cx.equal("merge-first", Some((Unchanged, "")), verdict(&answer, 0));
        let answer = space.push(&[record]).await.good()?;
        cx.equal("merge-first", Some((Superseded, "")), verdict(&answer, 0));
        Ok(())
    }
    .await;
    cx.set_server_clock(0).await?;
    result
}
