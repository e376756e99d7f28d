//! Reconcile: fingerprints compared, what differs exchanged, whatever legal
//! split the server chooses.

use super::figures::numbered;
use super::session::{Records, call, compare, session};
use crate::net::framing;
use crate::oracle::Record;
use crate::oracle::descent::{Ask, Part, Told, ask, covered, take, varint};
use crate::schema::v1;
use crate::server::{Cx, Options, Space, everything, held, key_range, time};
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use prost::Message;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "reconcile/equal",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The replica holds what the server holds; short and full digests; an empty space.",
        checks: &[
            positive(
                "equal",
                &["RECON-017"],
                "the whole space is equal in one round, nothing is sent",
            ),
            positive(
                "status",
                &["RECON-015", "RECON-016"],
                "with position and one status for each entry",
            ),
            positive(
                "differs",
                &["RECON-017"],
                "another fingerprint is not called equal",
            ),
        ],
        run: |cx| Box::pin(equal(cx)),
    },
    Case {
        name: "reconcile/items",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The replica tells its items: some the same, some missing on either side, some different.",
        checks: &[
            positive("resolved", &["RECON-018"], "the part is resolved"),
            positive(
                "records",
                &["RECON-019", "RECON-021"],
                "exactly what the replica did not tell comes, in key order",
            ),
            positive(
                "lacking",
                &["RECON-020"],
                "exactly the items that the server lacks are marked",
            ),
        ],
        run: |cx| Box::pin(items(cx)),
    },
    Case {
        name: "reconcile/descent",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "Some hundred records with scattered differences; the replica follows whatever splits the server makes.",
        checks: &[
            positive(
                "legal",
                &["RECON-001", "RECON-022", "RECON-029"],
                "every answer is well-formed, its varints in their shortest form",
            ),
            positive(
                "found",
                &["RECON-019", "RECON-020"],
                "exactly what differs is found, on both sides",
            ),
            positive("few-rounds", &["RECON-022"], "within 16 rounds"),
        ],
        run: |cx| Box::pin(descent(cx)),
    },
    Case {
        name: "scale/ten-thousand",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "Ten thousand records, of which some differ, scattered; the replica follows whatever splits the server makes.",
        checks: &[
            positive(
                "found",
                &["RECON-019", "RECON-020"],
                "exactly what differs is found, on both sides",
            ),
            positive(
                "few-rounds",
                &["RECON-022", "LIMIT-012"],
                "within 64 rounds, after which a replica may give up",
            ),
        ],
        run: |cx| Box::pin(ten_thousand(cx)),
    },
    Case {
        name: "reconcile/one-side-empty",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "An empty replica and a full server, and the reverse.",
        checks: &[
            positive(
                "all-sent",
                &["RECON-019"],
                "the empty replica gets everything",
            ),
            positive(
                "all-lacking",
                &["RECON-020"],
                "the empty server lacks everything",
            ),
        ],
        run: |cx| Box::pin(one_side_empty(cx)),
    },
    Case {
        name: "reconcile/budget",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "Much more has to be sent than one answer may hold.",
        checks: &[
            positive(
                "size",
                &["RECON-024"],
                "no answer is larger than asked for, but for one record",
            ),
            positive(
                "progress",
                &["RECON-026", "RECON-027"],
                "each answer brings progress, and says where to go on",
            ),
            positive("all", &["RECON-019"], "in the end everything has come"),
        ],
        run: |cx| Box::pin(budget(cx)),
    },
    Case {
        name: "reconcile/malformed",
        profile: Profile::Hardened,
        needs: &[Need::Reconcile],
        about: "Columns that are not well-formed, of every kind.",
        checks: &[
            positive(
                "well-formed",
                &["RECON-017"],
                "the proper request is answered",
            ),
            negative(
                "kind-3",
                "well-formed",
                &["RECON-008"],
                "MALFORMED for a kind that is none",
            ),
            negative(
                "no-part",
                "well-formed",
                &["RECON-008"],
                "MALFORMED for no part",
            ),
            negative(
                "empty-run",
                "well-formed",
                &["RECON-008"],
                "MALFORMED for a run of 0 parts",
            ),
            negative(
                "digest-missing",
                "well-formed",
                &["RECON-008"],
                "MALFORMED for a digest that is missing",
            ),
            negative(
                "digest-left",
                "well-formed",
                &["RECON-008"],
                "MALFORMED for a digest too many",
            ),
            negative(
                "bound-left",
                "well-formed",
                &["RECON-008"],
                "MALFORMED for a bound too many",
            ),
            negative(
                "bound-low",
                "well-formed",
                &["RECON-003"],
                "MALFORMED for a bound that is not above the lower one",
            ),
            negative(
                "bound-count",
                "well-formed",
                &["RECON-003"],
                "MALFORMED for a bound that drops 2^64 bytes, which is none where the count wraps",
            ),
            negative(
                "varint",
                "well-formed",
                &["RECON-002"],
                "MALFORMED for a varint not in shortest form",
            ),
            negative(
                "asks-nothing",
                "well-formed",
                &["RECON-009"],
                "MALFORMED for asking about nothing",
            ),
            negative(
                "outside-held",
                "well-formed",
                &["RECON-009"],
                "MALFORMED for asking outside held",
            ),
            negative(
                "digest-len",
                "well-formed",
                &["RECON-010"],
                "MALFORMED for a digest length of 3 and of 33",
            ),
        ],
        run: |cx| Box::pin(malformed(cx)),
    },
    Case {
        name: "reconcile/horizon",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A request computed at another horizon than the server's.",
        checks: &[
            positive(
                "same",
                &["RECON-013"],
                "at the server's horizon it is answered",
            ),
            negative(
                "other",
                "same",
                &["RECON-013"],
                "HORIZON_CHANGED at another",
            ),
            negative(
                "detail",
                "same",
                &["ERR-003"],
                "HistoryDetail tells the server's horizon",
            ),
        ],
        run: |cx| Box::pin(horizon(cx)),
    },
    Case {
        name: "reconcile/ranges",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "Only one range is held and asked about; the rest of the space differs wildly.",
        checks: &[positive(
            "only-range",
            &["RECON-019", "MERKLE-002"],
            "nothing outside the range comes or counts",
        )],
        run: |cx| Box::pin(only_range(cx)),
    },
];

