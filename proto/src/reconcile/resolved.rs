//! What an answer says of resolved parts: its records, and which of the
//! replica's items the server lacks.

use super::answer::{Lacking, PeerMisbehaved, Step};
use super::columns::{Flaw, get_varint};
use crate::key::{Key, KeyRange};
use crate::mutant;
use crate::record::{Digest, Record};
use crate::wire;

/// The records of an answer.
pub(super) struct Records {
    pub all: Vec<Record>,
    pub taken: usize,
}

impl Records {
    pub fn new(records: Vec<wire::Record>) -> Result<Records, PeerMisbehaved> {
        let all = records
            .into_iter()
            .map(Record::try_from)
            .collect::<Result<Vec<_>, _>>()
            .map_err(PeerMisbehaved::Record)?;
        match all.windows(2).find(|w| w[0].key >= w[1].key) {
            Some(w) if !mutant!(StrayRecordsTaken) => {
                Err(PeerMisbehaved::RecordsUnsorted(w[1].key.clone()))
            }
            _ => Ok(Records { all, taken: 0 }),
        }
    }

    /// Takes those in `range`, which lies above all ranges before.
    pub fn within(&mut self, range: &KeyRange) -> Result<std::ops::Range<usize>, PeerMisbehaved> {
        let rest = &self.all[self.taken..];
        let outside = rest.first().filter(|r| r.key.as_bytes() < range.start());
        if let Some(r) = outside.filter(|_| !mutant!(StrayRecordsTaken)) {
            return Err(PeerMisbehaved::RecordOutside(r.key.clone()));
        }
        // ranges are many and hold few records each: no search over all that is left
        let inside = |r: &&Record| range.end().is_none_or(|end| r.key.as_bytes() < end);
        let n = rest.iter().take_while(inside).count();
        self.taken += n;
        Ok(self.taken - n..self.taken)
    }
}

/// Sorts what the server lacks into conflicts and missing records.
pub(super) struct Lackings<'a> {
    came: &'a [Record],
    step: &'a mut Step,
    /// Keys under which both sides differ.
    differing: Vec<Key>,
}

impl<'a> Lackings<'a> {
    pub fn new(came: &'a [Record], step: &'a mut Step) -> Self {
        Lackings {
            came,
            step,
            differing: Vec::new(),
        }
    }

    /// A key of the replica's, in ascending order; its digest where the server
    /// was not told of it.
    pub fn add(&mut self, key: &[u8], digest: Option<&Digest>) {
        while let Some((first, rest)) = self.came.split_first()
            && first.key.as_bytes() < key
        {
            self.differing.push(first.key.clone());
            self.came = rest;
        }
        let theirs = self.came.first().filter(|r| r.key.as_bytes() == key);
        if theirs.is_some() {
            self.came = &self.came[1..];
        }
        if let (Some(theirs), Some(own)) = (theirs, digest)
            && theirs.digest() == *own
        {
            return;
        }
        // a key of the view is one
        let Ok(key) = Key::new(key) else { return };
        self.differing.push(key.clone());
        match theirs {
            Some(_) => self.step.conflicts.push(key),
            None => {
                let wanted = self.step.wanted.contains(key.as_bytes());
                self.step.lacking.push(Lacking { key, wanted });
            }
        }
    }

    /// The keys under which both sides differ, in order.
    pub fn finish(mut self) -> Vec<Key> {
        let rest = self.came.iter().map(|r| r.key.clone());
        self.differing.extend(rest);
        self.differing
    }
}

/// Reads the column `lacking`, item by item.
pub(super) struct Lacks<'a> {
    column: &'a [u8],
    lacks: bool,
    left: u64,
    begun: bool,
}

impl<'a> Lacks<'a> {
    pub fn new(column: &'a [u8]) -> Self {
        Lacks {
            column,
            lacks: true,
            left: 0,
            begun: false,
        }
    }

    /// Whether the server lacks the next item.
    pub fn next(&mut self) -> Result<bool, Flaw> {
        while self.left == 0 {
            if self.column.is_empty() {
                return Ok(false);
            }
            self.left = get_varint("lacking", &mut self.column)?;
            self.lacks = !self.lacks;
            if self.left == 0 && self.begun {
                return Err(Flaw::new("lacking", "has an empty run"));
            }
            self.begun = true;
        }
        self.left -= 1;
        Ok(self.lacks)
    }

    pub fn finish(self) -> Result<(), Flaw> {
        if self.left > 0 || !self.column.is_empty() {
            return Err(Flaw::new(
                "lacking",
                "speaks of more items than were listed",
            ));
        }
        Ok(())
    }
}
