//! The replica's side of a session: what is open, and what to ask next. Knows
//! no wire bytes.

use super::answer::{Findings, MAX_IDLE_ROUNDS, PeerMisbehaved, Step, TurnError, read};
use super::columns::{Asking, DEFAULT_DIGEST_LEN, FULL_DIGEST_LEN, Keys, Shortener, is_digest_len};
use super::doubt::{Doubt, Doubts, Head};
use super::plan::{self, LIST_AT_LAST, LIST_AT_ONCE};
use crate::key::{KeyRange, RangeSet};
use crate::limits::Limits;
use crate::merkle::View;
use crate::mutant;
use crate::record::Digest;
use crate::wire;
use std::ops::ControlFlow;

/// How a session is led.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes of a short digest, 4 to 8, or 32. The session after one that ended
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
            max_rounds: if mutant!(FewRounds) { 20 } else { 4096 },
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options::new(&Limits::FLOOR)
    }
}

/// Neighbouring lists are joined, which saves a bound, up to about so many
/// items: what a server looks up in them stays within its fast memory.
const JOINED_LISTS: u64 = 512;

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
    /// The salt's.
    keys: Keys,
    options: Options,
    /// What is still to be asked.
    open: Vec<Open>,
    /// What was asked and not yet answered, in key order.
    asked: Vec<Asked>,
    /// What differs, and nobody knows yet why.
    doubts: Doubts,
    /// Of the request under way.
    digest_len: usize,
    rounds: u32,
    idle_rounds: u32,
}

/// A range that is not resolved.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub range: KeyRange,
    /// The replica's own records in it when that was last counted. For plans.
    pub records: u64,
    /// Splitting turns planned for it; `None` before the first request.
    pub splits_left: Option<u32>,
    /// Records expected to differ in it.
    pub differences: f64,
    /// Short digests contradicted each other: ask with 32 bytes.
    pub full: bool,
    /// It was asked like this, and the server did not come to it.
    pub again: Option<Speech>,
}

impl Open {
    /// Asked from its beginning, with digests of full length.
    pub fn in_full(range: KeyRange) -> Open {
        Open {
            range,
            records: 0,
            splits_left: None,
            differences: 1.0,
            full: true,
            again: None,
        }
    }

    fn overlaps(&self, range: &KeyRange) -> bool {
        self.range.intersect(range).is_some()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub open: Open,
    pub said: Said,
}

#[derive(Clone, Debug)]
pub(super) enum Said {
    Fingerprint(Digest),
    Items(KeyList),
}

/// Keys end to end in one allocation.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyList {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl KeyList {
    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let key = &self.bytes[start..end];
            start = end;
            key
        })
    }
}

/// How the replica speaks of an open range in the request that is being made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Speech {
    List,
    Split { parts: usize, splits_left: u32 },
}

