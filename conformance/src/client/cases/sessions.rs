//! How a session of Reconcile is kept from leading nowhere: answers without
//! progress, answers that contradict one another, and what is better done by a
//! Snapshot, or before.

use super::tools::{calls, from_hello, reply, runs, server_loses};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::context::pushed;
use crate::client::{Cx, Replica};
use crate::oracle::descent::{Ask, Asked, Part, Told, asked, take, varint};
use crate::oracle::{Record, contains};
use crate::peer::{Action, Service};
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, positive};
use prost::Message;
use std::sync::{Arc, Mutex, PoisonError};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "reconcile/no-progress",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "Each answer ends a byte after the beginning of the first part that was asked, and brings nothing.",
        checks: &[
            positive(
                "given-up",
                &["RECON-036", "SEC-012"],
                "no session goes beyond the 64th answer in a row without progress",
            ),
            positive(
                "then-snapshot",
                &["RECON-036", "RECON-050", "SNAP-018"],
                "a Snapshot takes its place, and both sides end equal",
            ),
        ],
        run: |cx| Box::pin(no_progress(cx)),
    },
    Case {
        name: "reconcile/agreed-by-chance",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A part differs; with short digests, whatever is asked of it next is equal.",
        checks: &[
            positive(
                "in-full",
                &["RECON-037"],
                "the session asks again with digests of 32 bytes",
            ),
            positive("found", &["RECON-044"], "and finds what differs"),
        ],
        run: |cx| Box::pin(agreed_by_chance(cx)),
    },
    Case {
        name: "reconcile/moved-between-answers",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A part differs with digests of 32 bytes; before its parts are asked, the server gets what it lacked.",
        checks: &[
            positive(
                "again",
                &["RECON-052"],
                "the session asks about the range again, from its beginning",
            ),
            positive("done", &["RECON-052"], "and ends well"),
        ],
        run: |cx| Box::pin(moved(cx)),
    },
    Case {
        name: "reconcile/contradiction",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A part differs with digests of 32 bytes, and nothing in it does, from one and the same position.",
        checks: &[
            positive(
                "ended",
                &["RECON-054", "RECON-037"],
                "the session ends, and a Hello follows",
            ),
            positive(
                "not-adopted",
                &["RECON-030", "RECON-043"],
                "its position becomes no cursor",
            ),
            positive("done", &["RECON-050"], "the next session ends well"),
        ],
        run: |cx| Box::pin(contradiction(cx)),
    },
    Case {
        name: "snapshot/push-first",
        profile: Profile::Heal,
        needs: &[],
        about: "A new replica with a write of its own, before a server with three thousand records.",
        checks: &[
            positive(
                "first",
                &["CLIENT-030"],
                "the write is pushed before the records are fetched",
            ),
            positive("done", &["SNAP-018"], "both sides end equal"),
        ],
        run: |cx| Box::pin(push_first(cx)),
    },
    Case {
        name: "damage/on-demand",
        profile: Profile::Heal,
        needs: &[Need::Damage, Need::Verify],
        about: "A stored value rots, and the user asks for a look at all that is stored.",
        checks: &[
            positive(
                "fetched",
                &["CLIENT-043"],
                "what is damaged is found unread, and fetched",
            ),
            positive(
                "healed",
                &["CLIENT-047", "MODEL-023"],
                "the record is as the server holds it",
            ),
        ],
        run: |cx| Box::pin(on_demand(cx)),
    },
];

/// Records enough that half of a part of them is still asked about by
/// fingerprints.
const MANY: usize = 2_000;

/// The one that the server loses.
const LOST: &str = "k1234";

async fn settled(cx: &Cx, records: &[Record]) -> Result<Replica, Stop> {
    cx.server_writes(records).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, cx).await?;
    Ok(replica)
}

fn many() -> Vec<Record> {
    let name = |i: usize| format!("k{i:04}");
    (0..MANY)
        .map(|i| Record::put(name(i), time(i as u64), 77, format!("value {i}")))
        .collect()
}

/// The server goes back to a backup, so that a session begins at Hello.
async fn restored(cx: &Cx) {
    let space = cx.space().to_owned();
    cx.server(|p| {
        let epoch = p.service.random();
        p.service.with_space(&space, |s| s.restored(epoch));
    })
    .await;
}

async fn script(cx: &Cx, action: Action) {
    cx.server(|p| p.script(|s| s.always("Reconcile", action)))
        .await;
}

/// The parts that are asked.
fn asked_parts(request: &v1::ReconcileRequest) -> Vec<Asked> {
    let mut parts = asked(request).unwrap_or_default();
    parts.retain(|asked| asked.part.ask != Ask::Skip);
    parts
}

