//! The sessions of `descent.json`: legal ones in several styles, and illegal ones with one thing wrong each.

mod illegal;
mod legal;

use super::Case;
use super::descent::{Descent, Exchange, Session, below};
use super::form::{Hex, Number, at, plain};
use crate::oracle::Record;
use crate::oracle::descent::{self, Ask, Part, bound, covered, varint};
use crate::schema::v1;
use std::collections::BTreeMap;

const SALT: u64 = 0x5eed_0123_4567_89ab;

const EQUAL: u64 = 0;
const SPLIT: u64 = 1;
const RESOLVED: u64 = 2;
const SKIP: u64 = 0;
const FINGERPRINT: u64 = 1;
const ITEMS: u64 = 2;

/// Every case.
pub fn cases() -> Vec<Case<Descent>> {
    [legal::sessions(), illegal::requests(), illegal::answers()].concat()
}

/// How a server answers a part whose fingerprint differs.
#[derive(Clone, Copy)]
enum Cut {
    /// With all that is missing.
    Resolve,
    /// Split into so many parts of about as many records, where there are enough.
    Into(usize),
    /// Split into one part: legal, and no help.
    Nowhere,
}

impl Cut {
    /// The inner bounds; `None` to resolve the part.
    fn bounds(self, start: &[u8], records: &[&Record]) -> Option<Vec<Vec<u8>>> {
        match self {
            Cut::Resolve => None,
            Cut::Nowhere => Some(Vec::new()),
            Cut::Into(n) => {
                let keys = (1..n).filter_map(|i| records.get(records.len() * i / n));
                let mut bounds: Vec<Vec<u8>> = keys
                    .map(|r| r.key.clone())
                    .filter(|key| key.as_slice() > start)
                    .collect();
                bounds.dedup();
                (!bounds.is_empty()).then_some(bounds)
            }
        }
    }
}

fn range(start: &[u8], end: Option<&[u8]>) -> v1::Range {
    v1::Range {
        start: start.to_vec(),
        end: end.map(<[u8]>::to_vec),
    }
}

fn part(ask: Ask, start: &[u8], end: Option<&[u8]>) -> Part {
    Part {
        range: range(start, end),
        ask,
    }
}

/// All keys, in one part.
fn whole(ask: Ask) -> Vec<Part> {
    vec![part(ask, b"", None)]
}

/// Two sides.
#[derive(Clone)]
struct World {
    replica: BTreeMap<Vec<u8>, Record>,
    server: BTreeMap<Vec<u8>, Record>,
}

impl World {
    fn of(replica: &[Record], server: &[Record]) -> World {
        let side =
            |records: &[Record]| records.iter().map(|r| (r.key.clone(), r.clone())).collect();
        World {
            replica: side(replica),
            server: side(server),
        }
    }

    /// Both hold so many counters.
    fn counters(n: u64) -> World {
        let records: Vec<Record> = (0..n)
            .map(|i| Record::put(item(i), at(1000 + i, 0), 1, format!("v{i}")))
            .collect();
        World::of(&records, &records)
    }

    fn replica_has(mut self, record: Record) -> World {
        self.replica.insert(record.key.clone(), record);
        self
    }

    fn server_has(mut self, record: Record) -> World {
        self.server.insert(record.key.clone(), record);
        self
    }

    fn replica_lost(mut self, i: u64) -> World {
        self.replica.remove(&item(i));
        self
    }

    fn server_lost(mut self, i: u64) -> World {
        self.server.remove(&item(i));
        self
    }
}

fn item(i: u64) -> Vec<u8> {
    format!("item-{i:03}").into_bytes()
}

/// A session that is being written down.
struct Transcript {
    name: String,
    case: Descent,
    session: Session,
    request: v1::ReconcileRequest,
    /// What the last exchange is meant to break.
    failure: Option<&'static str>,
}

impl Transcript {
    fn new(name: &str, world: World) -> Transcript {
        Transcript::with(name, world, range(b"", None), 0, 5)
    }

    fn with(name: &str, world: World, held: v1::Range, horizon: u64, length: u32) -> Transcript {
        let case = Descent {
            replica: plain(world.replica.values()),
            server: plain(world.server.values()),
            start: Hex(held.start),
            end: held.end.map(Hex),
            horizon: Number(horizon),
            salt: Number(SALT),
            digest_len: length,
            exchanges: Vec::new(),
            complete: None,
            receives: None,
            lacks: None,
        };
        Transcript {
            name: name.to_owned(),
            session: Session::new(&case),
            case,
            request: v1::ReconcileRequest::default(),
            failure: None,
        }
    }

