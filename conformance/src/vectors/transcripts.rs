//! The sessions of `descent.json`: legal ones in several styles, and illegal ones with one thing wrong each.

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
    [legal(), illegal_requests(), illegal_answers()].concat()
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

fn legal() -> Vec<Case<Descent>> {
    let newer = |i: u64| Record::put(item(i), at(9000, 0), 2, "newer");
    let new = Record::put("zebra", at(9001, 0), 2, "new");
    let own = Record::put("own", at(9002, 0), 3, "unknown there");
    let few = World::counters(5)
        .replica_has(own.clone())
        .server_has(newer(3))
        .server_has(new.clone());
    let many = World::counters(20)
        .replica_has(own)
        .server_has(newer(3))
        .server_has(newer(15))
        .server_has(new)
        .replica_lost(10)
        .server_lost(6);
    let four = World::counters(4);
    let nothing = BTreeMap::new();
    let halves = Cut::Into(2);
    let (items, print) = (whole(Ask::Items), whole(Ask::Fingerprint));
    let tombs = [
        Record::tombstone("old", at(5, 0), 1),
        Record::tombstone("young", at(50, 0), 1),
    ];
    let long = [20, 40, 300, 512].map(|n| Record::put(vec![b'k'; n], at(n as u64, 0), 1, "v"));
    let [a, b] = colliding();
    let all = range(b"", None);
    let new = |name, world: &World| Transcript::new(name, world.clone());
    let transcripts = vec![
        Transcript::new("both are empty", World::of(&[], &[])).say(&print).hear(Cut::Resolve),
        Transcript::new("equal at once", World::counters(9)).say(&print).hear(Cut::Resolve),
        Transcript::new(
            "the replica has nothing",
            World { replica: nothing.clone(), ..four.clone() },
        )
        .say(&items)
        .hear(Cut::Resolve),
        Transcript::new("the server has nothing", World { server: nothing, ..four })
            .say(&items)
            .hear(Cut::Resolve),
        new("few records, listed at once", &few).say(&items).hear(Cut::Resolve),
        new("a fingerprint that is answered by all records", &few).say(&print).hear(Cut::Resolve),
        new("a descent by halves", &many).descend(halves, 2),
        new("the same differences, split in eight", &many).descend(Cut::Into(8), 6),
        Transcript::with("the same, with digests of 32 bytes", many.clone(), all.clone(), 0, 32)
            .descend(Cut::Into(3), 2),
        new("a split into one part, then the items", &few)
            .say(&print)
            .hear(Cut::Nowhere)
            .say(&items)
            .hear(Cut::Resolve),
        new("not yet complete: a split whose parts stay open", &many).say(&print).hear(halves),
        Transcript::with(
            "parts of which nothing is said",
            many.clone(),
            range(b"item-004", Some(b"item-012")),
            0,
            5,
        )
        .say(&[
            part(Ask::Fingerprint, b"item-004", Some(b"item-008")),
            part(Ask::Items, b"item-008", Some(b"item-012")),
        ])
        .hear(halves)
        .descend(halves, 2),
        new("an answer that ends early, within a listed part", &few)
            .say(&items)
            .hear_until(Cut::Resolve, Some(b"item-003"))
            .descend(halves, 9),
        new("an answer that ends before the second part", &many)
            .say(&[
                part(Ask::Fingerprint, b"", Some(b"item-010")),
                part(Ask::Fingerprint, b"item-010", None),
            ])
            .hear_until(halves, Some(b"item-010"))
            .descend(halves, 2),
        Transcript::with(
            "a tombstone below the horizon is nowhere",
            World::of(&tombs, &tombs[1..]),
            all.clone(),
            at(10, 0),
            5,
        )
        .say(&items)
        .hear(Cut::Resolve),
        Transcript::with(
            "tombstones travel like records",
            World::of(&[], &tombs),
            all.clone(),
            at(5, 0),
            5,
        )
        .say(&items)
        .hear(Cut::Resolve),
        Transcript::new(
            "bounds that drop and add more than 14 bytes",
            World::of(&long, &long[..3]),
        )
        .descend(halves, 1),
        Transcript::with(
            "short digests that agree by chance hide a difference; the session is complete all the same",
            World::of(std::slice::from_ref(&a), std::slice::from_ref(&b)),
            all.clone(),
            0,
            4,
        )
        .say(&items)
        .hear(Cut::Resolve),
        Transcript::with("which 32 bytes show", World::of(&[a], &[b]), all, 0, 32)
            .say(&items)
            .hear(Cut::Resolve),
    ];
    transcripts.into_iter().map(Transcript::case).collect()
}

/// Two records under one key whose shorts of 4 bytes agree: the first pair of a numbered series.
fn colliding() -> [Record; 2] {
    [134_091, 108_040].map(|i| Record::put("k", at(i, 0), 1, ""))
}

/// Several entries of a column.
fn varints(all: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    all.iter().for_each(|n| varint(*n, &mut out));
    out
}

fn first_bound(upper: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    bound(b"", upper, &mut out);
    out
}