async fn no_progress(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, &others(900)).await?;
    server_loses(&cx, &["k850"]).await;
    let before = cx.seen().await.len();
    let cut = reply(|q: &v1::ReconcileRequest, a: &mut v1::ReconcileResponse| {
        let Some(first) = asked_parts(q).into_iter().next() else {
            return;
        };
        let start = first.part.range.start;
        // below every key that the replica holds
        if start.iter().all(|b| *b == 0) {
            *a = v1::ReconcileResponse {
                position: a.position,
                held: a.held.clone(),
                restore_points: a.restore_points.clone(),
                parts: vec![4 + 2],
                resume_at: Some([&start[..], &[0]].concat()),
                ..v1::ReconcileResponse::default()
            };
        }
    });
    script(&cx, cut).await;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let longest = runs(&seen[before..]).iter().map(Vec::len).max();
    cx.check(
        "given-up",
        longest.is_some_and(|n| (1..=64).contains(&n)),
        "at most 64 requests in a row",
        format!("{longest:?}"),
    );
    let first = seen
        .iter()
        .skip(before)
        .position(|s| s.method == "Reconcile");
    let after = &seen[before + first.unwrap_or_default()..];
    let snapshot = !calls(after, "Snapshot").is_empty();
    cx.check("then-snapshot", snapshot, "a Snapshot", "none");
    same_as_server(&cx, "then-snapshot", &replica).await
}

/// An answer by which everything that is asked is equal.
fn agree(request: &v1::ReconcileRequest, answer: &mut v1::ReconcileResponse) {
    let mut parts = Vec::new();
    for asked in asked_parts(request) {
        let equal = match asked.part.ask {
            Ask::Items => 4 + 2,
            _ => 4,
        };
        varint(equal, &mut parts);
    }
    *answer = v1::ReconcileResponse {
        position: answer.position,
        held: answer.held.clone(),
        restore_points: answer.restore_points.clone(),
        parts,
        ..v1::ReconcileResponse::default()
    };
}

/// Whether the part with the lost record is asked, and was answered by a split.
fn splits_the_lost(request: &v1::ReconcileRequest, answer: &v1::ReconcileResponse) -> bool {
    let asked = asked_parts(request);
    let of_items = asked.iter().filter(|a| a.part.ask == Ask::Items);
    let items = of_items.map(|a| a.shorts.len()).sum();
    let parts: Vec<Part> = asked.iter().map(|a| a.part.clone()).collect();
    let told = take(request, &parts, items, answer).map(|t| t.told);
    let mut pairs = parts.iter().zip(told.unwrap_or_default());
    pairs.any(|(part, told)| {
        contains(&part.range, LOST.as_bytes()) && matches!(told, Told::Split(_))
    })
}

/// What the server does once the replica knows, by digests of full length, that
/// the part with the lost record differs.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// It gets the record.
    Regains,
    /// It says, once, that nothing in it differs.
    Contradicts,
}

/// How far it came.
#[derive(Clone, Copy, Default)]
struct Told32 {
    short: u32,
    full: u32,
    contradicted: bool,
}

/// Short digests tell of the difference at first and then agree by chance, which
/// leads any replica to full ones. From then on as `then` says.
fn doubtful(service: Service, space: String, then: Option<Then>) -> (Action, Arc<Mutex<Told32>>) {
    let progress = Arc::new(Mutex::new(Told32::default()));
    let lost = many().into_iter().find(|r| r.key == LOST.as_bytes());
    let lost: Vec<Record> = lost.into_iter().collect();
    let shared = progress.clone();
    let action = reply(
        move |q: &v1::ReconcileRequest, a: &mut v1::ReconcileResponse| {
            let mut told = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if q.digest_len != 32 {
                if told.short > 0 {
                    agree(q, a);
                } else if splits_the_lost(q, a) {
                    told.short += 1;
                }
                return;
            }
            match then {
                Some(Then::Contradicts) if told.full > 0 && !told.contradicted => {
                    told.contradicted = true;
                    agree(q, a);
                }
                Some(then) if told.full == 0 && splits_the_lost(q, a) => {
                    told.full += 1;
                    if then == Then::Regains {
                        service.commit(&space, &lost);
                    }
                }
                _ => {}
            }
        },
    );
    (action, progress)
}

/// Two thousand records, one of them lost, and a server that is doubtful. The
/// calls of the session on.
async fn doubted(
    cx: &Cx,
    then: Option<Then>,
) -> Result<(Replica, Vec<crate::peer::Seen>, Told32), Stop> {
    let replica = settled(cx, &many()).await?;
    restored(cx).await;
    server_loses(cx, &[LOST]).await;
    let before = cx.seen().await.len();
    let space = cx.space().to_owned();
    let service = cx.server(|p| p.service.clone()).await;
    let (action, progress) = doubtful(service, space, then);
    script(cx, action).await;
    sync_patiently(&replica, cx).await?;
    sync_patiently(&replica, cx).await?;
    let seen = cx.seen().await.split_off(before);
    let told = *progress.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((replica, seen, told))
}

