//! Reading an answer: what it brings, what is still open, and every way in
//! which it can be wrong. Knows neither what becomes of a record nor whether
//! one that the server lacks was deleted or lost: see [`crate::history`].

use super::columns::{EQUAL, Flaw, RESOLVED, SPLIT, Shortener, get_bound, get_run, get_shorts};
use super::initiator::{Asked, Open, Said, Speech};
use super::plan;
use super::resolved::{Lackings, Lacks, Records};
use crate::key::{Key, KeyRange, RangeSet};
use crate::merkle::View;
use crate::mutant;
use crate::reason::Invalid;
use crate::record::{Digest, Record};
use crate::wire;
use std::ops::ControlFlow;

/// Answers in a row that neither close a part nor bring a record before a
/// session is given up (RECON-036). Planned sessions need at most 2, halving of a million
/// records 20.
pub(super) const MAX_IDLE_ROUNDS: u32 = 64;

/// The most bytes of bounds that may be open. Bounds are front-coded, so a
/// small answer could unpack to something large.
const MAX_OPEN_BYTES: usize = 64 << 20;

/// What one answer brought.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Records to merge now, in key order, each in a range that was asked.
    /// Whether their versions are acceptable is the caller's to check.
    pub records: Vec<Record>,
    /// Keys under which both sides hold something and it differs; the server's
    /// record is among `records`. Where the replica's own still stands after
    /// the merge, the server should get it.
    pub conflicts: Vec<Key>,
    /// Keys under which the server holds nothing: to be offered or dropped,
    /// see [`crate::history::missing_record`].
    pub lacking: Vec<Lacking>,
    /// Ranges that this answer resolved: nothing differs there, or what
    /// differs is in this step.
    pub resolved: Vec<KeyRange>,
    /// Ranges, as narrow as the session got, in which something differed.
    pub different: Vec<KeyRange>,
    /// Where the server's content is damaged.
    pub wanted: RangeSet,
}

/// A key of the replica's that the server has no record under.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lacking {
    /// Which.
    pub key: Key,
    /// The server's own content there is damaged: it was not deleted.
    pub wanted: bool,
}

/// An answer that no correct server gives. The session is over; after a
/// backoff the replica starts another one, or takes a Snapshot.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PeerMisbehaved {
    /// A column is malformed.
    #[error("the server's answer is malformed: {field} {problem}")]
    Malformed {
        /// Field of `ReconcileResponse`.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A record is malformed.
    #[error("the server sent a malformed record: {0}")]
    Record(Invalid),
    /// A record that was not asked for.
    #[error("the server sent a record in a range that it did not resolve: {0:?}")]
    RecordOutside(Key),
    /// Two records under one key, or records out of order.
    #[error("the server's records are not in key order at {0:?}")]
    RecordsUnsorted(Key),
    /// The server says that a range differs and that nothing in it does, from
    /// one state and with digests of full length.
    #[error("the server says that {0:?} differs, but nothing in it does")]
    Contradiction(KeyRange),
    /// Nothing but unasked answers.
    #[error("the server answered without a question")]
    Unasked,
    /// Bounds that unpack to more than any set of records needs.
    #[error("the server's splits take more than {MAX_OPEN_BYTES} bytes of bounds")]
    TooMuch,
    /// Rounds that lead nowhere.
    #[error("the server's answers brought nothing for {MAX_IDLE_ROUNDS} rounds")]
    NoProgress,
    /// The session's limit of rounds.
    #[error("the session did not end within {0} rounds")]
    TooManyRounds(u32),
}

impl PeerMisbehaved {
    /// Whether the session led nowhere, by answers that were each well-formed:
    /// a Snapshot may still bring the replica on.
    pub fn leads_nowhere(&self) -> bool {
        matches!(
            self,
            PeerMisbehaved::NoProgress | PeerMisbehaved::TooManyRounds(_)
        )
    }
}

impl From<Flaw> for PeerMisbehaved {
    fn from(f: Flaw) -> Self {
        PeerMisbehaved::Malformed {
            field: f.field,
            problem: f.problem,
        }
    }
}

/// Why an answer could not be handled.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TurnError<E> {
    /// The replica's own records could not be read.
    #[error("{0}")]
    View(E),
    /// The server is at fault.
    #[error(transparent)]
    Peer(#[from] PeerMisbehaved),
}

impl<E> From<Flaw> for TurnError<E> {
    fn from(f: Flaw) -> Self {
        TurnError::Peer(f.into())
    }
}

/// What an answer led to, beside what it brought.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What is open now of what was asked.
    pub open: Vec<Open>,
    /// Of the asked parts, those that were answered.
    pub told: Vec<KeyRange>,
    /// The part of an asked part that `resume_at` left resolved: not closed.
    pub cut: Option<KeyRange>,
    /// Pieces that differ, with the fingerprint of the replica's own records.
    pub differing: Vec<(KeyRange, Digest)>,
    /// Keys under which something differs.
    pub keys: Vec<Key>,
}

