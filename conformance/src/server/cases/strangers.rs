//! What somebody without a grant, or without a token, gets to know: nothing.

use crate::net::Reply;
use crate::oracle::Record;
use crate::oracle::descent::{Ask, Part, ask};
use crate::schema::v1;
use crate::server::{Cx, Options, Space, everything, held, time};
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use futures::StreamExt;
use std::time::Duration;
use tokio::time::Instant;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "auth/nothing-of-others",
        profile: Profile::Hardened,
        needs: &[Need::Tokens, Need::Retire],
        about: "All calls with a token of one space at three others: one that nobody has used, one with records, one that was deleted for good.",
        checks: &[
            positive("own", &["HELLO-014"], "in its own space the token works"),
            negative(
                "alike",
                "own",
                &["SEC-006", "ERR-007"],
                "NO_ACCESS, in the same words and with the same details, whatever the space",
            ),
        ],
        run: |cx| Box::pin(nothing_of_others(cx)),
    },
    Case {
        name: "auth/rate-of-others",
        profile: Profile::Hardened,
        needs: &[Need::Tokens, Need::Stop, Need::Limits],
        about: "A caller makes more calls than it may; another one calls in another space.",
        checks: &[
            positive("limited", &["LIMIT-014"], "the first is RATE_LIMITED"),
            positive(
                "not-the-other",
                &["SEC-006"],
                "the other one notices nothing of it",
            ),
        ],
        run: |cx| Box::pin(rate_of_others(cx)),
    },
    Case {
        name: "auth/guessing",
        profile: Profile::Hardened,
        needs: &[Need::Tokens, Need::Stop],
        about: "Thousands of tokens are tried, one after the other.",
        checks: &[
            positive("valid", &["HELLO-014"], "a valid token is let in"),
            negative(
                "limited",
                "valid",
                &["SEC-010"],
                "before long the guesses are not even looked at: they are refused otherwise, or wait",
            ),
        ],
        run: |cx| Box::pin(guessing(cx)),
    },
];

/// What a refusal tells beside the name of the space, which the caller knows.
#[derive(PartialEq, Debug)]
struct Told {
    code: u32,
    reason: String,
    message: String,
    details: Vec<Vec<u8>>,
}

fn told(reply: &Reply, space: &Space) -> Result<Told, Stop> {
    let Some(status) = &reply.status else {
        return Err(Stop::Peer(reply.summary()));
    };
    let blot = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.replace(&space.id, "…").into_bytes()
    };
    Ok(Told {
        code: status.code,
        reason: status.reason.clone(),
        message: status.message.replace(&space.id, "…"),
        details: status.details.iter().map(|d| blot(&d.value)).collect(),
    })
}