async fn agreed_by_chance(cx: Cx) -> Result<(), Stop> {
    let (replica, seen, told) = doubted(&cx, None).await?;
    let short_then_full = runs(&seen).iter().any(|run| {
        let short = run.iter().position(|r| r.digest_len != 32);
        short.is_some_and(|at| run[at..].iter().any(|r| r.digest_len == 32))
    });
    // one whose first question is a list has no part that differs
    cx.check(
        "in-full",
        told.short == 0 || short_then_full,
        "a request with digest_len 32 in the same session",
        "none",
    );
    let there = cx.server_records().await;
    let back = there.iter().any(|r| r.key == LOST.as_bytes());
    cx.check(
        "found",
        back,
        "the lost record at the server",
        "it is missing",
    );
    same_as_server(&cx, "found", &replica).await
}

async fn moved(cx: Cx) -> Result<(), Stop> {
    let (replica, seen, told) = doubted(&cx, Some(Then::Regains)).await?;
    let about = |r: &&v1::ReconcileRequest| {
        let parts = asked_parts(r);
        r.digest_len == 32
            && parts
                .iter()
                .any(|a| contains(&a.part.range, LOST.as_bytes()))
    };
    let runs = runs(&seen);
    let most = runs
        .iter()
        .map(|run| run.iter().filter(about).count())
        .max();
    // it differs, it does not, and once more
    cx.check(
        "again",
        told.full == 0 || most.is_some_and(|n| n >= 3),
        "three questions about the record's range in one session",
        format!("{most:?}"),
    );
    same_as_server(&cx, "done", &replica).await
}

async fn contradiction(cx: Cx) -> Result<(), Stop> {
    let (replica, seen, told) = doubted(&cx, Some(Then::Contradicts)).await?;
    let full = |s: &crate::peer::Seen| {
        s.method == "Reconcile"
            && v1::ReconcileRequest::decode(s.message.as_slice()).is_ok_and(|r| r.digest_len == 32)
    };
    // the second question at full length is answered by the contradiction
    let first = seen.iter().position(full).unwrap_or(seen.len());
    let second = seen.iter().skip(first + 1).position(full);
    let after = second.map_or(&[][..], |at| &seen[first + 1 + at + 1..]);
    let next = after.first().map(|s| s.method.clone());
    cx.check(
        "ended",
        !told.contradicted || next.as_deref() == Some("Hello"),
        "a Hello",
        format!("{next:?}"),
    );
    let epoch = |s: &crate::peer::Seen| {
        let held = s.held();
        held.first().and_then(|h| h.cursor).map(|c| c.epoch)
    };
    let (old, new) = (
        seen.first().and_then(epoch),
        from_hello(after).first().and_then(epoch),
    );
    cx.check(
        "not-adopted",
        !told.contradicted || old.is_some() && old == new,
        "the cursor that it had",
        format!("{old:x?}, then {new:x?}"),
    );
    same_as_server(&cx, "done", &replica).await
}

async fn push_first(cx: Cx) -> Result<(), Stop> {
    let records: Vec<Record> = (0..3_000)
        .map(|i| Record::put(format!("k{i:04}"), time(i), 77, vec![b'v'; 100]))
        .collect();
    cx.server_writes(&records).await;
    let replica = cx.open("a").await?;
    replica.put("mine", "safe sooner").await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let fetches = |s: &crate::peer::Seen| matches!(s.method.as_str(), "Snapshot" | "Reconcile");
    let fetched = seen.iter().position(fetches);
    let sent = pushed(&seen).first().map(|(at, _)| *at);
    cx.check(
        "first",
        sent.is_some() && fetched.is_none_or(|at| sent.is_some_and(|sent| sent < at)),
        "Push before Snapshot",
        format!("Push is call {sent:?}, Snapshot {fetched:?}"),
    );
    same_as_server(&cx, "done", &replica).await
}

async fn on_demand(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, &others(40)).await?;
    replica.damage("k004").await?;
    let before = cx.seen().await.len();
    replica.verify().await?;
    let seen = cx.seen().await.split_off(before);
    let fetched = seen
        .iter()
        .any(|s| matches!(s.method.as_str(), "Snapshot" | "Reconcile"));
    cx.check("fetched", fetched, "a Reconcile or a Snapshot", "neither");
    same_as_server(&cx, "healed", &replica).await
}
