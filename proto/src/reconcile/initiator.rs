//! The replica's side of a session: what to ask, and what the answers mean.
//! Knows neither what becomes of a record nor whether one that the server
//! lacks was deleted or lost: see [`crate::history`].

use super::columns::{
    Asking, DEFAULT_DIGEST_LEN, DIGEST_LENS, EQUAL, Flaw, RESOLVED, SPLIT, Shortener, get_bound,
    get_run, get_shorts, get_varint,
};
use super::plan::{self, LIST_AT_LAST, LIST_AT_ONCE};
use crate::key::{Key, KeyRange, RangeSet};
use crate::limits::Limits;
use crate::merkle::View;
use crate::reason::Invalid;
use crate::record::{Digest, Record};
use crate::wire;
use std::ops::ControlFlow;

/// How a session is led.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes of a short digest, 4 to 32. The session after one that ended
    /// unequal uses 32.
    pub digest_len: usize,
    /// The server's `max_reconcile_entries`.
    pub max_entries: u64,
    /// The most bytes of a request's columns.
    pub max_request_bytes: usize,
    /// After so many round trips the session is given up
    /// ([`PeerMisbehaved::TooManyRounds`]).
    pub max_rounds: u32,
}

impl Options {
    /// What fits a server with these limits.
    pub fn new(limits: &Limits) -> Options {
        // a quarter is left for the ranges and cursors of the request
        let bytes = limits.max_message_bytes / 4 * 3;
        Options {
            digest_len: DEFAULT_DIGEST_LEN,
            max_entries: limits.max_reconcile_entries,
            max_request_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            max_rounds: 4096,
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options::new(&Limits::FLOOR)
    }
}

/// Rounds in a row that neither resolve a part nor bring a record before a
/// session is given up. Planned sessions need at most 2, halving of a million
/// records 20.
const MAX_IDLE_ROUNDS: u32 = 64;

/// Neighbouring lists are joined, which saves a bound, up to about so many
/// items: what a server looks up in them stays within its fast memory.
const JOINED_LISTS: u64 = 512;

/// The most bytes of bounds that may be open. Bounds are front-coded, so a
/// small answer could unpack to something large.
const MAX_OPEN_BYTES: usize = 64 << 20;

/// One reconciliation session of a replica.
///
/// ```text
/// while let Some(request) = session.next_request(&tree)? {
///     // fill in space, held, newest_commit, horizon, max_response_bytes; send
///     let step = session.handle_response(&tree, response)?;
///     // merge step.records into store and tree; then decide about
///     // step.conflicts and step.lacking
/// }
/// // apply drops, queue offers, adopt the cursor; push; then Confirmation
/// ```
#[derive(Clone, Debug)]
pub struct Initiator {
    salt: u64,
    options: Options,
    /// What is still to be asked.
    open: Vec<Open>,
    /// What was asked and not yet answered, in key order.
    asked: Vec<Asked>,
    /// Of the request under way.
    digest_len: usize,
    rounds: u32,
    idle_rounds: u32,
}

/// A range that is not resolved.
#[derive(Clone, Debug)]
struct Open {
    range: KeyRange,
    /// The replica's own records in it when that was last counted. For plans.
    records: u64,
    /// An answer said that it differs.
    differs: bool,
    /// Splitting turns planned for it; `None` before the first request.
    splits_left: Option<u32>,
    /// Records expected to differ in it.
    differences: f64,
    /// Short digests contradicted each other: ask with 32 bytes.
    full: bool,
    /// It was asked like this, and the server did not come to it.
    again: Option<Speech>,
}

#[derive(Clone, Debug)]
struct Asked {
    open: Open,
    said: Said,
}

#[derive(Clone, Debug)]
enum Said {
    Fingerprint(Digest),
    Items(KeyList),
}

/// Keys end to end in one allocation.
#[derive(Clone, Debug, Default)]
struct KeyList {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl KeyList {
    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let key = &self.bytes[start..end];
            start = end;
            key
        })
    }
}

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
    /// The server says that a range differs and that all of its parts are
    /// equal, with digests of full length.
    #[error("the server says that {0:?} differs, but each of its parts is equal")]
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

/// How the replica speaks of an open range in the request that is being made.
#[derive(Clone, Copy, Debug)]
enum Speech {
    List,
    Split { parts: usize, splits_left: u32 },
}