/// Requests with one thing wrong, of a replica that would list five items.
fn illegal_requests() -> Vec<Case<Descent>> {
    type Change<'a> = &'a dyn Fn(&mut v1::ReconcileRequest);
    let world = World::counters(5);
    let ask = |name: &str, failure, parts: &[Part], held: v1::Range, change: Change<'_>| {
        let name = format!("request: {name}");
        let mut transcript = Transcript::with(&name, world.clone(), held, 0, 5).say(parts);
        change(&mut transcript.request);
        transcript.failure = Some(failure);
        transcript.heard(&v1::ReconcileResponse::default()).case()
    };
    let all = || range(b"", None);
    let bad = |name: &str, failure, change: Change<'_>| {
        ask(name, failure, &whole(Ask::Items), all(), change)
    };
    let malformed = |name: &str, change: Change<'_>| bad(name, "request_malformed", change);
    let parts = |name: &str, parts: &[u8]| malformed(name, &|r| r.parts = parts.to_vec());
    let bounds = |name: &str, bounds: &[u8]| {
        malformed(name, &|r| {
            r.parts = varints(&[4 + SKIP, 4 + FINGERPRINT, 4 + SKIP]);
            r.bounds = bounds.to_vec();
            r.digests = vec![0; 5];
        })
    };
    let outside = |name: &str, held: v1::Range| {
        let inside = [part(Ask::Items, b"item-001", Some(b"item-003"))];
        ask(name, "request_outside", &inside, held, &|_| {})
    };
    vec![
        parts("a kind that does not exist", &varints(&[4 + 3])),
        parts("a run of no parts", &varints(&[FINGERPRINT])),
        malformed("no part at all", &|r| {
            r.parts.clear();
            r.digests.clear();
        }),
        malformed("a digest is missing", &|r| {
            r.digests.pop();
        }),
        malformed("a digest is left over", &|r| r.digests.extend([0; 5])),
        malformed("a bound is left over", &|r| r.bounds = first_bound(b"x")),
        malformed("a bound is missing", &|r| {
            r.parts = varints(&[2 * 4 + FINGERPRINT]);
            r.digests = vec![0; 10];
        }),
        parts("a varint that is not in shortest form", b"\x96\x00"),
        parts(
            "a varint of more than 64 bits",
            &[&b"\x86"[..], &[0x80; 8], b"\x02"].concat(),
        ),
        parts(
            "a varint of eleven bytes",
            &[&b"\x86"[..], &[0x80; 9], b"\x01"].concat(),
        ),
        bounds("a bound that equals the lower one", b"\x01b\x00"),
        bounds("a bound below the lower one", b"\x01b\x11a"),
        bounds("a bound that drops more than there is", b"\x01b\x21c"),
        bounds(
            "a bound of 514 bytes",
            &[&b"\x01b\x0f"[..], &varints(&[513 - 15]), &[b'x'; 513]].concat(),
        ),
        bad("it asks about nothing", "request_empty", &|r| {
            r.parts = varints(&[4 + SKIP]);
            r.digests.clear();
        }),
        outside("a part outside the held range", range(b"item-002", None)),
        outside(
            "a part that goes on beyond the held range",
            range(b"", Some(b"item-002")),
        ),
        bad("an item is left out", "request_untrue", &|r| {
            r.parts = varints(&[4 * 4 + ITEMS]);
            r.digests.truncate(20);
        }),
        bad("items out of order", "request_untrue", &|r| {
            r.digests[..10].rotate_left(5);
        }),
        ask(
            "a fingerprint of something else",
            "request_untrue",
            &whole(Ask::Fingerprint),
            all(),
            &|r| r.digests = vec![0; 5],
        ),
    ]
}

