//! Answers Reconcile by the oracle: a part that differs is halved, or sent
//! whole when it is small. Correct, not lean. Knows nothing of connections.

use super::refusal::{Detail, Refusal};
use super::service::{Caller, Service};
use super::space::Space;
use crate::oracle::descent::{self, Ask, Asked, Part};
use crate::oracle::{Record, contains, fingerprint};
use crate::schema::v1;
use prost::Message;
use std::collections::BTreeMap;

/// A part that differs and holds no more records is sent whole.
const WHOLE: usize = 8;

impl Service {
    pub(super) fn reconcile(
        &self,
        caller: &Caller,
        request: &v1::ReconcileRequest,
    ) -> Result<v1::ReconcileResponse, Refusal> {
        let mut state = self.lock();
        state.admit(caller, &request.space, &request.held, false)?;
        let limits = state.settings.limits;
        let malformed = |text: &str| Refusal::new("MALFORMED", text);
        if request.held.is_empty() {
            return Err(malformed("held is empty"));
        }
        if !matches!(request.digest_len, 0 | 4..=8 | 32) {
            return Err(malformed("digest_len is not 0, 4 to 8 or 32"));
        }
        let parts = descent::asked(request).map_err(|e| malformed(&e))?;
        let asked: Vec<_> = parts
            .into_iter()
            .filter(|asked| asked.part.ask != Ask::Skip)
            .collect();
        let ranges: Vec<&v1::Range> = request.held.iter().flat_map(|h| &h.ranges).collect();
        let within = |part: &Part| ranges.iter().any(|range| lies_within(&part.range, range));
        if asked.is_empty() || !asked.iter().all(|asked| within(&asked.part)) {
            return Err(malformed("nothing is asked, or what is not held"));
        }
        let items: usize = asked
            .iter()
            .filter(|asked| asked.part.ask == Ask::Items)
            .map(|asked| asked.shorts.len())
            .sum();
        let entries = (asked.len() + items) as u64;
        if entries > limits.max_reconcile_entries {
            return Err(Refusal::limit(
                "max_reconcile_entries",
                limits.max_reconcile_entries,
                entries,
            ));
        }
        let budget = super::service::budget(request.max_response_bytes, &limits);
        let space = state.space(&request.space);
        let statuses = space.statuses(&request.held, request.newest_commit.as_ref());
        if request.horizon != space.horizon {
            return Err(Refusal {
                reason: "HORIZON_CHANGED",
                text: format!("the horizon is {}", space.horizon),
                detail: Some(Box::new(Detail::History(v1::HistoryDetail {
                    position: Some(space.position()),
                    held: statuses,
                    restore_points: space.lineage(),
                }))),
            });
        }
        Ok(answer(space, request, &asked, statuses, budget))
    }
}

fn lies_within(part: &v1::Range, range: &v1::Range) -> bool {
    range.start <= part.start
        && match (&part.end, &range.end) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(end), Some(last)) => end <= last,
        }
}

fn answer(
    space: &Space,
    request: &v1::ReconcileRequest,
    asked: &[Asked],
    statuses: Vec<v1::HistoryStatus>,
    budget: usize,
) -> v1::ReconcileResponse {
    let records: BTreeMap<Vec<u8>, Record> = space
        .records
        .iter()
        .map(|(key, stored)| (key.clone(), stored.record.clone()))
        .collect();
    let length = match request.digest_len {
        0 => 5,
        n => n as usize,
    };
    let short = |digest: &[u8; 32]| descent::short(request.salt, digest, length);
    let mut out = v1::ReconcileResponse {
        position: Some(space.position()),
        held: statuses,
        restore_points: space.lineage(),
        ..v1::ReconcileResponse::default()
    };
    let mut lacks: Vec<bool> = Vec::new();
    for (at, Asked { part, shorts }) in asked.iter().enumerate() {
        if at > 0 && out.encoded_len() + lacks.len() >= budget {
            out.resume_at = Some(part.range.start.clone());
            break;
        }
        let inside = descent::covered(&records, &part.range, space.horizon);
        if part.ask == Ask::Fingerprint {
            if shorts[0] == short(&fingerprint(&inside)) {
                descent::varint(4, &mut out.parts);
                continue;
            }
            if inside.len() > WHOLE {
                let middle = inside[inside.len() / 2].key.clone();
                descent::varint(2 * 4 + 1, &mut out.parts);
                descent::bound(&part.range.start, &middle, &mut out.bounds);
                for half in [&inside[..inside.len() / 2], &inside[inside.len() / 2..]] {
                    out.digests.extend(short(&fingerprint(half)));
                }
                continue;
            }
        }
        descent::varint(4 + 2, &mut out.parts);
        let mine: Vec<Vec<u8>> = inside.iter().map(|r| short(&r.digest())).collect();
        if part.ask == Ask::Items {
            lacks.extend(shorts.iter().map(|told| !mine.contains(told)));
        }
        for (record, own) in inside.iter().zip(&mine) {
            if part.ask == Ask::Items && shorts.contains(own) {
                continue;
            }
            let full = out.encoded_len() + lacks.len() + record.to_wire().encoded_len() > budget;
            if full && record.key > part.range.start && !out.records.is_empty() {
                out.resume_at = Some(record.key.clone());
                break;
            }
            out.records.push(record.to_wire());
        }
        if out.resume_at.is_some() {
            break;
        }
    }
    out.lacking = descent::lacking(&lacks);
    debug_assert!(out.records.iter().all(|r| {
        asked
            .iter()
            .any(|asked| contains(&asked.part.range, &r.key))
    }));
    out
}