    /// Asks about these parts, in order; gaps between them are skipped.
    fn say(mut self, parts: &[Part]) -> Transcript {
        let mut tiles = Vec::new();
        let mut at = Some(Vec::new());
        for part in parts {
            if let Some(at) = at.take_if(|at| *at < part.range.start) {
                tiles.push(self::part(Ask::Skip, &at, Some(&part.range.start)));
            }
            tiles.push(part.clone());
            at = part.range.end.clone();
        }
        if let Some(at) = at {
            tiles.push(part(Ask::Skip, &at, None));
        }
        self.request = v1::ReconcileRequest {
            horizon: self.session.horizon,
            salt: self.session.salt,
            digest_len: self.session.length,
            ..Default::default()
        };
        descent::ask(&mut self.request, &tiles, &self.session.replica);
        self
    }

    /// A true answer.
    fn hear(self, cut: Cut) -> Transcript {
        self.hear_until(cut, None)
    }

    /// A true answer that ends early.
    fn hear_until(self, cut: Cut, resume_at: Option<&[u8]>) -> Transcript {
        let answer = self.answer(cut, resume_at);
        self.heard(&answer)
    }

    fn heard(mut self, answer: &v1::ReconcileResponse) -> Transcript {
        // records that may not exist are no part of any case
        self.case
            .exchanges
            .extend(Exchange::of(&self.request, answer));
        // what it is meant to break is looked at when the results are computed
        let _ = self.session.exchange(&self.request, answer);
        self
    }

    /// Asks on about what is open, listing parts of few records, until nothing is.
    fn descend(mut self, cut: Cut, items: usize) -> Transcript {
        while !self.session.open.is_empty() {
            let parts: Vec<Part> = self
                .session
                .open
                .iter()
                .map(|open| {
                    let n = covered(&self.session.replica, open, self.session.horizon).len();
                    Part {
                        range: open.clone(),
                        ask: match n <= items {
                            true => Ask::Items,
                            false => Ask::Fingerprint,
                        },
                    }
                })
                .collect();
            self = self.say(&parts).hear(cut);
        }
        self
    }

    fn answer(&self, cut: Cut, resume_at: Option<&[u8]>) -> v1::ReconcileResponse {
        let session = &self.session;
        let theirs = |range: &v1::Range| covered(&session.server, range, session.horizon);
        let mut out = v1::ReconcileResponse {
            resume_at: resume_at.map(<[u8]>::to_vec),
            ..Default::default()
        };
        let mut lacking = Vec::new();
        for asked in descent::asked(&self.request).unwrap_or_default() {
            let (range, shorts) = (&asked.part.range, &asked.shorts);
            let beyond = resume_at.is_some_and(|at| range.start.as_slice() >= at);
            if asked.part.ask == Ask::Skip || beyond {
                continue;
            }
            let listed = asked.part.ask == Ask::Items;
            if !listed && shorts[..] == [session.fingerprint(&session.server, range)] {
                varint(4 + EQUAL, &mut out.parts);
                continue;
            }
            let bounds = cut.bounds(&range.start, &theirs(range));
            if let (false, Some(bounds)) = (listed, bounds) {
                varint((bounds.len() as u64 + 1) * 4 + SPLIT, &mut out.parts);
                let ends = bounds.into_iter().map(Some).chain([range.end.clone()]);
                let mut start = range.start.clone();
                let mut left = ends.peekable();
                while let Some(end) = left.next() {
                    let piece = v1::Range {
                        start: start.clone(),
                        end,
                    };
                    let told = session.fingerprint(&session.server, &piece);
                    out.digests.extend(told);
                    if let (Some(end), true) = (piece.end, left.peek().is_some()) {
                        bound(&start, &end, &mut out.bounds);
                        start = end;
                    }
                }
                continue;
            }
            varint(4 + RESOLVED, &mut out.parts);
            let of = |r: &Record| session.short(&r.digest());
            let has: Vec<Vec<u8>> = theirs(range).into_iter().map(of).collect();
            if listed {
                lacking.extend(shorts.iter().map(|told| !has.contains(told)));
            }
            let records = theirs(&below(range, resume_at)).into_iter();
            let missing = records.filter(|r| !(listed && shorts.contains(&of(r))));
            out.records.extend(missing.map(Record::to_wire));
        }
        out.lacking = descent::lacking(&lacking);
        out
    }

    fn case(self) -> Case<Descent> {
        match self.failure {
            None => Case::new(self.name, self.case),
            Some(failure) => Case::failing(self.name, failure, self.case),
        }
    }
}