impl Initiator {
    /// A session over `ranges`; `salt` is 64 fresh random bits.
    pub fn new(ranges: &RangeSet, salt: u64, options: Options) -> Initiator {
        let options = Options {
            digest_len: options
                .digest_len
                .clamp(*DIGEST_LENS.start(), *DIGEST_LENS.end()),
            // a split, and the list of a small part, always fit
            max_entries: options.max_entries.max(2 * LIST_AT_ONCE),
            max_request_bytes: options.max_request_bytes.max(16 << 10),
            ..options
        };
        let open = |range: &KeyRange| Open {
            range: range.clone(),
            records: 0,
            differs: false,
            splits_left: None,
            differences: 1.0,
            full: options.digest_len == *DIGEST_LENS.end(),
            again: None,
        };
        Initiator {
            salt,
            options,
            open: ranges.iter().map(open).collect(),
            asked: Vec::new(),
            digest_len: 0,
            rounds: 0,
            idle_rounds: 0,
        }
    }

    /// Whether every range is resolved.
    pub fn is_done(&self) -> bool {
        self.open.is_empty() && self.asked.is_empty()
    }

    /// Round trips so far.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The ranges that are not resolved yet, for progress.
    pub fn unresolved(&self) -> impl Iterator<Item = &KeyRange> {
        let asked = self.asked.iter().map(|a| &a.open.range);
        asked.chain(self.open.iter().map(|o| &o.range))
    }

    /// The next question; `None` when all ranges are resolved. Without an
    /// answer in between, asks the same again: after a failed call, or when
    /// the answer came from a state of the server that the replica is ahead
    /// of.
    ///
    /// The caller fills in `space`, `held`, `newest_commit`, `horizon` and
    /// `max_response_bytes`. `view` holds the replica's clean and undamaged
    /// records at that horizon.
    ///
    /// # Errors
    /// When the view cannot be read.
    pub fn next_request<V: View>(
        &mut self,
        view: &V,
    ) -> Result<Option<wire::ReconcileRequest>, V::Error> {
        let unanswered = self.asked.drain(..).map(|a| a.open);
        self.open.extend(unanswered);
        self.open.sort_by(|a, b| a.range.cmp(&b.range));
        let full = self.open.iter().all(|o| o.full);
        self.digest_len = if full { 32 } else { self.options.digest_len };
        let said = self.choose(view, full)?;
        if said.is_empty() {
            return Ok(None);
        }
        let shortener = Shortener {
            salt: self.salt,
            len: self.digest_len,
        };
        let mut asking = Asking::default();
        let mut turns_left = 0;
        for (mut open, speech) in said {
            match speech {
                Speech::List => {
                    open.again = Some(Speech::List);
                    let mut keys = KeyList::default();
                    let digests = &mut asking.digests;
                    view.items(&open.range, &mut |key, digest| {
                        keys.push(key);
                        shortener.append(digest, digests);
                        ControlFlow::Continue(())
                    })?;
                    asking.items(&open.range, keys.ends.len() as u64);
                    let said = Said::Items(keys);
                    self.asked.push(Asked { open, said });
                }
                Speech::Split { parts, splits_left } => {
                    turns_left = turns_left.max(splits_left);
                    let pieces = view.split(&open.range, parts)?;
                    let whole = pieces.len() == 1;
                    for (range, own) in pieces {
                        asking.fingerprint(&range);
                        shortener.append(&own.fingerprint, &mut asking.digests);
                        self.asked.push(Asked {
                            open: Open {
                                range,
                                records: own.count,
                                differs: open.differs && whole,
                                splits_left: Some(splits_left.saturating_sub(1)),
                                differences: 1.0,
                                full,
                                again: Some(Speech::Split {
                                    parts: 1,
                                    splits_left,
                                }),
                            },
                            said: Said::Fingerprint(own.fingerprint),
                        });
                    }
                }
            }
        }
        let (parts, bounds, digests) = asking.finish();
        let digest_len = match self.digest_len {
            DEFAULT_DIGEST_LEN => 0,
            n => n as u32,
        };
        Ok(Some(wire::ReconcileRequest {
            salt: self.salt,
            digest_len,
            turns_left,
            parts,
            bounds,
            digests,
            ..Default::default()
        }))
    }