fn wanted_ranges(wanted: &[wire::Range]) -> Result<RangeSet, PeerMisbehaved> {
    wanted
        .iter()
        .map(KeyRange::try_from)
        .collect::<Result<Vec<_>, _>>()
        .and_then(RangeSet::new)
        .map_err(|_| PeerMisbehaved::from(Flaw::new("wanted", "is not a sorted list of ranges")))
}

/// Reads the answer to what was asked: what it brings, and what it leads to.
pub(super) fn read<V: View>(
    view: &V,
    asked: &[Asked],
    shortener: Shortener,
    response: wire::ReconcileResponse,
) -> Result<(Step, Findings), TurnError<V::Error>> {
    let Some(first) = asked.first() else {
        return Err(PeerMisbehaved::Unasked.into());
    };
    let resume_at = response.resume_at.as_deref();
    if resume_at.is_some_and(|at| at <= first.open.range.start()) {
        return Err(Flaw::new("resume_at", "leaves everything unprocessed").into());
    }
    let mut step = Step {
        wanted: wanted_ranges(&response.wanted)?,
        ..Step::default()
    };
    let mut answer = Answer {
        parts: &response.parts,
        run: (0, 0),
        bounds: &response.bounds,
        digests: &response.digests,
        lacking: Lacks::new(&response.lacking),
        records: Records::new(response.records)?,
        shortener,
        resume_at,
        splits: Vec::new(),
        pieces: Vec::new(),
        shorts: Vec::new(),
        unpacked: 0,
    };
    let mut found = Findings::default();
    for asked in asked {
        if answer.processed(&asked.open.range).is_none() {
            found.open.push(asked.open.clone());
            continue;
        }
        found.told.push(asked.open.range.clone());
        match answer.next_part()? {
            (EQUAL, _) => {
                answer.check_compared(asked)?;
                step.resolved.push(asked.open.range.clone());
            }
            (SPLIT, n) => answer.split(asked, n)?,
            (RESOLVED, _) => answer.resolved(view, asked, &mut step, &mut found)?,
            _ => {
                let problem = "has an answer that version 1 does not define";
                return Err(Flaw::new("parts", problem).into());
            }
        }
    }
    answer.compare(view, &mut step, &mut found)?;
    step.records = answer.finish()?;
    Ok((step, found))
}

/// An answer while it is read.
struct Answer<'a> {
    parts: &'a [u8],
    run: (u64, u64),
    bounds: &'a [u8],
    digests: &'a [u8],
    lacking: Lacks<'a>,
    records: Records,
    shortener: Shortener,
    resume_at: Option<&'a [u8]>,
    /// Split parts, with where their pieces end in the next two.
    splits: Vec<(&'a Asked, usize)>,
    pieces: Vec<KeyRange>,
    shorts: Vec<&'a [u8]>,
    /// Bytes of the pieces' bounds.
    unpacked: usize,
}

impl<'a> Answer<'a> {
    /// The part of `range` that the answer processed.
    fn processed(&self, range: &KeyRange) -> Option<KeyRange> {
        match self.resume_at {
            Some(at) if range.contains(at) => KeyRange::new(range.start(), Some(at)).ok(),
            Some(at) if at <= range.start() => None,
            _ => Some(range.clone()),
        }
    }

    fn next_part(&mut self) -> Result<(u64, u64), Flaw> {
        if self.run.1 == 0 {
            if self.parts.is_empty() {
                return Err(Flaw::new(
                    "parts",
                    "has fewer answers than parts were asked",
                ));
            }
            self.run = get_run(&mut self.parts)?;
            if self.run.1 == 0 {
                return Err(Flaw::new("parts", "has an empty run"));
            }
        }
        if self.run.0 == SPLIT {
            return Ok((SPLIT, std::mem::take(&mut self.run.1)));
        }
        self.run.1 -= 1;
        Ok((self.run.0, 1))
    }

    /// Checks that answers 0 and 1 are given only to fingerprints that were
    /// compared.
    fn check_compared(&self, asked: &Asked) -> Result<(), Flaw> {
        if matches!(asked.said, Said::Items(_)) {
            let problem = "answers to items other than with resolved";
            return Err(Flaw::new("parts", problem));
        }
        match self.resume_at {
            Some(at) if asked.open.range.contains(at) => {
                Err(Flaw::new("resume_at", "cuts a part that is not resolved"))
            }
            _ => Ok(()),
        }
    }

    /// Reads the pieces of a split part.
    fn split(&mut self, asked: &'a Asked, n: u64) -> Result<(), PeerMisbehaved> {
        let range = &asked.open.range;
        self.check_compared(asked)?;
        // a digest for each piece, so n is bounded by what came
        let shorts = get_shorts(&mut self.digests, n, self.shortener.len)?;
        let (mut lower, infinity) = range.shared();
        for i in 1..=n {
            let bound = match i < n {
                true => match get_bound(&mut self.bounds, &lower) {
                    Err(_) if mutant!(SplitPassedOver) => return Ok(()),
                    bound => Some(bound?),
                },
                false => None,
            };
            let end = bound.as_ref().or(infinity.as_ref());
            let piece = KeyRange::of_bounds(lower, end.cloned())
                .ok()
                .filter(|piece| range.covers(piece))
                .ok_or(Flaw::new(
                    "bounds",
                    "lie outside of the part that they split",
                ))?;
            self.pieces.push(piece);
            lower = bound.unwrap_or_default();
            self.unpacked += 2 * lower.len();
            if self.unpacked > MAX_OPEN_BYTES {
                return Err(PeerMisbehaved::TooMuch);
            }
        }
        self.shorts.extend(shorts.chunks_exact(self.shortener.len));
        self.splits.push((asked, self.pieces.len()));
        Ok(())
    }

