//! Authentication and grants: who may do what, and what is not told.

use crate::oracle::{Record, reason_name};
use crate::schema::v1;
use crate::server::{Cx, Options, Space, TokenKind, everything, held, key_range, time};
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use v1::Outcome::{Applied, Rejected};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "auth/tokens",
        profile: Profile::Core,
        needs: &[Need::Tokens],
        about: "Every call without a token, with one that nobody knows, with another scheme, and with one that is expired.",
        checks: &[
            positive(
                "valid",
                &["TRANS-008"],
                "with a valid token the call succeeds",
            ),
            negative(
                "none",
                "valid",
                &["TRANS-011"],
                "UNAUTHENTICATED without a token",
            ),
            negative(
                "unknown",
                "valid",
                &["TRANS-011"],
                "UNAUTHENTICATED for an unknown token",
            ),
            negative(
                "scheme",
                "valid",
                &["TRANS-011"],
                "UNAUTHENTICATED for Basic instead of Bearer",
            ),
            negative(
                "elsewhere",
                "valid",
                &["TRANS-009"],
                "UNAUTHENTICATED for a token in other metadata",
            ),
            negative(
                "expired",
                "valid",
                &["HELLO-031"],
                "TOKEN_EXPIRED for one that was valid",
            ),
        ],
        run: |cx| Box::pin(tokens(cx)),
    },
    Case {
        name: "auth/other-space",
        profile: Profile::Core,
        needs: &[Need::Tokens],
        about: "A token of one space at another space that exists, and at one that does not.",
        checks: &[
            positive("own", &["HELLO-014"], "in its own space the token works"),
            negative(
                "existing",
                "own",
                &["HELLO-015"],
                "NO_ACCESS for a space that exists",
            ),
            negative(
                "missing",
                "own",
                &["HELLO-015"],
                "NO_ACCESS for a space that does not",
            ),
            negative("alike", "own", &["ERR-007"], "both refusals look alike"),
            negative("push", "own", &["PUSH-033"], "NO_ACCESS for a push into it"),
            negative(
                "snapshot",
                "own",
                &["SNAP-028"],
                "NO_ACCESS for a snapshot of it",
            ),
        ],
        run: |cx| Box::pin(other_space(cx)),
    },
    Case {
        name: "auth/read-only",
        profile: Profile::Core,
        needs: &[Need::Tokens],
        about: "A token that may only read.",
        checks: &[
            positive("reads", &["HELLO-014"], "it reads"),
            positive("listed", &["HELLO-014"], "Hello lists ACCESS_READ"),
            negative(
                "writes",
                "reads",
                &["PUSH-010"],
                "each record is REJECTED NO_ACCESS, and nothing is stored",
            ),
        ],
        run: |cx| Box::pin(read_only(cx)),
    },
    Case {
        name: "auth/prefix",
        profile: Profile::Core,
        needs: &[Need::Tokens],
        about: "A token for the keys that begin with p/.",
        checks: &[
            positive("inside", &["HELLO-014"], "it reads and writes its keys"),
            negative(
                "write-outside",
                "inside",
                &["PUSH-010", "PUSH-007"],
                "a key outside is REJECTED NO_ACCESS, its neighbours are not",
            ),
            negative(
                "read-outside",
                "inside",
                &["HELLO-016"],
                "NO_ACCESS for a range outside, in Hello, Snapshot and Watch",
            ),
            negative(
                "read-all",
                "inside",
                &["HELLO-016"],
                "NO_ACCESS for all keys",
            ),
        ],
        run: |cx| Box::pin(prefix(cx)),
    },
    Case {
        name: "auth/revoked",
        profile: Profile::Live,
        needs: &[Need::Tokens, Need::Revoke, Need::Live],
        about: "A token is revoked while a Watch with it is open.",
        checks: &[
            positive("before", &["WATCH-027"], "before, changes come"),
            negative(
                "stream-ends",
                "before",
                &["WATCH-035", "WATCH-044"],
                "the stream ends within a heartbeat interval, with StreamEnd TOKEN_EXPIRED, NO_ACCESS or UNAUTHENTICATED",
            ),
            negative(
                "calls-fail",
                "before",
                &["TRANS-011"],
                "further calls are UNAUTHENTICATED or TOKEN_EXPIRED",
            ),
        ],
        run: |cx| Box::pin(revoked(cx)),
    },
];

