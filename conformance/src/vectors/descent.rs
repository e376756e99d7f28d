//! Reconcile sessions: whether each exchange is legal. Any split is; anything
//! untrue is not. Compares no bytes with what the oracle would have said.

use super::form::{self, Hex, Number, Plain};
use super::{Case, Kind, transcripts};
use crate::oracle::descent::{self, Ask, Asked, Part, Taken, Told, covered};
use crate::oracle::{self, Merge, Record};
use crate::schema::v1;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A session between two sides that hold these records.
#[derive(Clone, Serialize, Deserialize)]
pub struct Descent {
    pub replica: Vec<Plain>,
    pub server: Vec<Plain>,
    pub start: Hex,
    pub end: Option<Hex>,
    pub horizon: Number,
    pub salt: Number,
    pub digest_len: u32,
    pub exchanges: Vec<Exchange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receives: Option<Vec<Hex>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacks: Option<Vec<Hex>>,
}

/// What was said in one turn.
#[derive(Clone, Serialize, Deserialize)]
pub struct Exchange {
    request: Request,
    answer: Answer,
}

#[derive(Clone, Serialize, Deserialize)]
struct Request {
    parts: Hex,
    bounds: Hex,
    digests: Hex,
}

#[derive(Clone, Serialize, Deserialize)]
struct Answer {
    parts: Hex,
    bounds: Hex,
    digests: Hex,
    lacking: Hex,
    records: Vec<Plain>,
    resume_at: Option<Hex>,
}

impl Exchange {
    /// The columns of two messages.
    pub fn of(
        request: &v1::ReconcileRequest,
        answer: &v1::ReconcileResponse,
    ) -> Result<Exchange, String> {
        let records = answer.records.iter().map(Record::from_wire);
        let records: Vec<Record> = records
            .collect::<Result<_, _>>()
            .map_err(|e| e.name().to_owned())?;
        Ok(Exchange {
            request: Request {
                parts: Hex(request.parts.clone()),
                bounds: Hex(request.bounds.clone()),
                digests: Hex(request.digests.clone()),
            },
            answer: Answer {
                parts: Hex(answer.parts.clone()),
                bounds: Hex(answer.bounds.clone()),
                digests: Hex(answer.digests.clone()),
                lacking: Hex(answer.lacking.clone()),
                records: form::plain(&records),
                resume_at: answer.resume_at.clone().map(Hex),
            },
        })
    }

    fn request(&self, digest_len: u32) -> v1::ReconcileRequest {
        let Request {
            parts,
            bounds,
            digests,
        } = self.request.clone();
        v1::ReconcileRequest {
            parts: parts.0,
            bounds: bounds.0,
            digests: digests.0,
            digest_len,
            ..Default::default()
        }
    }

    fn answer(&self) -> v1::ReconcileResponse {
        let told = self.answer.clone();
        v1::ReconcileResponse {
            parts: told.parts.0,
            bounds: told.bounds.0,
            digests: told.digests.0,
            lacking: told.lacking.0,
            records: form::records(&told.records)
                .iter()
                .map(Record::to_wire)
                .collect(),
            resume_at: told.resume_at.map(|at| at.0),
            ..Default::default()
        }
    }
}

impl Kind for Descent {
    const NAME: &'static str = "descent";
    const ABOUT: &'static str = "Reconcile sessions, exchange by exchange: each is legal as it stands, though others would be as well; in those that are not valid the last exchange breaks the rule that is named.";

    fn cases() -> Vec<Case<Descent>> {
        transcripts::cases()
    }

    fn compute(&mut self) -> Result<Option<&'static str>, String> {
        let mut session = Session::new(self);
        (self.complete, self.receives, self.lacks) = (None, None, None);
        let mut found = None;
        for exchange in &self.exchanges {
            if found.is_some() {
                return Err("goes on after what is illegal".into());
            }
            let request = exchange.request(self.digest_len);
            found = session.exchange(&request, &exchange.answer()).err();
        }
        if found.is_none() {
            self.complete = Some(session.open.is_empty());
            self.receives = Some(session.receives.into_iter().map(Hex).collect());
            self.lacks = Some(session.lacks.into_iter().map(Hex).collect());
        }
        Ok(found)
    }
}

type Illegal = &'static str;

/// Both sides' records, and the ranges that are still open between them.
pub struct Session {
    pub replica: BTreeMap<Vec<u8>, Record>,
    pub server: BTreeMap<Vec<u8>, Record>,
    held: v1::Range,
    pub horizon: u64,
    pub salt: u64,
    pub length: u32,
    pub open: Vec<v1::Range>,
    receives: BTreeSet<Vec<u8>>,
    lacks: BTreeSet<Vec<u8>>,
}

impl Session {
    /// The start of a case.
    pub fn new(case: &Descent) -> Session {
        let side = |plain: &[Plain]| {
            let records = form::records(plain);
            records.into_iter().map(|r| (r.key.clone(), r)).collect()
        };
        let held = form::range(&case.start, case.end.as_ref());
        Session {
            replica: side(&case.replica),
            server: side(&case.server),
            open: vec![held.clone()],
            held,
            horizon: case.horizon.0,
            salt: case.salt.0,
            length: case.digest_len,
            receives: BTreeSet::new(),
            lacks: BTreeSet::new(),
        }
    }