impl Initiator {
    /// A session over `ranges`; `salt` is 64 fresh random bits.
    pub fn new(ranges: &RangeSet, salt: u64, options: Options) -> Initiator {
        let options = Options {
            digest_len: match options.digest_len {
                n if is_digest_len(n) => n,
                0..4 => DEFAULT_DIGEST_LEN,
                _ => FULL_DIGEST_LEN,
            },
            // a split, and the list of a small part, always fit
            max_entries: options.max_entries.max(2 * LIST_AT_ONCE),
            max_request_bytes: options.max_request_bytes.max(16 << 10),
            ..options
        };
        let open = |range: &KeyRange| Open {
            full: options.digest_len == FULL_DIGEST_LEN,
            ..Open::in_full(range.clone())
        };
        let salt = if mutant!(OneSalt) { 7 } else { salt };
        Initiator {
            salt,
            keys: Keys::new(salt),
            options,
            open: ranges.iter().map(open).collect(),
            asked: Vec::new(),
            doubts: Doubts::default(),
            digest_len: options.digest_len,
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
        if mutant!(SaltPerRequest) {
            self.salt = self.salt.wrapping_add(1);
            self.keys = Keys::new(self.salt);
        }
        let unanswered = self.asked.drain(..).map(|a| a.open);
        self.open.extend(unanswered);
        self.open.sort_by(|a, b| a.range.cmp(&b.range));
        let full = self.open.iter().all(|o| o.full);
        self.digest_len = match full {
            true => FULL_DIGEST_LEN,
            false => self.options.digest_len,
        };
        let said = self.choose(view, full)?;
        if said.is_empty() {
            return Ok(None);
        }
        let shortener = Shortener::new(self.keys, self.digest_len);
        let mut asking = Asking::default();
        let mut turns_left = 0;
        for (mut open, speech) in said {
            match speech {
                Speech::List => {
                    open.again = Some(Speech::List);
                    let records = open.records as usize;
                    let mut keys = KeyList::default();
                    let digests = &mut asking.digests;
                    let mut told = true;
                    view.items(&open.range, &mut |key, digest| {
                        told = !told || !mutant!(HalfIsListed);
                        if !told {
                            return ControlFlow::Continue(());
                        }
                        if keys.ends.is_empty() {
                            keys.ends.reserve(records);
                            keys.bytes.reserve(records * key.len());
                        }
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
                    for (range, own) in pieces {
                        asking.fingerprint(&range);
                        shortener.append(&own.fingerprint, &mut asking.digests);
                        self.asked.push(Asked {
                            open: Open {
                                range,
                                records: own.count,
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
    /// of it is used, and the session is over, with its ranges unresolved.
    pub fn handle_response<V: View>(
        &mut self,
        view: &V,
        response: wire::ReconcileResponse,
    ) -> Result<Step, TurnError<V::Error>> {
        self.rounds += 1;
        let shortener = Shortener::new(self.keys, self.digest_len);
        let head = response.position.as_ref().and_then(|p| p.head);
        let (mut step, found) = read(view, &self.asked, shortener, response)?;
        let cut = found.cut.clone();
        self.doubt(view, &mut step, found, &head)?;
        self.asked.clear();
        self.check_progress(&step, cut.as_ref())?;
        Ok(step)
    }

    /// Takes over what an answer left open. A range that differs, of which
    /// everything is closed and nothing was found, is opened again.
    fn doubt<V: View>(
        &mut self,
        view: &V,
        step: &mut Step,
        found: Findings,
        head: &Head,
    ) -> Result<(), TurnError<V::Error>> {
        self.open.extend(found.open);
        self.open.sort_by(|a, b| a.range.cmp(&b.range));
        self.doubts.explained_by(&found.keys);
        for (range, own) in found.differing {
            self.doubts.found(Doubt {
                range,
                own,
                full: self.digest_len == FULL_DIGEST_LEN,
                head: *head,
                moved: false,
            });
        }
        let mut again: Vec<KeyRange> = Vec::new();
        for told in &found.told {
            for start in self.doubts.told(told, head) {
                let is_open = |d: &Doubt| {
                    let next = self.open.partition_point(|o| {
                        o.range.end().is_some_and(|end| end <= d.range.start())
                    });
                    self.open.get(next).is_some_and(|o| o.overlaps(&d.range))
                };
                if self.doubts.get(&start).is_none_or(is_open) {
                    continue;
                }
                let Some(doubt) = self.doubts.take(&start) else {
                    continue;
                };
                let now = view.summary(&doubt.range).map_err(TurnError::View)?;
                if now.fingerprint != doubt.own || mutant!(PartsOverruleWhole) {
                    continue;
                }
                let excused = doubt.moved && !mutant!(MovedIsContradiction);
                if doubt.full && !excused {
                    if mutant!(ContradictionBorne) {
                        continue;
                    }
                    return Err(PeerMisbehaved::Contradiction(doubt.range).into());
                }
                again.push(doubt.range);
            }
        }
        step.resolved.retain(|r| {
            let before = again.partition_point(|d| d.start() <= r.start());
            !again[..before].last().is_some_and(|d| d.covers(r))
        });
        self.open.extend(again.into_iter().map(Open::in_full));
        Ok(())
    }

    /// Counts the answers in a row that lead nowhere. `cut` is the part that
    /// `resume_at` left resolved of one that is still open.
    fn check_progress(
        &mut self,
        step: &Step,
        cut: Option<&KeyRange>,
    ) -> Result<(), PeerMisbehaved> {
        let cut = cut.filter(|_| !mutant!(EmptyPrefixIsProgress));
        let closes = step.resolved.iter().any(|r| Some(r) != cut);
        if closes || !step.records.is_empty() {
            self.idle_rounds = 0;
        } else {
            self.idle_rounds += 1;
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