async fn tokens(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let full = cx.full_token()?;
    let answer = space
        .push_with(
            &[Record::put("k", time(1), 1, "v")],
            &Options::token(full.clone()),
        )
        .await;
    cx.check(
        "valid",
        answer.message.is_some(),
        "an answer",
        answer.reply.summary(),
    );
    answer.good()?;
    space.expect(&Record::put("k", time(1), 1, "v"));
    let expired = cx.expired_token(&space.id).await?;
    let with = |token: TokenKind| Options {
        token,
        ..Options::default()
    };
    let elsewhere = Options {
        token: TokenKind::None,
        metadata: vec![("x-authorization".into(), format!("Bearer {full}"))],
        ..Options::default()
    };
    for (check, reason, options) in [
        ("none", "UNAUTHENTICATED", with(TokenKind::None)),
        (
            "unknown",
            "UNAUTHENTICATED",
            with(TokenKind::Literal("no-such-token-0123456789".into())),
        ),
        (
            "scheme",
            "UNAUTHENTICATED",
            with(TokenKind::Header(format!("Basic {full}"))),
        ),
        ("elsewhere", "UNAUTHENTICATED", elsewhere),
        (
            "expired",
            "TOKEN_EXPIRED",
            with(TokenKind::Literal(expired)),
        ),
    ] {
        let reply = cx
            .unary::<_, v1::HelloResponse>("Hello", &space.hello_request(vec![]), &options)
            .await
            .reply;
        space.refused(check, &reply, reason).await;
        let reply = space
            .push_with(&[Record::put("l", time(1), 1, "v")], &options)
            .await
            .reply;
        space.refused(check, &reply, reason).await;
        let request = space.snapshot_request(vec![everything()]);
        let reply = cx.stream_to_end("Snapshot", &request, &options).await;
        space.refused(check, &reply, reason).await;
        let request = space.catch_up_request(None);
        let reply = cx.stream_to_end("Watch", &request, &options).await;
        space.refused(check, &reply, reason).await;
    }
    Ok(())
}

async fn other_space(cx: Cx) -> Result<(), Stop> {
    let mut existing = Space::fresh(&cx);
    existing
        .seed(&[Record::put("k", time(1), 1, "secret")])
        .await?;
    let own = Space::fresh(&cx);
    let missing = Space::fresh(&cx);
    let token = cx.token_for(&own.id, b"", true).await?;
    let options = Options::token(token);
    let hello = async |space: &Space| {
        cx.unary::<_, v1::HelloResponse>("Hello", &space.hello_request(vec![]), &options)
            .await
    };
    let answer = hello(&own).await;
    cx.check(
        "own",
        answer.message.is_some(),
        "an answer",
        answer.reply.summary(),
    );
    let at_existing = hello(&existing).await.reply;
    existing
        .refused("existing", &at_existing, "NO_ACCESS")
        .await;
    let at_missing = hello(&missing).await.reply;
    let refusal = Cx::refusal(&at_missing, "NO_ACCESS");
    cx.check(
        "missing",
        refusal.is_ok(),
        "NO_ACCESS",
        at_missing.summary(),
    );
    // what differs may only be the name of the space that the caller knows anyway
    let blot = |reply: &crate::net::Reply, space: &Space| {
        reply.status.as_ref().map(|s| {
            (
                s.code,
                s.reason.clone(),
                s.message.replace(&space.id, "…"),
                s.details.len(),
            )
        })
    };
    cx.equal(
        "alike",
        blot(&at_existing, &existing),
        blot(&at_missing, &missing),
    );
    let reply = existing
        .push_with(&[Record::put("k", time(2), 1, "mine")], &options)
        .await
        .reply;
    existing.refused("push", &reply, "NO_ACCESS").await;
    let request = existing.snapshot_request(vec![everything()]);
    let reply = cx.stream_to_end("Snapshot", &request, &options).await;
    existing.refused("snapshot", &reply, "NO_ACCESS").await;
    Ok(())
}

async fn read_only(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed(&[Record::put("k", time(1), 1, "v")]).await?;
    let options = Options::token(cx.token_for(&space.id, b"", false).await?);
    let seen = cx
        .snapshot_with(&space.snapshot_request(vec![everything()]), &options)
        .await;
    cx.check(
        "reads",
        seen.is_ok(),
        "a complete stream",
        format!("{:?}", seen.err()),
    );
    let answer: v1::HelloResponse = cx
        .unary("Hello", &space.hello_request(vec![]), &options)
        .await
        .good()?;
    let listed: Vec<v1::Access> = answer.grants.iter().map(v1::Grant::access).collect();
    cx.equal("listed", vec![v1::Access::Read], listed);
    let tried = [
        Record::put("k", time(2), 1, "mine"),
        Record::put("l", time(2), 1, "mine"),
    ];
    let answer = space.push_with(&tried, &options).await.good()?;
    let got: Vec<(v1::Outcome, &str)> = answer
        .verdicts
        .iter()
        .map(|v| (v.outcome(), reason_name(v.reason)))
        .collect();
    let state = space.as_expected().await;
    cx.check(
        "writes",
        got == vec![(Rejected, "NO_ACCESS"); 2] && state.is_ok(),
        "twice REJECTED NO_ACCESS, and an unchanged space",
        format!("{got:?}, {state:?}"),
    );
    Ok(())
}