    /// Takes an exchange in, or says what is illegal about it.
    pub fn exchange(
        &mut self,
        request: &v1::ReconcileRequest,
        answer: &v1::ReconcileResponse,
    ) -> Result<(), Illegal> {
        let asked = self.asked(request)?;
        let taken = take(request, &asked, answer)?;
        resumption(&asked, &taken, answer)?;
        if answer.records.windows(2).any(|w| w[0].key >= w[1].key) {
            return Err("records_unsorted");
        }
        let sent = self.sent(&asked, &taken, answer)?;
        let mut flags = taken.lacking.as_slice();
        for (asked, told) in asked.iter().zip(&taken.told) {
            match told {
                Told::Unanswered => {}
                Told::Equal => self.equal(asked)?,
                Told::Split(pieces) => self.split(asked, pieces)?,
                Told::Resolved => {
                    let items = items(asked);
                    self.resolved(asked, &flags[..items], answer, &sent)?;
                    flags = &flags[items..];
                }
            }
        }
        for (key, record) in sent {
            let wins = self
                .replica
                .get(&key)
                .is_none_or(|held| oracle::merge(&record, held) == Merge::Wins);
            if wins {
                self.replica.insert(key.clone(), record);
            }
            self.receives.insert(key);
        }
        Ok(())
    }

    /// The asked parts of a request that says what is true of the replica.
    fn asked(&self, request: &v1::ReconcileRequest) -> Result<Vec<Asked>, Illegal> {
        let mut asked = descent::asked(request).map_err(|_| "request_malformed")?;
        asked.retain(|a| a.part.ask != Ask::Skip);
        if asked.is_empty() {
            return Err("request_empty");
        }
        for a in &asked {
            let range = &a.part.range;
            let ends_within = match (&range.end, &self.held.end) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(end), Some(held)) => end <= held,
            };
            if range.start < self.held.start || !ends_within {
                return Err("request_outside");
            }
            let mine = covered(&self.replica, range, self.horizon);
            let truth = match a.part.ask {
                Ask::Items => mine.iter().map(|r| self.short(&r.digest())).collect(),
                _ => vec![self.short(&oracle::fingerprint(&mine))],
            };
            if a.shorts != truth {
                return Err("request_untrue");
            }
        }
        Ok(asked)
    }

    /// The records of an answer, all of them the server's and in resolved
    /// parts.
    fn sent(
        &self,
        asked: &[Asked],
        taken: &Taken,
        answer: &v1::ReconcileResponse,
    ) -> Result<BTreeMap<Vec<u8>, Record>, Illegal> {
        let resolved: Vec<v1::Range> = asked
            .iter()
            .zip(&taken.told)
            .filter(|(_, told)| **told == Told::Resolved)
            .map(|(asked, _)| below(&asked.part.range, answer.resume_at.as_deref()))
            .collect();
        let mut sent = BTreeMap::new();
        for wire in &answer.records {
            let record = Record::from_wire(wire).map_err(|_| "record_foreign")?;
            let inside = resolved.iter().any(|r| oracle::contains(r, &record.key));
            if !inside || self.server.get(&record.key) != Some(&record) {
                return Err("record_foreign");
            }
            sent.insert(record.key.clone(), record);
        }
        Ok(sent)
    }

    fn equal(&mut self, asked: &Asked) -> Result<(), Illegal> {
        if asked.shorts != [self.fingerprint(&self.server, &asked.part.range)] {
            return Err("equal_untrue");
        }
        self.close(&asked.part.range);
        Ok(())
    }

    fn split(&mut self, asked: &Asked, pieces: &[(v1::Range, Vec<u8>)]) -> Result<(), Illegal> {
        if asked.shorts == [self.fingerprint(&self.server, &asked.part.range)] {
            return Err("split_of_equal");
        }
        self.close(&asked.part.range);
        for (range, told) in pieces {
            if *told != self.fingerprint(&self.server, range) {
                return Err("split_untrue");
            }
            if *told != self.fingerprint(&self.replica, range) {
                self.open.push(range.clone());
            }
        }
        self.open.sort_by(|a, b| a.start.cmp(&b.start));
        Ok(())
    }

    fn resolved(
        &mut self,
        asked: &Asked,
        flags: &[bool],
        answer: &v1::ReconcileResponse,
        sent: &BTreeMap<Vec<u8>, Record>,
    ) -> Result<(), Illegal> {
        let range = below(&asked.part.range, answer.resume_at.as_deref());
        let mine = covered(&self.replica, &range, self.horizon);
        let theirs = covered(&self.server, &range, self.horizon);
        let listed = asked.part.ask == Ask::Items;
        let told = |r: &Record| listed && asked.shorts.contains(&self.short(&r.digest()));
        if theirs
            .iter()
            .any(|r| !told(r) && !sent.contains_key(&r.key))
        {
            return Err("record_missing");
        }
        let has: BTreeSet<Vec<u8>> = theirs.iter().map(|r| self.short(&r.digest())).collect();
        let mut lacks = BTreeSet::new();
        for (i, r) in mine.iter().enumerate() {
            // what is said of items beyond the end of the answer is void
            let lacking = !listed || !has.contains(&self.short(&r.digest()));
            if listed && flags.get(i) != Some(&lacking) {
                return Err("lacking_untrue");
            }
            if lacking && !sent.contains_key(&r.key) {
                lacks.insert(r.key.clone());
            }
        }
        self.lacks.extend(lacks);
        self.close(&range);
        Ok(())
    }

    pub fn short(&self, digest: &[u8; 32]) -> Vec<u8> {
        descent::short(self.salt, digest, self.length as usize)
    }

    pub fn fingerprint(&self, side: &BTreeMap<Vec<u8>, Record>, range: &v1::Range) -> Vec<u8> {
        self.short(&oracle::fingerprint(&covered(side, range, self.horizon)))
    }

    /// Takes a range out of what is open.
    fn close(&mut self, range: &v1::Range) {
        let mut left = Vec::new();
        for open in &self.open {
            let before = below(open, Some(&range.start));
            let after = range.end.as_ref().map(|end| v1::Range {
                start: end.max(&open.start).clone(),
                end: open.end.clone(),
            });
            let some = |r: &v1::Range| r.end.as_ref().is_none_or(|end| r.start < *end);
            left.extend([Some(before), after].into_iter().flatten().filter(some));
        }
        self.open = left;
    }
}

