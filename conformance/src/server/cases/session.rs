//! A whole reconcile session of a naive replica: it follows whatever splits the
//! server makes, and says what it found.

use super::Cx;
use crate::oracle::Record;
use crate::oracle::descent::{Ask, Part, Told, ask, covered, short, take};
use crate::schema::v1;
use crate::server::{Options, Space, held, key_range};
use crate::suite::Stop;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// By key.
pub type Records = BTreeMap<Vec<u8>, Record>;

/// A call that must succeed.
///
/// # Errors
/// [`Stop::Peer`] when it does not.
pub async fn call(
    space: &Space,
    request: &v1::ReconcileRequest,
) -> Result<v1::ReconcileResponse, Stop> {
    space
        .cx
        .unary("Reconcile", request, &Options::default())
        .await
        .good()
}

/// What a naive session found.
pub struct Found {
    /// What the server sent.
    pub received: Records,
    /// Keys of the replica's records that the server lacks.
    pub lacking: BTreeSet<Vec<u8>>,
    /// How many calls it took.
    pub rounds: usize,
    /// The largest answer without its largest record.
    pub largest: usize,
    /// Whether each answer closed a part, split one, or went on.
    pub progress: bool,
}

/// Follows whatever the server answers until every part is closed.
///
/// # Errors
/// [`Stop::Peer`] for an answer that is malformed.
pub async fn session(
    space: &Space,
    own: &Records,
    range: v1::Range,
    mut base: v1::ReconcileRequest,
) -> Result<Found, Stop> {
    let mut found = Found {
        received: Records::new(),
        lacking: BTreeSet::new(),
        rounds: 0,
        largest: 0,
        progress: true,
    };
    base.held = vec![held(vec![range.clone()], None)];
    let mut open = vec![Part {
        range,
        ask: Ask::Fingerprint,
    }];
    let length = if base.digest_len == 0 {
        5
    } else {
        base.digest_len as usize
    };
    while !open.is_empty() {
        found.rounds += 1;
        if found.rounds > 200 {
            return Err(Stop::Peer(
                "the session does not end within 200 rounds".into(),
            ));
        }
        let parts = tile(&open);
        ask(&mut base, &parts, own);
        let answer = call(space, &base).await?;
        let heaviest = answer
            .records
            .iter()
            .map(Message::encoded_len)
            .max()
            .unwrap_or(0);
        found.largest = found
            .largest
            .max(answer.encoded_len().saturating_sub(heaviest));
        let resume = answer.resume_at.clone();
        if let Some(at) = &resume
            && open.first().is_some_and(|p| *at <= p.range.start)
        {
            found.progress = false;
            return Ok(found);
        }
        // the items of parts of kind 2 that were begun
        let begun: Vec<&Part> = open
            .iter()
            .filter(|p| p.ask == Ask::Items && resume.as_ref().is_none_or(|at| p.range.start < *at))
            .collect();
        let items: Vec<&Record> = begun
            .iter()
            .flat_map(|p| covered(own, &p.range, base.horizon))
            .collect();
        let taken = take(&base, &parts, items.len(), &answer).map_err(Stop::Peer)?;
        for (item, lacks) in items.iter().zip(&taken.lacking) {
            let void = resume.as_ref().is_some_and(|at| item.key >= *at);
            if *lacks && !void {
                found.lacking.insert(item.key.clone());
            }
        }
        let mut last: Option<Vec<u8>> = None;
        for record in &answer.records {
            let record = Record::from_wire(record)
                .map_err(|d| Stop::Peer(format!("a record is {}", d.name())))?;
            let ordered = last.as_ref().is_none_or(|l| *l < record.key);
            if !ordered {
                return Err(Stop::Peer("the records of an answer do not ascend".into()));
            }
            last = Some(record.key.clone());
            found.received.insert(record.key.clone(), record);
        }
        let mut next = Vec::new();
        for (part, told) in open.iter().zip(taken.told) {
            match told {
                Told::Equal => {}
                Told::Unanswered => next.push(part.clone()),
                Told::Resolved => {
                    let (done, rest) = cut(&part.range, resume.as_ref());
                    if part.ask == Ask::Fingerprint {
                        for record in covered(own, &done, base.horizon) {
                            if found.received.get(&record.key) != Some(record) {
                                found.lacking.insert(record.key.clone());
                            }
                        }
                    }
                    next.extend(rest.map(|range| Part {
                        range,
                        ask: part.ask,
                    }));
                }
                Told::Split(finer) => {
                    for (range, told) in finer {
                        let inside = covered(own, &range, base.horizon);
                        let mine = crate::oracle::fingerprint(&inside);
                        if short(base.salt, &mine, length) != told {
                            let same = range == part.range;
                            let ask = if same || inside.len() <= 20 {
                                Ask::Items
                            } else {
                                Ask::Fingerprint
                            };
                            next.push(Part { range, ask });
                        }
                    }
                }
            }
        }
        open = next;
    }
    Ok(found)
}

/// What of a range lies below a key, and what is left.
fn cut(range: &v1::Range, at: Option<&Vec<u8>>) -> (v1::Range, Option<v1::Range>) {
    match at {
        Some(at) if range.end.as_ref().is_none_or(|e| at < e) => (
            v1::Range {
                start: range.start.clone(),
                end: Some(at.clone()),
            },
            Some(v1::Range {
                start: at.clone(),
                end: range.end.clone(),
            }),
        ),
        _ => (range.clone(), None),
    }
}

/// The open parts with silence between them.
fn tile(open: &[Part]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at: Option<Vec<u8>> = Some(Vec::new());
    for part in open {
        if let Some(from) = at.filter(|from| *from < part.range.start) {
            parts.push(Part {
                range: key_range(from, &part.range.start),
                ask: Ask::Skip,
            });
        }
        parts.push(part.clone());
        at = part.range.end.clone();
    }
    if let Some(from) = at {
        parts.push(Part {
            range: v1::Range {
                start: from,
                end: None,
            },
            ask: Ask::Skip,
        });
    }
    parts
}

/// What a session must find.
fn differences(server: &Records, own: &Records) -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>) {
    let differs = |a: &Records, b: &Records| {
        a.values()
            .filter(|r| b.get(&r.key) != Some(r))
            .map(|r| r.key.clone())
            .collect::<BTreeSet<_>>()
    };
    (differs(server, own), differs(own, server))
}

/// Emits a check that a session found exactly what differs.
pub fn compare(cx: &Cx, check: &'static str, found: &Found, server: &Records, own: &Records) {
    let (missing, lacking) = differences(server, own);
    // a part that is resolved without items brings records that are held already
    let new: BTreeSet<Vec<u8>> = found
        .received
        .values()
        .filter(|r| own.get(&r.key) != Some(r))
        .map(|r| r.key.clone())
        .collect();
    let genuine = found
        .received
        .values()
        .all(|r| server.get(&r.key) == Some(r));
    cx.check(
        check,
        new == missing && found.lacking == lacking && genuine,
        format!(
            "{} records to get, {} that the server lacks",
            missing.len(),
            lacking.len()
        ),
        format!("{} and {}", new.len(), found.lacking.len()),
    );
}
