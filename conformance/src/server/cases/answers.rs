//! Reconcile by its events: what each is answered with, and where an answer
//! may break off.

use super::session::call;
use crate::oracle::Record;
use crate::oracle::descent::{Ask, Part, Told, ask, take};
use crate::schema::v1;
use crate::server::{Cx, Options, Space, everything, held, key_range, time};
use crate::suite::{Case, Need, Profile, Stop, negative, positive};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "reconcile/as-offered",
        profile: Profile::Core,
        needs: &[],
        about: "A replica names FEATURE_RECONCILE, and calls Reconcile whether or not it was answered.",
        checks: &[positive(
            "answered",
            &["RECON-049"],
            "the call is answered where the feature is, and UNIMPLEMENTED where it is not",
        )],
        run: |cx| Box::pin(as_offered(cx)),
    },
    Case {
        name: "reconcile/events",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "Requests that other cases do not make: about no ranges, overlapping and too many ones, by a replica of another history, about an empty space.",
        checks: &[
            positive(
                "valid",
                &["RECON-049", "RECON-017"],
                "a valid one is answered",
            ),
            negative(
                "no-ranges",
                "valid",
                &["RECON-049"],
                "MALFORMED where held is empty",
            ),
            negative(
                "overlapping",
                "valid",
                &["RECON-049", "MODEL-012"],
                "MALFORMED where its ranges overlap",
            ),
            negative(
                "too-many",
                "valid",
                &["RECON-049", "LIMIT-004"],
                "LIMIT_EXCEEDED where there are more than max_ranges",
            ),
            positive(
                "another-history",
                &["RECON-049", "RECON-014"],
                "a cursor of another history is answered with UNKNOWN, not refused",
            ),
            positive(
                "empty",
                &["RECON-049", "RECON-017", "RECON-018"],
                "an empty space is equal to nothing, and resolved where something is told",
            ),
        ],
        run: |cx| Box::pin(events(cx)),
    },
    Case {
        name: "reconcile/broken-off",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A hundred parts differ, and answers are to be small; the replica asks again about what is left.",
        checks: &[
            positive(
                "broken-off",
                &["RECON-026"],
                "an answer says where it broke off",
            ),
            positive(
                "between-parts",
                &["RECON-028"],
                "never inside a part that it calls equal, or splits",
            ),
            positive("to-the-end", &["RECON-027"], "in the end all are answered"),
        ],
        run: |cx| Box::pin(broken_off(cx)),
    },
];

fn request(space: &Space) -> v1::ReconcileRequest {
    v1::ReconcileRequest {
        space: space.id.clone(),
        held: vec![held(vec![everything()], None)],
        salt: space.cx.random(),
        turns_left: 2,
        ..v1::ReconcileRequest::default()
    }
}

fn whole(ask: Ask) -> Vec<Part> {
    vec![Part {
        range: everything(),
        ask,
    }]
}

async fn as_offered(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let hello = cx.hello(&space.hello_request(vec![])).await.good()?;
    let offered = hello.features.contains(&(v1::Feature::Reconcile as i32));
    let mut request = request(&space);
    ask(&mut request, &whole(Ask::Fingerprint), &space.records);
    let reply = cx
        .stream_to_end("Reconcile", &request, &Options::default())
        .await;
    let code = reply.status.as_ref().map(|s| s.code);
    cx.check(
        "answered",
        code == Some(if offered { 0 } else { 12 }),
        if offered { "OK" } else { "UNIMPLEMENTED" },
        reply.summary(),
    );
    Ok(())
}

