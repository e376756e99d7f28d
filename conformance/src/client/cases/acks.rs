//! Answers to Push that are lost, refused, or no answers.

use super::{same_as_server, sync_patiently};
use crate::client::Cx;
use crate::client::context::pushed;
use crate::peer::{Action, Refusal};
use crate::schema::v1;
use crate::suite::{Case, Profile, Stop, positive};
use prost::Message;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "faults/ack-lost",
        profile: Profile::Core,
        needs: &[],
        about: "The server stores a Push, and the answer is lost.",
        checks: &[
            positive(
                "same-version",
                &["PUSH-031"],
                "the writes are sent again, with their versions",
            ),
            positive("done", &["PUSH-027"], "and are not pending afterwards"),
        ],
        run: |cx| Box::pin(push_fails(cx, Action::CommitThenReset)),
    },
    Case {
        name: "faults/push-refused",
        profile: Profile::Core,
        needs: &[],
        about: "A Push is refused with UNAVAILABLE.",
        checks: &[
            positive(
                "same-version",
                &["PUSH-031", "ERR-008"],
                "the writes are sent again, with their versions",
            ),
            positive(
                "done",
                &["PUSH-032", "ERR-009"],
                "and are not pending afterwards",
            ),
        ],
        run: |cx| {
            Box::pin(push_fails(
                cx,
                Action::Refuse(Refusal::new("UNAVAILABLE", "busy")),
            ))
        },
    },
    Case {
        name: "faults/unknown-reason",
        profile: Profile::Hardened,
        needs: &[],
        about: "A Push is refused with a reason of a later version, and status UNAVAILABLE.",
        checks: &[
            positive(
                "same-version",
                &["ERR-011", "EXT-004"],
                "the status decides: the writes are sent again, with their versions",
            ),
            positive("done", &["ERR-009"], "and are not pending afterwards"),
        ],
        run: |cx| Box::pin(unknown_reason(cx)),
    },
    Case {
        name: "faults/no-trailers",
        profile: Profile::Hardened,
        needs: &[],
        about: "Answers to Hello end without trailers, for a while, and then the answer to a Push.",
        checks: &[
            positive(
                "hello",
                &["TRANS-005", "HELLO-001"],
                "it is a broken answer: nothing else is called",
            ),
            positive(
                "same-version",
                &["PUSH-031"],
                "the writes keep their versions, if they are sent again",
            ),
            positive(
                "done",
                &["ERR-009", "PUSH-027"],
                "and are not pending afterwards",
            ),
        ],
        run: |cx| Box::pin(no_trailers(cx)),
    },
    Case {
        name: "faults/odd-frame",
        profile: Profile::Hardened,
        needs: &[],
        about: "The answer to a Push comes in a frame with unknown flags.",
        checks: &[
            positive(
                "same-version",
                &["ERR-013", "PUSH-031"],
                "the writes keep their versions, if they are sent again",
            ),
            positive(
                "done",
                &["ERR-009", "PUSH-027"],
                "and are not pending afterwards",
            ),
        ],
        run: |cx| Box::pin(push_fails(cx, Action::OddFlag)),
    },
    Case {
        name: "faults/verdicts-missing",
        profile: Profile::Hardened,
        needs: &[],
        about: "The answer to a Push has no verdicts.",
        checks: &[
            positive(
                "same-version",
                &["PUSH-026", "PUSH-031", "PUSH-032", "PUSH-038"],
                "it is no answer: the writes are sent again, with their versions",
            ),
            positive(
                "done",
                &["ERR-009", "PUSH-027"],
                "and are not pending afterwards",
            ),
        ],
        run: |cx| Box::pin(push_fails(cx, without_verdicts())),
    },
    Case {
        name: "faults/verdicts-never",
        profile: Profile::Hardened,
        needs: &[],
        about: "Answers to Pushes have no verdicts, for a while.",
        checks: &[
            positive(
                "pending",
                &["PUSH-026"],
                "as long as they have none, the writes are pending",
            ),
            positive("done", &["PUSH-027"], "and are not pending afterwards"),
        ],
        run: |cx| Box::pin(verdicts_never(cx)),
    },
];

fn without_verdicts() -> Action {
    Action::Rewrite(Arc::new(|_, message| {
        let mut answer = v1::PushResponse::decode(message.as_slice()).unwrap_or_default();
        answer.verdicts.clear();
        vec![answer.encode_to_vec()]
    }))
}

async fn push_fails(cx: Cx, action: Action) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| p.script(|s| s.next("Push", action))).await;
    replica.put("k", "one").await?;
    replica.put("l", "two").await?;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let sent = pushed(&cx.seen().await);
    let versions = |key: &str| -> BTreeSet<(u64, u64)> {
        sent.iter()
            .filter(|(_, r)| r.key == key.as_bytes())
            .map(|(_, r)| (r.time, r.replica))
            .collect()
    };
    cx.check(
        "same-version",
        versions("k").len() == 1 && versions("l").len() == 1,
        "one version of each key, however often it is sent",
        format!("{:?}, {:?}", versions("k"), versions("l")),
    );
    cx.equal("done", 2, cx.server_records().await.len());
    same_as_server(&cx, "done", &replica).await
}

async fn no_trailers(cx: Cx) -> Result<(), Stop> {
    cx.server(|p| p.script(|s| s.always("Hello", Action::NoTrailers)))
        .await;
    let replica = cx.open("a").await?;
    let _ = replica.try_sync(Duration::from_millis(1_500)).await?;
    let seen = cx.seen().await;
    let hellos = seen.iter().filter(|s| s.method == "Hello").count();
    cx.check(
        "hello",
        hellos > 0 && hellos == seen.len(),
        "Hello and nothing else",
        format!("{hellos} Hellos of {} calls", seen.len()),
    );
    cx.server(|p| p.script(crate::peer::Script::clear)).await;
    replica.close().await?;
    push_fails(cx, Action::NoTrailers).await
}

async fn verdicts_never(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| p.script(|s| s.always("Push", without_verdicts())))
        .await;
    replica.put("k", "one").await?;
    replica.put("l", "two").await?;
    let _ = replica.try_sync(Duration::from_millis(1_500)).await?;
    let sent = pushed(&cx.seen().await).len();
    let pending = replica.contents().await?.pending.len();
    cx.check(
        "pending",
        sent > 0 && pending == 2,
        "two that were sent, and are pending",
        format!("{sent} sent, {pending} pending"),
    );
    cx.server(|p| p.script(crate::peer::Script::clear)).await;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "done", &replica).await
}

async fn unknown_reason(cx: Cx) -> Result<(), Stop> {
    let refusal = Refusal::new("SHEDDING_LOAD_SINCE_V1_4", "later");
    let action = Action::RefuseAs(crate::oracle::Code::Unavailable, refusal);
    push_fails(cx, action).await
}
