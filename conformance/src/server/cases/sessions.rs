//! More of Reconcile: a kept tree, many parts, many items, random sets.

use super::figures::{head, numbered};
use super::session::{Records, compare, session};
use crate::net::framing;
use crate::oracle::Record;
use crate::oracle::descent::{Ask, Part, Told, ask, take};
use crate::schema::v1;
use crate::server::{Cx, Options, Space, everything, held, time};
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use prost::Message;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "range/kept-tree",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "Between comparisons records are added, overwritten and deleted.",
        checks: &[
            positive(
                "equal",
                &["MERKLE-005", "HELLO-026"],
                "after each the true fingerprint is equal",
            ),
            positive(
                "differs",
                &["MERKLE-005", "HELLO-026"],
                "and the one before is not",
            ),
        ],
        run: |cx| Box::pin(kept_tree(cx)),
    },
    Case {
        name: "reconcile/many-parts",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A request about two thousand parts, half of them with a wrong fingerprint.",
        checks: &[
            positive("equal", &["RECON-017"], "the right ones are equal"),
            positive(
                "differ",
                &["RECON-017"],
                "the wrong ones are not, however they begin",
            ),
        ],
        run: |cx| Box::pin(many_parts(cx)),
    },
    Case {
        name: "reconcile/too-many",
        profile: Profile::Hardened,
        needs: &[Need::Reconcile, Need::Stop, Need::Limits],
        about: "As many items as the server allows, and more.",
        checks: &[
            positive("most", &["LIMIT-002"], "max_reconcile_entries are answered"),
            negative("more", "most", &["RECON-011"], "more are LIMIT_EXCEEDED"),
        ],
        run: |cx| Box::pin(too_many(cx)),
    },
    Case {
        name: "reconcile/random",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "Ten sessions between random sets, with long and short digests.",
        checks: &[positive(
            "found",
            &["RECON-017", "RECON-019", "RECON-020"],
            "exactly what differs is found, each time",
        )],
        run: |cx| Box::pin(random(cx)),
    },
    Case {
        name: "reconcile/foreign-cursor",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A replica whose cursor is of another lineage reconciles.",
        checks: &[positive(
            "told",
            &["RECON-014", "RECON-016"],
            "it is answered, and UNKNOWN is told",
        )],
        run: |cx| Box::pin(foreign_cursor(cx)),
    },
];

async fn kept_tree(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let mut before: Option<Vec<u8>> = None;
    for round in 0..6u64 {
        let own: Vec<Record> = match round {
            0 => numbered(40),
            1 => vec![Record::put("key-00003+", time(100), 1, "added")],
            2 => vec![Record::put("key-00007", time(100), 1, "changed")],
            3 => vec![Record::tombstone("key-00009", time(100), 1)],
            4 => vec![Record::tombstone("never", time(100), 1)],
            _ => vec![Record::put("key-00009", time(200), 1, "back")],
        };
        space.seed(&own).await?;
        let now = space.state(&everything()).fingerprint;
        for (check, fingerprint, want) in [
            ("equal", Some(now.clone()), true),
            ("differs", before, false),
        ] {
            let Some(fingerprint) = fingerprint else {
                continue;
            };
            let request = v1::HelloRequest {
                fingerprints: vec![fingerprint],
                ..space.hello_request(vec![held(vec![everything()], None)])
            };
            let answer = cx.hello(&request).await.good()?;
            cx.equal(check, vec![want], answer.equal);
        }
        before = Some(now);
    }
    Ok(())
}

fn whole_request(space: &Space) -> v1::ReconcileRequest {
    v1::ReconcileRequest {
        space: space.id.clone(),
        held: vec![held(vec![everything()], None)],
        salt: space.cx.random(),
        turns_left: 2,
        ..v1::ReconcileRequest::default()
    }
}