async fn events(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let empty = Space::fresh(&cx);
    let records: Vec<Record> = (0..5)
        .map(|i| Record::put(format!("k{i}"), time(i), 1, "v"))
        .collect();
    let head = space.seed(&records).await?.position.and_then(|p| p.head);
    let mut good = request(&space);
    ask(&mut good, &whole(Ask::Fingerprint), &space.records);
    let options = Options::default();
    let reply = cx.stream_to_end("Reconcile", &good, &options).await;
    cx.check("valid", reply.is_ok(), "status OK", reply.summary());
    let overlapping = vec![
        held(vec![everything()], None),
        held(vec![everything()], head),
    ];
    let many = (0..=cx.limits().max_ranges)
        .map(|i| key_range(format!("r{i:05}"), format!("r{i:05}x")))
        .collect();
    for (check, held, reason) in [
        ("no-ranges", vec![], "MALFORMED"),
        ("overlapping", overlapping, "MALFORMED"),
        ("too-many", vec![held(many, None)], "LIMIT_EXCEEDED"),
    ] {
        let bad = v1::ReconcileRequest {
            held,
            ..good.clone()
        };
        let reply = cx.stream_to_end("Reconcile", &bad, &options).await;
        space.refused(check, &reply, reason).await;
    }
    let foreign = head.map(|head| v1::Cursor {
        epoch: !head.epoch,
        ..head
    });
    let stranger = v1::ReconcileRequest {
        held: vec![held(vec![everything()], foreign)],
        ..good.clone()
    };
    let answer = cx
        .unary::<_, v1::ReconcileResponse>("Reconcile", &stranger, &options)
        .await;
    let told: Option<Vec<v1::Lineage>> = answer
        .message
        .map(|a| a.held.iter().map(v1::HistoryStatus::lineage).collect());
    cx.check(
        "another-history",
        told == Some(vec![v1::Lineage::Unknown]),
        "LINEAGE_UNKNOWN",
        format!("{told:?}, {}", answer.reply.summary()),
    );
    for (kind, own, want) in [
        (Ask::Fingerprint, &empty.records, Told::Equal),
        (Ask::Items, &empty.records, Told::Resolved),
        (Ask::Fingerprint, &space.records, Told::Resolved),
        (Ask::Items, &space.records, Told::Resolved),
    ] {
        let mut request = request(&empty);
        let parts = whole(kind);
        ask(&mut request, &parts, own);
        let items = if kind == Ask::Items { own.len() } else { 0 };
        let answer = call(&empty, &request).await?;
        let taken = take(&request, &parts, items, &answer).map_err(Stop::Peer)?;
        cx.equal(
            "empty",
            (vec![want], vec![true; items], 0),
            (taken.told, taken.lacking, answer.records.len()),
        );
    }
    Ok(())
}

/// Whether a key lies inside of a range, and not at its start.
fn inside(at: &[u8], range: &v1::Range) -> bool {
    range.start.as_slice() < at && range.end.as_ref().is_none_or(|end| at < end.as_slice())
}

async fn broken_off(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let records: Vec<Record> = (0..100)
        .flat_map(|i| (0..15).map(move |j| (i, j)))
        .map(|(i, j)| Record::put(format!("{i:03}-{j:02}"), time(1), 1, "v"))
        .collect();
    space.seed(&records).await?;
    let mut own = space.records.clone();
    for i in 0..100 {
        let key = format!("{i:03}-07");
        own.insert(key.clone().into(), Record::put(key, time(2), 2, "other"));
    }
    let mut open: Vec<Part> = (0..100)
        .map(|i| Part {
            range: key_range(format!("{i:03}"), format!("{:03}", i + 1)),
            ask: Ask::Fingerprint,
        })
        .collect();
    let (mut broken, mut wrong) = (0, None);
    for _ in 0..200 {
        let (Some(first), Some(last)) = (open.first(), open.last()) else {
            break;
        };
        let skip = |start: &[u8], end: Option<&Vec<u8>>| Part {
            range: v1::Range {
                start: start.to_vec(),
                end: end.cloned(),
            },
            ask: Ask::Skip,
        };
        let before = skip(b"", Some(&first.range.start));
        let after = skip(last.range.end.as_deref().unwrap_or_default(), None);
        let parts = [vec![before], open.clone(), vec![after]].concat();
        let mut request = v1::ReconcileRequest {
            max_response_bytes: 1_100,
            ..request(&space)
        };
        ask(&mut request, &parts, &own);
        let answer = call(&space, &request).await?;
        let taken = take(&request, &parts, 0, &answer).map_err(Stop::Peer)?;
        broken += usize::from(answer.resume_at.is_some());
        let mut left = Vec::new();
        for (part, told) in open.iter().zip(taken.told) {
            let cut = answer
                .resume_at
                .as_ref()
                .filter(|at| inside(at, &part.range));
            match (told, cut) {
                (Told::Unanswered, _) => left.push(part.clone()),
                (Told::Equal | Told::Split(_), Some(at)) => {
                    wrong = Some(format!("{} inside of {:?}", at.escape_ascii(), part.range));
                }
                (Told::Resolved, Some(at)) => left.push(Part {
                    range: v1::Range {
                        start: at.clone(),
                        end: part.range.end.clone(),
                    },
                    ask: Ask::Fingerprint,
                }),
                _ => {}
            }
        }
        open = left;
    }
    cx.check("broken-off", broken > 0, "resume_at", "never");
    cx.check(
        "between-parts",
        wrong.is_none(),
        "at the start of a part",
        wrong.unwrap_or_default(),
    );
    cx.equal("to-the-end", 0, open.len());
    Ok(())
}
