//! Tokens that run out.

use super::{others, same_as_server, sync_patiently};
use crate::client::{Cx, Outcome};
use crate::peer::Token;
use crate::schema::driver::sync_error::Kind;
use crate::suite::{Case, Need, Profile, Stop, positive};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "auth/token-sent",
        profile: Profile::Core,
        needs: &[],
        about: "A server that asks for a token.",
        checks: &[
            positive("works", &["TRANS-008"], "the session succeeds"),
            positive(
                "on-every-call",
                &["TRANS-008", "TRANS-032"],
                "every call carries the token in authorization",
            ),
        ],
        run: |cx| Box::pin(token_sent(cx)),
    },
    Case {
        name: "auth/refreshed-once",
        profile: Profile::Core,
        needs: &[Need::TokenRefresh],
        about: "The first token is expired, the next one is good.",
        checks: &[
            positive(
                "works",
                &["CLIENT-038", "ERR-008"],
                "the session succeeds with the second token",
            ),
            positive(
                "once",
                &["CLIENT-038"],
                "the expired one is not tried again and again",
            ),
        ],
        run: |cx| Box::pin(refreshed_once(cx)),
    },
    Case {
        name: "auth/needs-auth",
        profile: Profile::Core,
        needs: &[Need::TokenRefresh],
        about: "Every token is refused.",
        checks: &[
            positive(
                "told",
                &["CLIENT-039"],
                "the client says that it needs a token",
            ),
            positive(
                "holds",
                &["CLIENT-038", "CLIENT-039"],
                "and stops calling, though it could be given more",
            ),
            positive("keeps", &["ERR-009"], "unsent writes stay"),
        ],
        run: |cx| Box::pin(needs_auth(cx)),
    },
];

fn token(expires_ms: Option<u64>) -> Token {
    Token {
        space: String::new(),
        prefix: Vec::new(),
        write: true,
        expires_ms,
    }
}

async fn set_tokens(cx: &Cx) {
    cx.server(|p| {
        p.service.with_settings(|s| {
            s.tokens.insert("good-token-0123456789".into(), token(None));
            s.tokens
                .insert("old-token-9876543210".into(), token(Some(1)));
        });
    })
    .await;
}

async fn token_sent(cx: Cx) -> Result<(), Stop> {
    set_tokens(&cx).await;
    cx.server_writes(&others(3)).await;
    let replica = cx
        .open_with("a", "a", |o| {
            o.tokens = vec!["good-token-0123456789".into()]
        })
        .await?;
    replica.put("mine", "v").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "works", &replica).await?;
    let seen = cx.seen().await;
    let without = seen
        .iter()
        .filter(|s| s.header("authorization") != Some("Bearer good-token-0123456789"))
        .count();
    cx.equal("on-every-call", 0, without);
    Ok(())
}

async fn refreshed_once(cx: Cx) -> Result<(), Stop> {
    set_tokens(&cx).await;
    cx.server_writes(&others(3)).await;
    let replica = cx
        .open_with("a", "a", |o| {
            o.tokens = vec![
                "old-token-9876543210".into(),
                "good-token-0123456789".into(),
            ];
        })
        .await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "works", &replica).await?;
    let old = cx
        .seen()
        .await
        .iter()
        .filter(|s| s.header("authorization") == Some("Bearer old-token-9876543210"))
        .count();
    cx.check("once", old <= 2, "at most twice", old);
    Ok(())
}

async fn needs_auth(cx: Cx) -> Result<(), Stop> {
    set_tokens(&cx).await;
    let replica = cx
        .open_with("a", "a", |o| {
            o.tokens = (0..8).map(|i| format!("unknown-token-55555{i}")).collect();
            o.tokens.insert(0, "old-token-9876543210".into());
        })
        .await?;
    replica.put("mine", "v").await?;
    let outcome = replica.try_sync(cx.patience()).await?;
    let told = matches!(&outcome, Outcome::SyncError(e) if e.kind() == Kind::NeedsAuth);
    cx.check("told", told, "KIND_NEEDS_AUTH", format!("{outcome:?}"));
    let calls = cx.seen().await.len();
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let later = cx.seen().await.len();
    cx.check(
        "holds",
        calls <= 4 && later == calls,
        "a few calls, and none afterwards",
        format!("{calls} calls, {later} after a while"),
    );
    let contents = replica.contents().await?;
    cx.equal(
        "keeps",
        (1, 1),
        (contents.entries.len(), contents.pending.len()),
    );
    Ok(())
}