async fn many_parts(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let records = numbered(2_000);
    space.seed(&records).await?;
    let mut own = space.records.clone();
    for (i, record) in records.iter().enumerate().filter(|(i, _)| i % 2 == 1) {
        let other = Record::put(&record.key, time(9_000 + i as u64), 3, "another");
        own.insert(record.key.clone(), other);
    }
    let mut starts: Vec<Vec<u8>> = records.iter().map(|r| r.key.clone()).collect();
    starts[0] = vec![];
    let parts: Vec<Part> = starts
        .iter()
        .enumerate()
        .map(|(i, start)| Part {
            range: v1::Range {
                start: start.clone(),
                end: starts.get(i + 1).cloned(),
            },
            ask: Ask::Fingerprint,
        })
        .collect();
    let mut request = whole_request(&space);
    ask(&mut request, &parts, &own);
    let answer = super::session::call(&space, &request).await?;
    let taken = take(&request, &parts, 0, &answer).map_err(Stop::Peer)?;
    let mut wrong = [0, 0];
    let mut answered = 0;
    for (i, told) in taken.told.iter().enumerate() {
        if *told == Told::Unanswered {
            continue;
        }
        answered += 1;
        wrong[i % 2] += usize::from((*told == Told::Equal) != (i % 2 == 0));
    }
    cx.check(
        "equal",
        wrong[0] == 0 && answered > 0,
        "all of them",
        format!("{} not", wrong[0]),
    );
    cx.check(
        "differ",
        wrong[1] == 0 && answered > 0,
        "all of them",
        format!("{} equal", wrong[1]),
    );
    Ok(())
}

async fn too_many(cx: Cx) -> Result<(), Stop> {
    cx.with_limits(&[("max_reconcile_entries", 1_000)], |cx| async move {
        let space = Space::fresh(&cx);
        let own = |n: usize| -> Records {
            numbered(n)
                .into_iter()
                .map(|r| (r.key.clone(), r))
                .collect()
        };
        let part = || {
            vec![Part {
                range: everything(),
                ask: Ask::Items,
            }]
        };
        let mut request = whole_request(&space);
        // a part and its items count
        ask(&mut request, &part(), &own(999));
        let answer = cx
            .unary::<_, v1::ReconcileResponse>("Reconcile", &request, &Options::default())
            .await;
        cx.check(
            "most",
            answer.message.is_some(),
            "an answer",
            answer.reply.summary(),
        );
        let mut request = whole_request(&space);
        ask(&mut request, &part(), &own(1_001));
        let body = framing::encode(0, &request.encode_to_vec());
        let reply = cx.raw("Reconcile", body, &Options::default()).await;
        space.refused("more", &reply, "LIMIT_EXCEEDED").await;
        Ok(())
    })
    .await
}

async fn random(cx: Cx) -> Result<(), Stop> {
    for round in 0..10u64 {
        let mut space = Space::fresh(&cx);
        let n = 1 + cx.below(200) as usize;
        space.seed(&numbered(n)).await?;
        let mut own = space.records.clone();
        for _ in 0..cx.below(20) {
            let key = format!("key-{:05}", cx.below(n as u64)).into_bytes();
            match cx.below(3) {
                0 => drop(own.remove(&key)),
                1 => drop(own.insert(key.clone(), Record::tombstone(&key, time(9_000), 2))),
                _ => {
                    let key = [&key[..], b"x"].concat();
                    own.insert(key.clone(), Record::put(&key, time(9_000), 2, "mine"));
                }
            }
        }
        let base = v1::ReconcileRequest {
            digest_len: [0, 4, 8, 32][(round % 4) as usize],
            ..whole_request(&space)
        };
        let found = session(&space, &own, everything(), base).await?;
        compare(&cx, "found", &found, &space.records, &own);
    }
    Ok(())
}

async fn foreign_cursor(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let good = head(&space.seed(&numbered(5)).await?)?;
    let foreign = v1::Cursor {
        epoch: !good.epoch,
        ..good
    };
    let mut request = v1::ReconcileRequest {
        held: vec![held(vec![everything()], Some(foreign))],
        ..whole_request(&space)
    };
    let part = Part {
        range: everything(),
        ask: Ask::Fingerprint,
    };
    ask(&mut request, &[part], &space.records);
    let answer = super::session::call(&space, &request).await?;
    let told: Vec<v1::Lineage> = answer.held.iter().map(v1::HistoryStatus::lineage).collect();
    cx.equal("told", vec![v1::Lineage::Unknown], told);
    Ok(())
}