/// The part of a range below a bound.
pub fn below(range: &v1::Range, bound: Option<&[u8]>) -> v1::Range {
    let ends = [range.end.as_deref(), bound];
    v1::Range {
        start: range.start.clone(),
        end: ends.into_iter().flatten().min().map(<[u8]>::to_vec),
    }
}

fn items(asked: &Asked) -> usize {
    match asked.part.ask {
        Ask::Items => asked.shorts.len(),
        _ => 0,
    }
}

fn take(
    request: &v1::ReconcileRequest,
    asked: &[Asked],
    answer: &v1::ReconcileResponse,
) -> Result<Taken, Illegal> {
    let resume = answer.resume_at.as_ref();
    let answered = |a: &&Asked| resume.is_none_or(|at| a.part.range.start < *at);
    let items = asked.iter().filter(answered).map(items).sum();
    let parts: Vec<Part> = asked.iter().map(|a| a.part.clone()).collect();
    descent::take(request, &parts, items, answer).map_err(|_| "answer_malformed")
}

/// RECON-027 and RECON-028.
fn resumption(
    asked: &[Asked],
    taken: &Taken,
    answer: &v1::ReconcileResponse,
) -> Result<(), Illegal> {
    let Some(at) = &answer.resume_at else {
        return Ok(());
    };
    if asked.first().is_none_or(|a| *at <= a.part.range.start) {
        return Err("no_progress");
    }
    for (asked, told) in asked.iter().zip(&taken.told) {
        let range = &asked.part.range;
        let inside = range.start < *at && range.end.as_ref().is_none_or(|end| at < end);
        if inside && *told != Told::Resolved {
            return Err("resume_inside");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the oracle finds other results.
    fn differs(case: &Descent) -> bool {
        let mut again = case.clone();
        let failure = again.compute();
        let text = |of: &Descent| serde_json::to_string(of).unwrap();
        failure != Ok(None) || text(&again) != text(case)
    }

    #[test]
    fn what_is_not_true_of_a_legal_session_is_found() {
        let mut changed = 0;
        let legal = Descent::cases().into_iter().filter(|c| c.failure.is_none());
        for case in legal.map(|c| c.compute().unwrap().of) {
            assert!(!differs(&case));
            // a server's record that no exchange looked at may be anything
            let all = case.start.0.is_empty() && case.complete == Some(true) && case.horizon.0 == 0;
            if all && !case.server.is_empty() {
                let mut case = case.clone();
                case.server.remove(0);
                changed += 1;
                assert!(differs(&case));
            }
            type List = fn(&mut Descent) -> &mut Option<Vec<Hex>>;
            let lists: [List; 2] = [|c| &mut c.receives, |c| &mut c.lacks];
            for list in lists {
                let mut case = case.clone();
                if let Some(keys) = list(&mut case).as_mut().filter(|keys| !keys.is_empty()) {
                    keys.remove(0);
                    changed += 1;
                    assert!(differs(&case));
                }
            }
        }
        assert!(changed > 20);
    }

    #[test]
    fn an_illegal_exchange_in_the_middle_is_found() {
        let illegal = Descent::cases().into_iter().find(|c| c.failure.is_some());
        let mut case = illegal.unwrap().of;
        case.exchanges.push(case.exchanges[0].clone());
        assert!(case.compute().is_err());
    }
}