    /// Takes from the open ranges what fits one request, neighbours that are
    /// to be listed joined.
    fn choose<V: View>(&mut self, view: &V, full: bool) -> Result<Vec<(Open, Speech)>, V::Error> {
        let mut said: Vec<(Open, Speech)> = Vec::new();
        let mut kept = Vec::new();
        let mut entries = self.options.max_entries;
        let mut bytes = self.options.max_request_bytes;
        let mut room = true;
        for mut open in std::mem::take(&mut self.open) {
            if !room || open.full != full {
                kept.push(open);
                continue;
            }
            if open.splits_left.is_none() {
                open.records = view.count(&open.range)?;
            }
            let records = open.records;
            let splits_left = open
                .splits_left
                .unwrap_or_else(|| plan::splitting_turns(records));
            let most = LIST_AT_LAST.min(self.options.max_entries - 1);
            let list = match open.again {
                Some(speech) => matches!(speech, Speech::List),
                None => records <= LIST_AT_ONCE || splits_left == 0 && records <= most,
            };
            // bounds may be long; inner ones take a few bytes
            let frame = open.range.start().len() + open.range.end().map_or(0, <[u8]>::len) + 8;
            let entry = self.digest_len + if list { 0 } else { 8 };
            let fit = (bytes.saturating_sub(frame) / entry) as u64;
            let fit = fit.min(entries);
            let (need, speech) = if list {
                (records + 1, Speech::List)
            } else if let Some(speech) = open.again {
                (1, speech)
            } else {
                let splits_left = match splits_left {
                    0 => 2,
                    n => n,
                };
                let parts = plan::parts(records, open.differences, splits_left, self.digest_len);
                let parts = parts.min((fit as usize).max(2));
                let speech = Speech::Split { parts, splits_left };
                (parts as u64, speech)
            };
            if need > fit && !said.is_empty() {
                room = false;
                kept.push(open);
                continue;
            }
            entries = entries.saturating_sub(need);
            bytes = bytes.saturating_sub(frame + need as usize * entry);
            match (said.last_mut(), &speech) {
                (Some((last, Speech::List)), Speech::List)
                    if last.range.end() == Some(open.range.start())
                        && last.records < JOINED_LISTS =>
                {
                    if let Ok(joined) = KeyRange::new(last.range.start(), open.range.end()) {
                        last.range = joined;
                    }
                    last.records += records;
                    last.differs |= open.differs;
                }
                _ => said.push((open, speech)),
            }
        }
        self.open = kept;
        Ok(said)
    }

    /// Takes the answer to the last request. `view` may have changed since:
    /// then the session may leave something for the next one to find.
    ///
    /// # Errors
    /// [`TurnError::Peer`] for an answer that no correct server gives; nothing
    /// of it is used, and the session is over.
    pub fn handle_response<V: View>(
        &mut self,
        view: &V,
        response: wire::ReconcileResponse,
    ) -> Result<Step, TurnError<V::Error>> {
        let asked = std::mem::take(&mut self.asked);
        let Some(first) = asked.first() else {
            return Err(PeerMisbehaved::Unasked.into());
        };
        self.rounds += 1;
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
            shortener: Shortener {
                salt: self.salt,
                len: self.digest_len,
            },
            resume_at,
            splits: Vec::new(),
            pieces: Vec::new(),
            shorts: Vec::new(),
            unpacked: 0,
        };
        let mut reopened = Vec::new();
        for asked in &asked {
            if answer.processed(&asked.open.range).is_none() {
                reopened.push(asked.open.clone());
                continue;
            }
            match answer.next_part()? {
                (EQUAL, _) => answer.equal(asked, &mut step)?,
                (SPLIT, n) => answer.split(asked, n)?,
                (RESOLVED, _) => reopened.extend(answer.resolved(view, asked, &mut step)?),
                _ => {
                    let problem = "has an answer that version 1 does not define";
                    return Err(Flaw::new("parts", problem).into());
                }
            }
        }
        reopened.extend(answer.compare(view, &mut step)?);
        step.records = answer.finish()?;
        self.open.extend(reopened);
        self.check_progress(&step)?;
        Ok(step)
    }

    fn check_progress(&mut self, step: &Step) -> Result<(), PeerMisbehaved> {
        if step.resolved.is_empty() && step.records.is_empty() {
            self.idle_rounds += 1;
        } else {
            self.idle_rounds = 0;
        }
        if self.idle_rounds >= MAX_IDLE_ROUNDS {
            return Err(PeerMisbehaved::NoProgress);
        }
        if self.rounds >= self.options.max_rounds && !self.is_done() {
            return Err(PeerMisbehaved::TooManyRounds(self.rounds));
        }
        Ok(())
    }
}