async fn nothing_of_others(cx: Cx) -> Result<(), Stop> {
    let own = Space::fresh(&cx);
    let options = Options::token(cx.token_for(&own.id, b"", true).await?);
    let hello = cx
        .stream_to_end("Hello", &own.hello_request(vec![]), &options)
        .await;
    cx.check("own", hello.is_ok(), "an answer", hello.summary());
    let unused = Space::fresh(&cx);
    let mut used = Space::fresh(&cx);
    let records: Vec<Record> = (0..5)
        .map(|i| Record::put(format!("k{i}"), time(i), 1, "secret"))
        .collect();
    let head = used.seed(&records).await?.position.and_then(|p| p.head);
    let mut gone = Space::fresh(&cx);
    gone.seed(&records).await?;
    cx.forget(&gone.id);
    cx.retire(&gone.id).await?;
    let mut heard = Vec::new();
    for space in [&unused, &used, &gone] {
        let scope = || vec![held(vec![everything()], head)];
        let mut reconcile = v1::ReconcileRequest {
            space: space.id.clone(),
            held: scope(),
            horizon: 5,
            ..v1::ReconcileRequest::default()
        };
        let part = Part {
            range: everything(),
            ask: Ask::Fingerprint,
        };
        ask(&mut reconcile, &[part], &own.records);
        let push = v1::PushRequest {
            held: scope(),
            ..space.push_request(&records)
        };
        let snapshot = space.snapshot_request(vec![everything()]);
        let replies = [
            cx.stream_to_end("Hello", &space.hello_request(scope()), &options)
                .await,
            cx.stream_to_end("Push", &push, &options).await,
            cx.stream_to_end("Watch", &space.catch_up_request(head), &options)
                .await,
            cx.stream_to_end("Snapshot", &snapshot, &options).await,
            cx.stream_to_end("Reconcile", &reconcile, &options).await,
        ];
        let told: Vec<_> = replies
            .iter()
            .map(|reply| told(reply, space))
            .collect::<Result<_, _>>()?;
        heard.push(told);
    }
    for call in 0..5 {
        let first: &Told = &heard[0][call];
        // a call that the server does not have is the same everywhere, too
        let refused = first.reason == "NO_ACCESS" || call == 4 && first.code == 12;
        cx.check("alike", refused, "NO_ACCESS", &first.reason);
        for other in &heard[1..] {
            cx.equal("alike", first, &other[call]);
        }
    }
    used.verify("own").await;
    Ok(())
}

async fn rate_of_others(cx: Cx) -> Result<(), Stop> {
    cx.with_limits(&[("max_calls_per_second", 20)], |cx| async move {
        let (busy, calm) = (Space::fresh(&cx), Space::fresh(&cx));
        let loud = Options::token(cx.token_for(&busy.id, b"", true).await?);
        let quiet = Options::token(cx.token_for(&calm.id, b"", true).await?);
        let hello = async |space: &Space, options: &Options| {
            cx.stream_to_end("Hello", &space.hello_request(vec![]), options)
                .await
        };
        let calls = futures::stream::iter(0..500).map(|_| hello(&busy, &loud));
        let limited = calls
            .buffer_unordered(16)
            .any(|reply| std::future::ready(Cx::refusal(&reply, "RATE_LIMITED").is_ok()))
            .await;
        cx.check(
            "limited",
            limited,
            "RATE_LIMITED within 500 calls",
            "all answered",
        );
        // fewer than it may make at once
        let replies = futures::future::join_all((0..15).map(|_| hello(&calm, &quiet))).await;
        for reply in replies {
            cx.check("not-the-other", reply.is_ok(), "an answer", reply.summary());
        }
        Ok(())
    })
    .await
}

/// No human and no replica is wrong so often.
const GUESSES: u64 = 3_000;
/// So many in so long is a limit as well.
const SLOW: Duration = Duration::from_secs(60);

async fn guessing(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let valid = cx.hello(&space.hello_request(vec![])).await;
    cx.check(
        "valid",
        valid.message.is_some(),
        "an answer",
        valid.reply.summary(),
    );
    let began = Instant::now();
    let guesses: Vec<String> = (0..GUESSES)
        .map(|_| format!("guess-{:016x}{:016x}", cx.random(), cx.random()))
        .collect();
    let stopped = futures::stream::iter(guesses)
        .map(|guess| {
            let options = Options {
                faulty: true,
                ..Options::token(guess)
            };
            let (cx, request) = (cx.clone(), space.hello_request(vec![]));
            async move { cx.stream_to_end("Hello", &request, &options).await }
        })
        .buffer_unordered(8)
        .any(|reply| {
            let looked_at = Cx::refusal(&reply, "UNAUTHENTICATED").is_ok();
            std::future::ready(!looked_at && !reply.is_ok())
        })
        .await;
    cx.check(
        "limited",
        stopped || began.elapsed() > SLOW,
        "another answer than UNAUTHENTICATED, or none",
        format!("{GUESSES} guesses looked at in {:?}", began.elapsed()),
    );
    // this address is in disgrace now
    cx.stop_server().await?;
    cx.start_server().await
}