    /// Compares all pieces of split parts with the replica's own records: those
    /// that differ are to be asked next.
    fn compare<V: View>(
        &mut self,
        view: &V,
        step: &mut Step,
        found: &mut Findings,
    ) -> Result<(), TurnError<V::Error>> {
        let own = view.summaries(&self.pieces).map_err(TurnError::View)?;
        let differs: Vec<bool> = own
            .iter()
            .zip(&self.shorts)
            .map(|(own, short)| !self.shortener.matches(&own.fingerprint, short))
            .collect();
        let differing = differs.iter().filter(|d| **d).count();
        let differences = plan::differences(differing as u64, differs.len() as u64);
        let open = &mut found.open;
        let mut compared = self.pieces.drain(..).zip(own).zip(differs).enumerate();
        for (asked, end) in self.splits.drain(..) {
            let Open {
                range,
                splits_left,
                full,
                ..
            } = &asked.open;
            let (before, resolved) = (open.len(), step.resolved.len());
            let mut passed_over = false;
            for (i, ((piece, own), differs)) in compared.by_ref() {
                if differs && mutant!(DifferingPartsLeft) {
                    passed_over = true;
                } else if differs {
                    found.differing.push((piece.clone(), own.fingerprint));
                    let repeated = mutant!(SplitRepeated) && piece == *range;
                    open.push(Open {
                        again: repeated.then_some(Speech::Split {
                            parts: 1,
                            splits_left: 2,
                        }),
                        range: piece,
                        records: own.count,
                        splits_left: splits_left.map(|s| s.saturating_sub(1)),
                        differences,
                        full: *full,
                    });
                } else {
                    step.resolved.push(piece);
                }
                if i + 1 == end {
                    break;
                }
            }
            if open.len() > before || passed_over {
                continue;
            }
            // the part differs and no piece of it does
            let now = view.summary(range).map_err(TurnError::View)?.fingerprint;
            let unchanged = matches!(asked.said, Said::Fingerprint(said) if said == now);
            if unchanged && *full && !mutant!(ContradictionBorne) {
                return Err(PeerMisbehaved::Contradiction(range.clone()).into());
            }
            if unchanged && !*full && !mutant!(PartsOverruleWhole) {
                step.resolved.truncate(resolved);
                open.push(Open::in_full(range.clone()));
            }
        }
        Ok(())
    }

    /// Reads what the answer says of a resolved part.
    fn resolved<V: View>(
        &mut self,
        view: &V,
        asked: &Asked,
        step: &mut Step,
        found: &mut Findings,
    ) -> Result<(), TurnError<V::Error>> {
        let range = &asked.open.range;
        let Some(processed) = self.processed(range) else {
            return Ok(());
        };
        let came = self.records.within(&processed)?;
        let mut lacking = Lackings::new(&self.records.all[came], step);
        match &asked.said {
            Said::Items(keys) => {
                for key in keys.iter() {
                    if self.lacking.next()? && processed.contains(key) {
                        lacking.add(key, None);
                    }
                }
            }
            Said::Fingerprint(_) => view
                .items(&processed, &mut |key, digest| {
                    lacking.add(key, Some(digest));
                    ControlFlow::Continue(())
                })
                .map_err(TurnError::View)?,
        }
        let keys = lacking.finish();
        if !keys.is_empty() {
            step.different.push(processed.clone());
            found.keys.extend(keys);
        }
        if let Some(at) = self.resume_at.filter(|at| range.contains(at)) {
            found.cut = Some(processed.clone());
            found
                .open
                .extend(KeyRange::new(at, range.end()).ok().map(|rest| Open {
                    range: rest,
                    again: None,
                    ..asked.open.clone()
                }));
        }
        step.resolved.push(processed);
        Ok(())
    }

    /// Checks that nothing is left over.
    fn finish(self) -> Result<Vec<Record>, PeerMisbehaved> {
        if self.run.1 > 0 || !self.parts.is_empty() {
            return Err(Flaw::new("parts", "has more answers than parts were asked").into());
        }
        if !self.bounds.is_empty() {
            return Err(Flaw::new("bounds", "has more bounds than splits need").into());
        }
        if !self.digests.is_empty() {
            return Err(Flaw::new("digests", "has more digests than splits need").into());
        }
        self.lacking.finish()?;
        match self.records.all.get(self.records.taken) {
            Some(r) if !mutant!(StrayRecordsTaken) => {
                Err(PeerMisbehaved::RecordOutside(r.key.clone()))
            }
            _ => Ok(self.records.all),
        }
    }
}