/// `range` asked again, with digests of full length.
fn in_full(open: &Open) -> Open {
    Open {
        differs: true,
        full: true,
        again: None,
        ..open.clone()
    }
}

fn wanted_ranges(wanted: &[wire::Range]) -> Result<RangeSet, PeerMisbehaved> {
    wanted
        .iter()
        .map(KeyRange::try_from)
        .collect::<Result<Vec<_>, _>>()
        .and_then(RangeSet::new)
        .map_err(|_| PeerMisbehaved::from(Flaw::new("wanted", "is not a sorted list of ranges")))
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

    /// Whether the whole part was processed, as answers 0 and 1 require.
    fn whole(&self, range: &KeyRange) -> Result<(), Flaw> {
        match self.resume_at {
            Some(at) if range.contains(at) => {
                Err(Flaw::new("resume_at", "cuts a part that is not resolved"))
            }
            _ => Ok(()),
        }
    }

    fn equal(&self, asked: &Asked, step: &mut Step) -> Result<(), Flaw> {
        self.whole(&asked.open.range)?;
        if matches!(asked.said, Said::Items(_)) {
            return Err(Flaw::new(
                "parts",
                "answers to items other than with resolved",
            ));
        }
        step.resolved.push(asked.open.range.clone());
        Ok(())
    }

    /// Reads the pieces of a split part.
    fn split(&mut self, asked: &'a Asked, n: u64) -> Result<(), PeerMisbehaved> {
        let range = &asked.open.range;
        self.whole(range)?;
        if matches!(asked.said, Said::Items(_)) {
            return Err(Flaw::new("parts", "answers to items other than with resolved").into());
        }
        // a digest for each piece, so n is bounded by what came
        let shorts = get_shorts(&mut self.digests, n, self.shortener.len)?;
        let mut lower = range.start().to_vec();
        for i in 1..=n {
            let end = if i == n {
                range.end().map(<[u8]>::to_vec)
            } else {
                let bound = get_bound(&mut self.bounds, &lower)?;
                if range.end().is_some_and(|end| *bound >= *end) {
                    return Err(
                        Flaw::new("bounds", "lie outside of the part that they split").into(),
                    );
                }
                Some(bound)
            };
            let piece = KeyRange::new(&lower, end.as_deref())
                .map_err(|_| Flaw::new("bounds", "are not ascending"))?;
            self.pieces.push(piece);
            lower = end.unwrap_or_default();
            self.unpacked += 2 * lower.len();
            if self.unpacked > MAX_OPEN_BYTES {
                return Err(PeerMisbehaved::TooMuch);
            }
        }
        self.shorts.extend(shorts.chunks_exact(self.shortener.len));
        self.splits.push((asked, self.pieces.len()));
        Ok(())
    }

    /// Compares all pieces of split parts with the replica's own records, and
    /// returns what is to be asked next.
    fn compare<V: View>(
        &mut self,
        view: &V,
        step: &mut Step,
    ) -> Result<Vec<Open>, TurnError<V::Error>> {
        let own = view.summaries(&self.pieces).map_err(TurnError::View)?;
        let differs: Vec<bool> = own
            .iter()
            .zip(&self.shorts)
            .map(|(own, short)| !self.shortener.matches(&own.fingerprint, short))
            .collect();
        let differing = differs.iter().filter(|d| **d).count();
        let differences = plan::differences(differing as u64, differs.len() as u64);
        let mut open = Vec::with_capacity(differing);
        let mut compared = self.pieces.drain(..).zip(own).zip(differs).enumerate();
        for (asked, end) in self.splits.drain(..) {
            let Open {
                range,
                splits_left,
                full,
                ..
            } = &asked.open;
            let (before, resolved) = (open.len(), step.resolved.len());
            while let Some((i, ((piece, own), differs))) = compared.next() {
                if differs {
                    open.push(Open {
                        range: piece,
                        records: own.count,
                        differs: true,
                        splits_left: splits_left.map(|s| s.saturating_sub(1)),
                        differences,
                        full: *full,
                        again: None,
                    });
                } else {
                    step.resolved.push(piece);
                }
                if i + 1 == end {
                    break;
                }
            }
            if open.len() > before {
                continue;
            }
            // the part differs and no piece of it does
            let now = view.summary(range).map_err(TurnError::View)?.fingerprint;
            let unchanged = matches!(asked.said, Said::Fingerprint(said) if said == now);
            if unchanged && *full {
                return Err(PeerMisbehaved::Contradiction(range.clone()).into());
            }
            if unchanged {
                step.resolved.truncate(resolved);
                open.push(in_full(&asked.open));
            }
        }
        Ok(open)
    }

    /// Reads what the answer says of a resolved part; returns what has to be
    /// asked again of it.
    fn resolved<V: View>(
        &mut self,
        view: &V,
        asked: &Asked,
        step: &mut Step,
    ) -> Result<Option<Open>, TurnError<V::Error>> {
        let range = &asked.open.range;
        let Some(processed) = self.processed(range) else {
            return Ok(None);
        };
        let came = self.records.within(&processed)?;
        let mut lacking = Lackings::new(&self.records.all[came.clone()], step);
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
        let differs = lacking.any || !came.is_empty();
        let again = match self.resume_at {
            Some(at) if range.contains(at) => {
                KeyRange::new(at, range.end()).ok().map(|rest| Open {
                    range: rest,
                    differs: true,
                    again: None,
                    ..asked.open.clone()
                })
            }
            // it was found to differ, and nothing in it does
            _ if !differs && asked.open.differs && !asked.open.full => {
                return Ok(Some(in_full(&asked.open)));
            }
            _ => None,
        };
        if differs {
            step.different.push(processed.clone());
        }
        step.resolved.push(processed);
        Ok(again)
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
            Some(r) => Err(PeerMisbehaved::RecordOutside(r.key.clone())),
            None => Ok(self.records.all),
        }
    }
}