fn map(records: &[Record]) -> Records {
    records.iter().map(|r| (r.key.clone(), r.clone())).collect()
}

fn whole(ask: Ask) -> Vec<Part> {
    vec![Part {
        range: everything(),
        ask,
    }]
}

/// A request of a replica that holds all keys.
fn request(space: &Space) -> v1::ReconcileRequest {
    v1::ReconcileRequest {
        space: space.id.clone(),
        held: vec![held(vec![everything()], None)],
        salt: space.cx.random(),
        turns_left: 2,
        ..v1::ReconcileRequest::default()
    }
}

async fn equal(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    for round in 0..2 {
        for digest_len in [0, 4, 32] {
            let mut request = v1::ReconcileRequest {
                digest_len,
                ..request(&space)
            };
            let parts = whole(Ask::Fingerprint);
            ask(&mut request, &parts, &space.records);
            let answer = call(&space, &request).await?;
            cx.equal(
                "status",
                (1, true),
                (answer.held.len(), answer.position.is_some()),
            );
            let taken = take(&request, &parts, 0, &answer).map_err(Stop::Peer)?;
            cx.equal(
                "equal",
                (vec![Told::Equal], 0),
                (taken.told, answer.records.len()),
            );
        }
        if round == 0 {
            let mut records = numbered(40);
            records.push(Record::tombstone("key-00007x", time(99), 1));
            space.seed(&records).await?;
        }
    }
    let mut other = space.records.clone();
    other.pop_first();
    let mut request = request(&space);
    let parts = whole(Ask::Fingerprint);
    ask(&mut request, &parts, &other);
    let answer = call(&space, &request).await?;
    let taken = take(&request, &parts, 0, &answer).map_err(Stop::Peer)?;
    cx.check(
        "differs",
        taken.told != vec![Told::Equal],
        "a split or a resolved part",
        format!("{:?}", taken.told),
    );
    Ok(())
}

