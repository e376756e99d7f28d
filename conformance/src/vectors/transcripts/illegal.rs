//! Sessions with one thing wrong each.

use super::super::Case;
use super::super::descent::Descent;
use super::super::form::at;
use super::{
    Cut, EQUAL, FINGERPRINT, ITEMS, RESOLVED, SKIP, SPLIT, Transcript, World, item, part, range,
    whole,
};
use crate::oracle::Record;
use crate::oracle::descent::{Ask, Part, bound, varint};
use crate::schema::v1;

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
pub fn requests() -> Vec<Case<Descent>> {
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
        // 2^64 bytes are dropped, which is none where the sum wraps
        bounds(
            "a bound whose count is over 64 bits",
            &[&b"\x01b\xf1"[..], &varints(&[u64::MAX - 14]), b"c"].concat(),
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
pub fn answers() -> Vec<Case<Descent>> {
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