/// The records of an answer.
struct Records {
    all: Vec<Record>,
    taken: usize,
}

impl Records {
    fn new(records: Vec<wire::Record>) -> Result<Records, PeerMisbehaved> {
        let all = records
            .into_iter()
            .map(Record::try_from)
            .collect::<Result<Vec<_>, _>>()
            .map_err(PeerMisbehaved::Record)?;
        match all.windows(2).find(|w| w[0].key >= w[1].key) {
            Some(w) => Err(PeerMisbehaved::RecordsUnsorted(w[1].key.clone())),
            None => Ok(Records { all, taken: 0 }),
        }
    }

    /// Takes those in `range`, which lies above all ranges before.
    fn within(&mut self, range: &KeyRange) -> Result<std::ops::Range<usize>, PeerMisbehaved> {
        let rest = &self.all[self.taken..];
        if let Some(r) = rest.first().filter(|r| r.key.as_bytes() < range.start()) {
            return Err(PeerMisbehaved::RecordOutside(r.key.clone()));
        }
        let n = rest.partition_point(|r| range.contains(r.key.as_bytes()));
        self.taken += n;
        Ok(self.taken - n..self.taken)
    }
}

/// Sorts what the server lacks into conflicts and missing records.
struct Lackings<'a> {
    came: &'a [Record],
    step: &'a mut Step,
    any: bool,
}

impl<'a> Lackings<'a> {
    fn new(came: &'a [Record], step: &'a mut Step) -> Self {
        Lackings {
            came,
            step,
            any: false,
        }
    }

    /// A key of the replica's, in ascending order; its digest where the server
    /// was not told of it.
    fn add(&mut self, key: &[u8], digest: Option<&Digest>) {
        let below = self.came.partition_point(|r| r.key.as_bytes() < key);
        self.came = &self.came[below..];
        let theirs = self.came.first().filter(|r| r.key.as_bytes() == key);
        if let (Some(theirs), Some(own)) = (theirs, digest)
            && theirs.digest() == *own
        {
            return;
        }
        // a key of the view is one
        let Ok(key) = Key::new(key) else { return };
        self.any = true;
        match theirs {
            Some(_) => self.step.conflicts.push(key),
            None => {
                let wanted = self.step.wanted.contains(key.as_bytes());
                self.step.lacking.push(Lacking { key, wanted });
            }
        }
    }
}

/// Reads the column `lacking`, item by item.
struct Lacks<'a> {
    column: &'a [u8],
    lacks: bool,
    left: u64,
    begun: bool,
}

impl<'a> Lacks<'a> {
    fn new(column: &'a [u8]) -> Self {
        Lacks {
            column,
            lacks: true,
            left: 0,
            begun: false,
        }
    }

    /// Whether the server lacks the next item.
    fn next(&mut self) -> Result<bool, Flaw> {
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

    fn finish(self) -> Result<(), Flaw> {
        if self.left > 0 || !self.column.is_empty() {
            return Err(Flaw::new(
                "lacking",
                "speaks of more items than were listed",
            ));
        }
        Ok(())
    }
}
