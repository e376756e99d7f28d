//! How a replica behaves towards servers: pauses, and what it tells of itself.

use super::tools::{calls, until};
use super::{others, same_as_server, sync_patiently};
use crate::client::Cx;
use crate::peer::{Action, Detail, Refusal};
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, positive};
use prost::Message;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "manners/backoff",
        profile: Profile::Core,
        needs: &[Need::Live],
        about: "The server refuses every Hello for eight seconds.",
        checks: &[
            positive("few", &["CLIENT-032"], "there are few tries"),
            positive("growing", &["CLIENT-032"], "with growing pauses"),
            positive(
                "first",
                &["CLIENT-036"],
                "the first of which is at most 2 s",
            ),
        ],
        run: |cx| Box::pin(backoff(cx)),
    },
    Case {
        name: "manners/jitter",
        profile: Profile::Core,
        needs: &[Need::Live],
        about: "Eight replicas fail at the same time.",
        checks: &[positive(
            "spread",
            &["CLIENT-033"],
            "they do not come back at the same time",
        )],
        run: |cx| Box::pin(jitter(cx)),
    },
    Case {
        name: "manners/text-of-errors",
        profile: Profile::Hardened,
        needs: &[],
        about: "A refusal's message speaks of other things than its reason, and has details that nobody knows.",
        checks: &[positive(
            "by-reason",
            &["ERR-008", "ERR-010", "ERR-012"],
            "the client does what the reason says",
        )],
        run: |cx| Box::pin(text_of_errors(cx)),
    },
    Case {
        name: "manners/nothing-of-the-device",
        profile: Profile::Hardened,
        needs: &[],
        about: "What Hello tells of the client.",
        checks: &[
            positive(
                "client",
                &["SEC-015"],
                "a short name and version, without user, host or path",
            ),
            positive(
                "replicas",
                &["CLOCK-001", "SEC-014"],
                "each opening writes with a replica id of its own",
            ),
            positive("versions", &["HELLO-002"], "it offers version 1"),
        ],
        run: |cx| Box::pin(nothing_of_the_device(cx)),
    },
];

async fn backoff(cx: Cx) -> Result<(), Stop> {
    let refusal = Refusal::new("UNAVAILABLE", "come back later");
    cx.server(|p| p.script(|s| s.always("Hello", Action::Refuse(refusal))))
        .await;
    let replica = cx.open("a").await?;
    replica.watch().await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let times: Vec<Duration> = cx.seen().await.iter().map(|s| s.at).collect();
    let gaps: Vec<Duration> = times
        .windows(2)
        .map(|w| w[1].saturating_sub(w[0]))
        .collect();
    cx.check(
        "few",
        (2..=12).contains(&times.len()),
        "2 to 12 calls in 8 s",
        times.len(),
    );
    let (first, last) = (gaps.first().copied(), gaps.last().copied());
    let growing = first
        .zip(last)
        .is_some_and(|(f, l)| gaps.len() < 3 || l >= f * 2);
    cx.check(
        "growing",
        growing,
        "the last pause at least twice the first",
        format!("{gaps:?}"),
    );
    let soon = first.is_some_and(|f| f <= Duration::from_millis(2_200));
    cx.check("first", soon, "at most 2 s", format!("{first:?}"));
    Ok(())
}

async fn jitter(cx: Cx) -> Result<(), Stop> {
    const N: usize = 8;
    let refusal = Refusal::new("UNAVAILABLE", "come back later");
    cx.server(|p| p.script(|s| s.always("Hello", Action::Refuse(refusal))))
        .await;
    let space = |i: usize| format!("{}-{i}", cx.space());
    for i in 0..N {
        let name = format!("r{i}");
        let own = space(i);
        let replica = cx.open_with(&name, &name, |open| open.space = own).await?;
        replica.watch().await?;
    }
    let of = |seen: &[crate::peer::Seen], i: usize| -> Vec<Duration> {
        let own = space(i);
        seen.iter()
            .filter(|s| s.method == "Hello")
            .filter(|s| {
                v1::HelloRequest::decode(s.message.as_slice()).is_ok_and(|h| h.space == own)
            })
            .map(|s| s.at)
            .collect()
    };
    // the third pause: the first are so short that a busy machine spreads them
    until(&cx, |seen| (0..N).all(|i| of(seen, i).len() > 3)).await?;
    let seen = cx.seen().await;
    let pauses: Vec<Duration> = (0..N)
        .filter_map(|i| match of(&seen, i)[..] {
            [_, _, third, fourth, ..] => Some(fourth.saturating_sub(third)),
            _ => None,
        })
        .collect();
    let (least, most) = (pauses.iter().min(), pauses.iter().max());
    let spread = least.zip(most).is_some_and(|(l, m)| *m - *l > *m / 6);
    cx.check(
        "spread",
        spread && pauses.len() == N,
        "pauses that differ by a sixth of the longest",
        format!("{pauses:?}"),
    );
    Ok(())
}

async fn text_of_errors(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    let later = v1::LimitDetail::default();
    let with_detail = Refusal {
        detail: Some(Box::new(Detail::Later(later))),
        ..Refusal::new("UNAVAILABLE", "later")
    };
    cx.server(|p| {
        p.script(|s| {
            s.next("Hello", Action::Refuse(with_detail));
            s.next(
                "Hello",
                Action::Refuse(Refusal::new(
                    "UNAVAILABLE",
                    "SPACE_RETIRED: upgrade, token expired",
                )),
            );
            s.next(
                "Watch",
                Action::Refuse(Refusal::new("UNAVAILABLE", "UNSUPPORTED_VERSION NO_ACCESS")),
            );
            s.next(
                "Snapshot",
                Action::Refuse(Refusal::new("UNAVAILABLE", "UNAUTHENTICATED")),
            );
        });
    })
    .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "by-reason", &replica).await
}

async fn nothing_of_the_device(cx: Cx) -> Result<(), Stop> {
    let first = cx.open("a").await?;
    first.put("k", "v").await?;
    sync_patiently(&first, &cx).await?;
    first.close().await?;
    let again = cx.open("a").await?;
    again.put("l", "v").await?;
    sync_patiently(&again, &cx).await?;
    let seen = cx.seen().await;
    let user = ["USER", "HOSTNAME", "HOME"].map(|n| std::env::var(n).unwrap_or_default());
    for hello in calls(&seen, "Hello") {
        let request = v1::HelloRequest::decode(hello.message.as_slice()).unwrap_or_default();
        let told = &request.client;
        let personal = user
            .iter()
            .any(|u| u.len() > 4 && told.contains(u.as_str()));
        cx.check(
            "client",
            told.len() <= 64 && !personal && !told.contains('@'),
            "name and version",
            told,
        );
        cx.check(
            "versions",
            request.versions.contains(&1),
            "1 among them",
            format!("{:?}", request.versions),
        );
    }
    let mut ids: Vec<u64> = crate::client::context::pushed(&seen)
        .into_iter()
        .map(|(_, r)| r.replica)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let random = ids.iter().all(|id| *id > u64::from(u32::MAX));
    cx.check(
        "replicas",
        ids.len() == 2 && random,
        "two random ids",
        format!("{ids:x?}"),
    );
    Ok(())
}