async fn items(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed(&numbered(12)).await?;
    let mut own = space.records.clone();
    own.remove(b"key-00003".as_slice());
    own.insert(
        b"key-00005".to_vec(),
        Record::put("key-00005", time(500), 2, "mine"),
    );
    own.insert(
        b"only-here".to_vec(),
        Record::put("only-here", time(500), 2, "mine"),
    );
    let mut request = request(&space);
    let parts = whole(Ask::Items);
    ask(&mut request, &parts, &own);
    let answer = call(&space, &request).await?;
    let taken = take(&request, &parts, own.len(), &answer).map_err(Stop::Peer)?;
    cx.equal("resolved", vec![Told::Resolved], taken.told);
    let want: Vec<v1::Record> = ["key-00003", "key-00005"]
        .iter()
        .map(|k| space.records[k.as_bytes()].to_wire())
        .collect();
    cx.equal("records", want, answer.records);
    let marked: Vec<String> = own
        .keys()
        .zip(&taken.lacking)
        .filter(|(_, lacks)| **lacks)
        .map(|(k, _)| k.escape_ascii().to_string())
        .collect();
    cx.equal(
        "lacking",
        vec!["key-00005".to_owned(), "only-here".into()],
        marked,
    );
    Ok(())
}

/// A server with so many records, and a replica that lacks some, has changed some
/// and added some.
async fn scattered(cx: &Cx, many: usize) -> Result<(Space, Records), Stop> {
    let mut space = Space::fresh(cx);
    space.seed(&numbered(many)).await?;
    let mut own = space.records.clone();
    let later = |i: u64| time(many as u64 + i);
    for i in 0..8 {
        let pick = || format!("key-{:05}", cx.below(many as u64)).into_bytes();
        own.remove(&pick());
        let changed = pick();
        own.insert(
            changed.clone(),
            Record::put(&changed, later(i), 2, "changed"),
        );
        let added = [pick(), b"+".to_vec()].concat();
        own.insert(added.clone(), Record::put(&added, later(i), 2, "added"));
    }
    Ok((space, own))
}

async fn ten_thousand(cx: Cx) -> Result<(), Stop> {
    let (space, own) = scattered(&cx, 10_000).await?;
    let found = session(&space, &own, everything(), request(&space)).await?;
    compare(&cx, "found", &found, &space.records, &own);
    cx.check(
        "few-rounds",
        found.rounds <= 64,
        "at most 64 rounds",
        found.rounds,
    );
    Ok(())
}

async fn descent(cx: Cx) -> Result<(), Stop> {
    let (space, own) = scattered(&cx, 700).await?;
    // a malformed answer ends the session, and the case, here
    let found = session(&space, &own, everything(), request(&space)).await?;
    cx.check("legal", true, "well-formed answers", "well-formed answers");
    cx.check(
        "few-rounds",
        found.rounds <= 16,
        "at most 16 rounds",
        found.rounds,
    );
    compare(&cx, "found", &found, &space.records, &own);
    Ok(())
}

async fn one_side_empty(cx: Cx) -> Result<(), Stop> {
    let mut full = Space::fresh(&cx);
    full.seed(&numbered(150)).await?;
    let nothing = Records::new();
    let found = session(&full, &nothing, everything(), request(&full)).await?;
    compare(&cx, "all-sent", &found, &full.records, &nothing);
    let empty = Space::fresh(&cx);
    let own = map(&numbered(150));
    let found = session(&empty, &own, everything(), request(&empty)).await?;
    compare(&cx, "all-lacking", &found, &nothing, &own);
    Ok(())
}

async fn budget(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let records: Vec<Record> = (0..120)
        .map(|i| Record::put(format!("key-{i:05}"), time(1), 1, vec![b'x'; 1_000]))
        .collect();
    for part in records.chunks(60) {
        space.seed(part).await?;
    }
    let base = v1::ReconcileRequest {
        max_response_bytes: 8_000,
        ..request(&space)
    };
    let own = map(&numbered(3));
    let found = session(&space, &own, everything(), base).await?;
    cx.check(
        "progress",
        found.progress,
        "resume_at above the first part's start",
        "no progress",
    );
    cx.check(
        "size",
        found.largest <= 8_000,
        "at most 8,000 bytes beside one record",
        format!("{} bytes", found.largest),
    );
    compare(&cx, "all", &found, &space.records, &own);
    Ok(())
}

