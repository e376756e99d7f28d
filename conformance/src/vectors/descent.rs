//! Reconcile sessions: whether each exchange is legal. Any split is; anything
//! untrue is not. Compares no bytes with what the oracle would have said.

use super::{bytes, failure, list, number, record, records, same, text};
use crate::oracle::descent::{self, Ask, Asked, Part, Taken, Told, covered};
use crate::oracle::{self, Merge, Record};
use crate::schema::{hex, unhex, v1};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One transcript.
pub fn check(case: &Value) -> Result<(), String> {
    let mut session = Session::read(case)?;
    let mut found = None;
    for exchange in list(case, "exchanges")? {
        if found.is_some() {
            return Err("goes on after what is illegal".into());
        }
        let request = session.request(&exchange["request"])?;
        let answer = answer(&exchange["answer"])?;
        found = session.exchange(&request, &answer).err();
    }
    same("failure", found, failure(case)?)?;
    if found.is_some() {
        return Ok(());
    }
    same(
        "complete",
        Some(session.open.is_empty()),
        case["complete"].as_bool(),
    )?;
    for (field, keys) in [("receives", &session.receives), ("lacks", &session.lacks)] {
        let keys: Vec<Value> = keys.iter().map(|k| Value::String(hex(k))).collect();
        same(field, keys.as_slice(), list(case, field)?)?;
    }
    Ok(())
}

type Illegal = &'static str;

/// Both sides' records, and the ranges that are still open between them.
struct Session {
    replica: BTreeMap<Vec<u8>, Record>,
    server: BTreeMap<Vec<u8>, Record>,
    held: v1::Range,
    horizon: u64,
    salt: u64,
    length: u32,
    open: Vec<v1::Range>,
    receives: BTreeSet<Vec<u8>>,
    lacks: BTreeSet<Vec<u8>>,
}

fn end(value: &Value) -> Result<Option<Vec<u8>>, String> {
    match value {
        Value::Null => Ok(None),
        _ => value
            .as_str()
            .and_then(unhex)
            .map(Some)
            .ok_or("no hex".into()),
    }
}

fn answer(columns: &Value) -> Result<v1::ReconcileResponse, String> {
    Ok(v1::ReconcileResponse {
        parts: bytes(columns, "parts")?,
        bounds: bytes(columns, "bounds")?,
        digests: bytes(columns, "digests")?,
        lacking: bytes(columns, "lacking")?,
        records: list(columns, "records")?
            .iter()
            .map(|r| record(r).map(|r| r.to_wire()))
            .collect::<Result<_, _>>()?,
        resume_at: end(&columns["resume_at"])?,
        ..Default::default()
    })
}

impl Session {
    fn read(case: &Value) -> Result<Session, String> {
        let side = |field: &str| {
            let records = records(case, field)?;
            Ok::<_, String>(records.into_iter().map(|r| (r.key.clone(), r)).collect())
        };
        let held = v1::Range {
            start: bytes(case, "start")?,
            end: end(&case["end"])?,
        };
        let length = case["digest_len"].as_u64().unwrap_or_default();
        Ok(Session {
            replica: side("replica")?,
            server: side("server")?,
            open: vec![held.clone()],
            held,
            horizon: number(case, "horizon")?,
            salt: number(case, "salt")?,
            length: u32::try_from(length).map_err(|e| e.to_string())?,
            receives: BTreeSet::new(),
            lacks: BTreeSet::new(),
        })
    }

    fn request(&self, columns: &Value) -> Result<v1::ReconcileRequest, String> {
        text(columns, "parts")?;
        Ok(v1::ReconcileRequest {
            parts: bytes(columns, "parts")?,
            bounds: bytes(columns, "bounds")?,
            digests: bytes(columns, "digests")?,
            digest_len: self.length,
            ..Default::default()
        })
    }

    fn exchange(
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

    fn short(&self, digest: &[u8; 32]) -> Vec<u8> {
        descent::short(self.salt, digest, self.length as usize)
    }

    fn fingerprint(&self, side: &BTreeMap<Vec<u8>, Record>, range: &v1::Range) -> Vec<u8> {
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
fn below(range: &v1::Range, bound: Option<&[u8]>) -> v1::Range {
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

    fn cases() -> Vec<Value> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/vectors/descent.json");
        let file: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        file["cases"].as_array().unwrap().clone()
    }

    #[test]
    fn what_is_not_true_of_a_legal_session_is_found() {
        let mut changed = 0;
        for case in cases().iter().filter(|c| c["valid"] == true) {
            check(case).unwrap();
            // a server's record that no exchange looked at may be anything
            let all = case["start"] == "" && case["complete"] == true && case["horizon"] == "0";
            for field in ["server", "receives", "lacks"] {
                let mut case = case.clone();
                let list = case[field].as_array_mut().unwrap();
                if list.is_empty() || (field == "server" && !all) {
                    continue;
                }
                list.remove(0);
                changed += 1;
                assert!(check(&case).is_err(), "{}: {field}", case["name"]);
            }
        }
        assert!(changed > 20);
    }

    #[test]
    fn an_illegal_exchange_in_the_middle_is_found() {
        let all = cases();
        let illegal = all.iter().find(|c| c["failure"] == "lacking_untrue");
        let mut case = illegal.unwrap().clone();
        let again = case["exchanges"][0].clone();
        case["exchanges"].as_array_mut().unwrap().push(again);
        assert!(check(&case).is_err());
    }
}