async fn prefix(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space
        .seed(&[Record::put("q/secret", time(1), 1, "v")])
        .await?;
    let options = Options::token(cx.token_for(&space.id, b"p/", true).await?);
    let own = key_range("p/", "p0");
    let mut request = space.push_request(&[
        Record::put("p/a", time(1), 1, "mine"),
        Record::put("q/b", time(1), 1, "not mine"),
        Record::put("p", time(1), 1, "shorter than the prefix"),
        Record::put("p/b", time(1), 1, "mine"),
    ]);
    request.held = vec![held(vec![own.clone()], None)];
    let answer: v1::PushResponse = cx.unary("Push", &request, &options).await.good()?;
    let got: Vec<(v1::Outcome, &str)> = answer
        .verdicts
        .iter()
        .map(|v| (v.outcome(), reason_name(v.reason)))
        .collect();
    for key in ["p/a", "p/b"] {
        space.expect(&Record::put(key, time(1), 1, "mine"));
    }
    let seen = cx
        .snapshot_with(&space.snapshot_request(vec![own]), &options)
        .await?;
    let keys: Vec<Vec<u8>> = seen.records().into_iter().map(|r| r.key).collect();
    cx.equal("inside", vec![b"p/a".to_vec(), b"p/b".to_vec()], keys);
    let state = space.as_expected().await;
    let no = (Rejected, "NO_ACCESS");
    cx.check(
        "write-outside",
        got == [(Applied, ""), no, no, (Applied, "")] && state.is_ok(),
        "APPLIED, twice REJECTED NO_ACCESS, APPLIED, and nothing else stored",
        format!("{got:?}, {state:?}"),
    );
    for (check, range) in [
        ("read-outside", key_range("q", "r")),
        ("read-outside", key_range("p/", "p1")),
        ("read-outside", key_range("p", "p0")),
        ("read-all", everything()),
    ] {
        let entries = vec![held(vec![range], None)];
        let hello = cx
            .unary::<_, v1::HelloResponse>("Hello", &space.hello_request(entries.clone()), &options)
            .await
            .reply;
        let snapshot = v1::SnapshotRequest {
            held: entries.clone(),
            ..space.snapshot_request(vec![])
        };
        let snapshot = cx.stream_to_end("Snapshot", &snapshot, &options).await;
        let watch = v1::WatchRequest {
            held: entries,
            ..space.catch_up_request(None)
        };
        let watch = cx.stream_to_end("Watch", &watch, &options).await;
        for reply in [hello, snapshot, watch] {
            space.refused(check, &reply, "NO_ACCESS").await;
        }
    }
    Ok(())
}

async fn revoked(cx: Cx) -> Result<(), Stop> {
    use v1::watch_response::Event;
    let mut space = Space::fresh(&cx);
    let token = cx.token_for(&space.id, b"", true).await?;
    let options = Options::token(token.clone());
    let request = v1::WatchRequest {
        until_caught_up: false,
        ..space.catch_up_request(None)
    };
    let mut stream = cx.open("Watch", &request, &options).await;
    stream.until_checkpoint().await?;
    let record = Record::put("k", time(1), 1, "v");
    space.seed(std::slice::from_ref(&record)).await?;
    let got = stream.changes(cx.target().patience).await?;
    cx.equal("before", vec![record.to_wire()], got.records);
    cx.revoke(&token).await?;
    let interval = std::time::Duration::from_millis(cx.limits().heartbeat_interval_ms);
    let end = tokio::time::timeout(2 * interval + std::time::Duration::from_secs(1), async {
        loop {
            if let Event::End(end) = stream.event().await? {
                return Ok::<_, Stop>(end);
            }
        }
    })
    .await;
    let reason = match &end {
        Ok(Ok(end)) => reason_name(end.reason).to_owned(),
        Ok(Err(Stop::Peer(why) | Stop::Suite(why))) => why.clone(),
        Err(_) => "the stream goes on".into(),
    };
    cx.check(
        "stream-ends",
        ["TOKEN_EXPIRED", "NO_ACCESS", "UNAUTHENTICATED"].contains(&reason.as_str()),
        "StreamEnd TOKEN_EXPIRED, NO_ACCESS or UNAUTHENTICATED",
        reason,
    );
    let reply = space
        .push_with(&[Record::put("l", time(1), 1, "v")], &options)
        .await
        .reply;
    let reason = reply.status.as_ref().map_or("", |s| s.reason.as_str());
    let state = space.as_expected().await;
    cx.check(
        "calls-fail",
        ["UNAUTHENTICATED", "TOKEN_EXPIRED"].contains(&reason) && state.is_ok(),
        "UNAUTHENTICATED or TOKEN_EXPIRED, and an unchanged space",
        format!("{}, {state:?}", reply.summary()),
    );
    Ok(())
}