async fn malformed(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed(&numbered(5)).await?;
    let mut good = request(&space);
    let parts = vec![
        Part {
            range: v1::Range {
                start: vec![],
                end: Some(b"key-00002".to_vec()),
            },
            ask: Ask::Fingerprint,
        },
        Part {
            range: v1::Range {
                start: b"key-00002".to_vec(),
                end: None,
            },
            ask: Ask::Items,
        },
    ];
    ask(&mut good, &parts, &space.records);
    let answer = cx
        .unary::<_, v1::ReconcileResponse>("Reconcile", &good, &Options::default())
        .await;
    cx.check(
        "well-formed",
        answer.message.is_some(),
        "an answer",
        answer.reply.summary(),
    );
    let bad = |change: &dyn Fn(&mut v1::ReconcileRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let mut nothing = request(&space);
    varint(4, &mut nothing.parts);
    let tried: Vec<(&'static str, v1::ReconcileRequest)> = vec![
        ("kind-3", bad(&|r| r.parts[0] |= 3)),
        (
            "no-part",
            bad(&|r| {
                r.parts.clear();
                r.bounds.clear();
                r.digests.clear();
            }),
        ),
        ("empty-run", bad(&|r| r.parts.insert(0, 1))),
        (
            "digest-missing",
            bad(&|r| {
                r.digests.pop();
            }),
        ),
        ("digest-left", bad(&|r| r.digests.extend([1, 2, 3, 4, 5]))),
        ("bound-left", bad(&|r| r.bounds.extend([0x01, b'z']))),
        (
            "bound-low",
            bad(&|r| {
                r.bounds = vec![0x00];
            }),
        ),
        (
            "bound-count",
            bad(&|r| {
                // its first bound drops nothing and adds nine bytes
                let mut wraps = vec![0xf9];
                varint(u64::MAX - 14, &mut wraps);
                r.bounds.splice(..1, wraps);
            }),
        ),
        (
            "varint",
            bad(&|r| {
                let first = r.parts.remove(0);
                r.parts.splice(0..0, [first | 128, 0]);
            }),
        ),
        ("asks-nothing", nothing),
        (
            "outside-held",
            bad(&|r| r.held = vec![held(vec![key_range("a", "b")], None)]),
        ),
        ("digest-len", bad(&|r| r.digest_len = 3)),
        ("digest-len", bad(&|r| r.digest_len = 9)),
        ("digest-len", bad(&|r| r.digest_len = 31)),
        ("digest-len", bad(&|r| r.digest_len = 33)),
    ];
    for (check, request) in tried {
        let body = framing::encode(0, &request.encode_to_vec());
        let reply = cx.raw("Reconcile", body, &Options::default()).await;
        space.refused(check, &reply, "MALFORMED").await;
    }
    Ok(())
}

async fn horizon(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let pushed = space.seed(&numbered(5)).await?;
    let h = pushed.position.map_or(0, |p| p.horizon);
    let mut request = v1::ReconcileRequest {
        horizon: h,
        ..request(&space)
    };
    ask(&mut request, &whole(Ask::Fingerprint), &space.records);
    let answer = cx
        .unary::<_, v1::ReconcileResponse>("Reconcile", &request, &Options::default())
        .await;
    cx.check(
        "same",
        answer.message.is_some(),
        "an answer",
        answer.reply.summary(),
    );
    request.horizon = h.saturating_add(1);
    let reply = cx
        .unary::<_, v1::ReconcileResponse>("Reconcile", &request, &Options::default())
        .await
        .reply;
    space.refused("other", &reply, "HORIZON_CHANGED").await;
    let told = reply
        .status
        .and_then(|s| s.history())
        .and_then(|d| d.position)
        .map(|p| p.horizon);
    cx.equal("detail", Some(h), told);
    Ok(())
}

async fn only_range(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let mut records = numbered(60);
    records.extend((0..60).map(|i| Record::put(format!("other-{i:03}"), time(1), 1, "v")));
    space.seed(&records).await?;
    let range = key_range("key-", "key.");
    let server: Records = covered(&space.records, &range, 0)
        .into_iter()
        .map(|r| (r.key.clone(), r.clone()))
        .collect();
    let mut own = server.clone();
    own.remove(b"key-00030".as_slice());
    own.insert(b"key-1".to_vec(), Record::put("key-1", time(5), 2, "mine"));
    let found = session(&space, &own, range, request(&space)).await?;
    compare(&cx, "only-range", &found, &server, &own);
    Ok(())
}