/// Answers with one thing wrong, of a server with three records that the replica lacks or holds older ones of.
fn illegal_answers() -> Vec<Case<Descent>> {
    type Change<'a> = &'a dyn Fn(&mut v1::ReconcileResponse);
    let newer = Record::put("item-002", at(9000, 0), 2, "newer");
    let world = World::counters(5)
        .server_has(newer)
        .server_has(Record::put("zebra", at(9001, 0), 2, "new"))
        .server_lost(4);
    let bad = |name: &str, failure, parts: &[Part], cut, change: Change<'_>| {
        let name = format!("answer: {name}");
        let mut transcript = Transcript::new(&name, world.clone()).say(parts);
        let mut answer = transcript.answer(cut, None);
        change(&mut answer);
        transcript.failure = Some(failure);
        transcript.heard(&answer).case()
    };
    let (items, print) = (whole(Ask::Items), whole(Ask::Fingerprint));
    let two = [
        part(Ask::Fingerprint, b"", Some(b"item-002")),
        part(Ask::Fingerprint, b"item-002", None),
    ];
    let (resolve, halves) = (Cut::Resolve, Cut::Into(2));
    let first = world.server.values().next().map(Record::to_wire);
    let split = varints(&[2 * 4 + SPLIT]);
    let equal = varints(&[4 + EQUAL]);
    vec![
        bad(
            "equal, though it differs",
            "equal_untrue",
            &print,
            resolve,
            &|a| {
                a.parts = equal.clone();
                a.records.clear();
            },
        ),
        bad(
            "a split, though it is equal",
            "split_of_equal",
            &two,
            resolve,
            &|a| {
                a.parts = varints(&[4 + SPLIT, 4 + RESOLVED]);
                a.digests = vec![0; 5];
            },
        ),
        bad(
            "a split with a fingerprint of something else",
            "split_untrue",
            &print,
            halves,
            &|a| {
                a.digests[..5].fill(0);
            },
        ),
        bad(
            "a record that was not listed is left out",
            "record_missing",
            &items,
            resolve,
            &|a| {
                a.records.remove(1);
            },
        ),
        bad(
            "another record under a listed key is left out",
            "record_missing",
            &items,
            resolve,
            &|a| {
                a.records.remove(0);
            },
        ),
        bad(
            "all records of a part, save one",
            "record_missing",
            &print,
            resolve,
            &|a| {
                a.records.remove(2);
            },
        ),
        bad(
            "a record that the server does not hold",
            "record_foreign",
            &items,
            resolve,
            &|a| {
                a.records.push(Record::put("zz", 1, 1, "").to_wire());
            },
        ),
        bad(
            "a record of a part that is equal",
            "record_foreign",
            &two,
            resolve,
            &|a| {
                a.records.splice(..0, first.clone());
            },
        ),
        bad(
            "records out of order",
            "records_unsorted",
            &items,
            resolve,
            &|a| a.records.reverse(),
        ),
        bad(
            "a record twice",
            "records_unsorted",
            &items,
            resolve,
            &|a| {
                a.records.insert(0, a.records[0].clone());
            },
        ),
        bad(
            "an item that it has is called lacking",
            "lacking_untrue",
            &items,
            resolve,
            &|a| {
                a.lacking = varints(&[0, 5]);
            },
        ),
        bad(
            "an item that it lacks is not marked",
            "lacking_untrue",
            &items,
            resolve,
            &|a| {
                a.lacking.clear();
            },
        ),
        bad(
            "items answered by a fingerprint",
            "answer_malformed",
            &items,
            resolve,
            &|a| {
                a.parts = equal.clone();
                a.records.clear();
                a.lacking.clear();
            },
        ),
        bad(
            "an answer too few",
            "answer_malformed",
            &two,
            resolve,
            &|a| {
                a.parts = equal.clone();
                a.records.clear();
            },
        ),
        bad(
            "an answer too many",
            "answer_malformed",
            &two,
            resolve,
            &|a| {
                varint(4 + RESOLVED, &mut a.parts);
            },
        ),
        bad("an empty run", "answer_malformed", &print, resolve, &|a| {
            a.parts = varints(&[0]);
            a.records.clear();
        }),
        bad(
            "an answer that does not exist",
            "answer_malformed",
            &print,
            resolve,
            &|a| {
                a.parts = varints(&[4 + 3]);
                a.records.clear();
            },
        ),
        bad(
            "an inner bound outside its part",
            "answer_malformed",
            &two[..1],
            resolve,
            &|a| {
                a.parts = split.clone();
                a.bounds = first_bound(b"item-003");
                a.digests = vec![0; 10];
            },
        ),
        bad(
            "an inner bound at the start of its part",
            "answer_malformed",
            &two[1..],
            resolve,
            &|a| {
                a.parts = split.clone();
                a.bounds = vec![0];
                a.digests = vec![0; 10];
                a.records.clear();
            },
        ),
        bad(
            "a digest is missing",
            "answer_malformed",
            &print,
            halves,
            &|a| {
                a.digests.pop();
            },
        ),
        bad(
            "a digest is left over",
            "answer_malformed",
            &print,
            resolve,
            &|a| a.digests = vec![0],
        ),
        bad(
            "lacking counts more items than were listed",
            "answer_malformed",
            &items,
            resolve,
            &|a| {
                a.lacking = varints(&[0, 6]);
            },
        ),
        bad(
            "nothing was processed",
            "no_progress",
            &items,
            resolve,
            &|a| {
                *a = v1::ReconcileResponse::default();
                a.resume_at = Some(Vec::new());
            },
        ),
        bad(
            "it ends inside a part that it splits",
            "resume_inside",
            &print,
            halves,
            &|a| {
                a.resume_at = Some(item(1));
            },
        ),
        bad(
            "it ends inside a part that it calls equal",
            "resume_inside",
            &two,
            resolve,
            &|a| {
                a.parts = equal.clone();
                a.records.clear();
                a.resume_at = Some(item(1));
            },
        ),
        bad(
            "a record at or above the end that it names",
            "record_foreign",
            &items,
            resolve,
            &|a| {
                a.resume_at = Some(item(3));
            },
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_colliding_records_collide() {
        let [a, b] = colliding().map(|r| r.digest());
        let short = |digest| descent::short(SALT, digest, 4);
        assert_ne!(a, b);
        assert_eq!(short(&a), short(&b));
    }
}
