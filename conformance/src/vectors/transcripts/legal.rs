//! Legal sessions, in several styles.

use super::super::Case;
use super::super::descent::Descent;
use super::super::form::at;
use super::{Cut, Transcript, World, item, part, range, whole};
use crate::oracle::Record;
use crate::oracle::descent::Ask;
use std::collections::BTreeMap;

/// All of them.
pub fn sessions() -> Vec<Case<Descent>> {
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

#[cfg(test)]
mod tests {
    use super::super::SALT;
    use super::*;
    use crate::oracle::descent;

    #[test]
    fn the_colliding_records_collide() {
        let [a, b] = colliding().map(|r| r.digest());
        let short = |digest| descent::short(SALT, digest, 4);
        assert_ne!(a, b);
        assert_eq!(short(&a), short(&b));
    }
}
