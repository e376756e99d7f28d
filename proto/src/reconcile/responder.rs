//! The server's side: one answer, a function of the request, the records and
//! the limits. Keeps nothing between answers.

use super::columns::{
    Asked, DEFAULT_DIGEST_LEN, EQUAL, Keys, RESOLVED, Runs, SPLIT, Shortener, Spoken,
    is_digest_len, put_bound, put_varint,
};
use super::plan;
use crate::key::{Key, KeyRange, RangeSet};
use crate::limits::Limits;
use crate::merkle::View;
use crate::mutant;
use crate::reason::Invalid;
use crate::record::Record;
use crate::wire;
use prost::Message;
use std::ops::ControlFlow;

/// What one answer may cost. What is beyond is left for the next request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Asked parts and their items in the request; more is refused.
    pub max_entries: u64,
    /// Bytes of the answer, its header included; the request may ask for less.
    /// One record may exceed it.
    pub max_response_bytes: usize,
    /// Digests to compute for items, and eight for each fingerprint.
    pub max_hashes: u64,
}

impl Budget {
    /// That of a server with these limits: about 0.2 s of hashing at most.
    pub fn new(limits: &Limits) -> Budget {
        Budget {
            max_entries: limits.max_reconcile_entries,
            max_response_bytes: usize::try_from(limits.max_response_bytes).unwrap_or(usize::MAX),
            max_hashes: 2_000_000,
        }
    }
}

/// Left for what the caller adds to an answer: position, status, restore
/// points.
const HEADER_BYTES: usize = 256;
/// The least that an answer is planned for, whatever the request asks.
const LEAST_BYTES: usize = 1024;
const HASHES_OF_A_FINGERPRINT: u64 = 8;
const COMPARED_AT_ONCE: usize = 1024;

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RespondError<V, L> {
    /// The request is at fault.
    #[error(transparent)]
    Request(#[from] Invalid),
    /// The view cannot be read.
    #[error("{0}")]
    View(V),
    /// A record cannot be loaded.
    #[error("{0}")]
    Load(L),
}

/// Answers one request. The caller has checked `space`, `held`,
/// `newest_commit` and that `horizon` is the view's, and fills in `position`,
/// `held` and `restore_points` of the answer.
///
/// - `scope`: all ranges of `held`; what is asked must lie in them.
/// - `view`: the undamaged records at the horizon.
/// - `damaged`: where content is known to be damaged.
/// - `load`: the record under a key of the view, from the same state of the
///   store. `None` when its content turns out to be damaged now: it is then
///   reported as wanted.
///
/// # Errors
/// [`RespondError::Request`] for a request that is malformed or over a limit.
pub fn respond<V: View, L>(
    request: &wire::ReconcileRequest,
    scope: &RangeSet,
    view: &V,
    damaged: &RangeSet,
    budget: &Budget,
    load: impl FnMut(&[u8]) -> Result<Option<Record>, L>,
) -> Result<wire::ReconcileResponse, RespondError<V::Error, L>> {
    let digest_len = match request.digest_len as usize {
        0 => DEFAULT_DIGEST_LEN,
        n if is_digest_len(n) => n,
        _ if mutant!(AnyDigestLength) => DEFAULT_DIGEST_LEN,
        _ => return Err(Invalid::malformed("digest_len", "is not 4 to 8 or 32 (or 0)").into()),
    };
    let asked = Asked::new(
        &request.parts,
        &request.bounds,
        &request.digests,
        digest_len,
    );
    check(asked.clone(), digest_len, scope, budget)?;
    let wished = match request.max_response_bytes as usize {
        0 => budget.max_response_bytes,
        _ if mutant!(BudgetIgnored) => budget.max_response_bytes,
        n => n.min(budget.max_response_bytes),
    };
    let mut answer = Answer {
        view,
        damaged,
        load,
        shortener: Shortener::new(Keys::new(request.salt), digest_len),
        bytes_left: wished.max(LEAST_BYTES) - HEADER_BYTES,
        hashes_left: budget.max_hashes,
        moved: false,
        runs: Runs::default(),
        bounds: Vec::new(),
        digests: Vec::new(),
        lacking: LackingRuns::default(),
        records: Vec::new(),
        wanted: Vec::new(),
        resume_at: None,
    };
    let compared = answer.compare(asked.clone())?;
    let differing = compared.iter().filter(|c| c.is_some()).count() as u64;
    let differences = plan::differences(differing, compared.len() as u64);
    let splits_left = request.turns_left.saturating_sub(1).clamp(1, 16);
    answer.answer_all(asked, compared, differences, splits_left)?;
    Ok(answer.finish())
}

/// Checks a whole request before any work is done for it.
fn check(
    mut asked: Asked,
    digest_len: usize,
    scope: &RangeSet,
    budget: &Budget,
) -> Result<(), Invalid> {
    let mut entries = 0;
    while let Some((range, spoken)) = asked.next()? {
        entries += 1;
        if let Spoken::Items(shorts) = spoken {
            entries += (shorts.len() / digest_len) as u64;
        }
        let most = budget.max_entries - u64::from(mutant!(MostEntriesRefused));
        if entries > most && !mutant!(EntriesUncounted) {
            return Err(Invalid::limit(
                "parts",
                "max_reconcile_entries",
                budget.max_entries,
                entries,
            ));
        }
        if !scope
            .find(range.start())
            .is_some_and(|held| held.covers(&range))
            && !mutant!(AskedBeyondHeld)
        {
            return Err(Invalid::malformed(
                "parts",
                "asks about keys outside of the ranges in `held`",
            ));
        }
    }
    match entries {
        0 if !mutant!(NothingAsked) => Err(Invalid::malformed("parts", "asks about nothing")),
        _ => Ok(()),
    }
}

struct Answer<'a, V, F> {
    view: &'a V,
    damaged: &'a RangeSet,
    load: F,
    shortener: Shortener,
    bytes_left: usize,
    hashes_left: u64,
    /// Something was answered: the rest may be left for the next request.
    moved: bool,
    runs: Runs,
    bounds: Vec<u8>,
    digests: Vec<u8>,
    lacking: LackingRuns,
    records: Vec<wire::Record>,
    wanted: Vec<KeyRange>,
    resume_at: Option<Vec<u8>>,
}

impl<V: View, L, F: FnMut(&[u8]) -> Result<Option<Record>, L>> Answer<'_, V, F> {
    /// Compares the fingerprints of the request, as many as the budget allows:
    /// for each, the number of the server's records if it differs.
    fn compare(&mut self, mut asked: Asked) -> Result<Vec<Option<u64>>, RespondError<V::Error, L>> {
        let mut compared = Vec::new();
        loop {
            // in batches, since a request may unpack to much more than its size
            let (mut ranges, mut shorts) = (Vec::new(), Vec::new());
            while ranges.len() < COMPARED_AT_ONCE
                && (self.hashes_left >= HASHES_OF_A_FINGERPRINT
                    || compared.is_empty() && ranges.is_empty())
                && let Some((range, spoken)) = asked.next().map_err(Invalid::from)?
            {
                if let Spoken::Fingerprint(short) = spoken {
                    self.hashes_left = self.hashes_left.saturating_sub(HASHES_OF_A_FINGERPRINT);
                    ranges.push(range);
                    shorts.push(short);
                }
            }
            if ranges.is_empty() {
                return Ok(compared);
            }
            let own = self.view.summaries(&ranges).map_err(RespondError::View)?;
            compared.extend(own.iter().zip(shorts).map(|(own, short)| {
                let equal = self.shortener.matches(&own.fingerprint, short)
                    && !mutant!(NothingIsEqual)
                    || mutant!(AllIsEqual)
                    || mutant!(FirstByteCompared)
                        && self.shortener.padded(&own.fingerprint)[0] == short[0];
                (!equal).then_some(own.count)
            }));
        }
    }

    fn answer_all(
        &mut self,
        mut asked: Asked,
        compared: Vec<Option<u64>>,
        differences: f64,
        splits_left: u32,
    ) -> Result<(), RespondError<V::Error, L>> {
        let mut compared = compared.into_iter();
        while let Some((range, spoken)) = asked.next().map_err(Invalid::from)? {
            if mutant!(NothingProcessed) {
                self.resume_at = Some(range.start().to_vec());
                return Ok(());
            }
            match spoken {
                Spoken::Items(items) => self.resolve(&range, items)?,
                Spoken::Fingerprint(_) => match compared.next() {
                    None => self.resume_at = Some(range.start().to_vec()),
                    Some(None) => {
                        self.runs.extend(EQUAL);
                        self.moved = true;
                    }
                    // the server has nothing there, and says so
                    Some(Some(0)) => {
                        self.want(&range);
                        self.runs.extend(match mutant!(EmptyIsEqual) {
                            false => RESOLVED,
                            true => EQUAL,
                        });
                        self.moved = true;
                    }
                    Some(Some(count)) => self.split(&range, count, differences, splits_left)?,
                },
            }
            if self.resume_at.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn split(
        &mut self,
        range: &KeyRange,
        count: u64,
        differences: f64,
        splits_left: u32,
    ) -> Result<(), RespondError<V::Error, L>> {
        let part_bytes = self.shortener.len + 8;
        let fit = self.bytes_left / part_bytes;
        let fit = fit.min((self.hashes_left / HASHES_OF_A_FINGERPRINT) as usize);
        if fit < 2 && self.moved {
            self.resume_at = Some(range.start().to_vec());
            return Ok(());
        }
        let parts = plan::parts(count, differences, splits_left, self.shortener.len);
        let pieces = self
            .view
            .split(range, parts.min(fit.max(2)))
            .map_err(RespondError::View)?;
        let before = self.bounds.len() + self.digests.len();
        for (piece, own) in &pieces {
            if let Some(end) = piece.end().filter(|&end| range.end() != Some(end)) {
                let end = match mutant!(BoundsRepeated) {
                    false => end,
                    true => piece.start(),
                };
                put_bound(&mut self.bounds, piece.start(), end);
            }
            self.shortener.append(&own.fingerprint, &mut self.digests);
        }
        let n = pieces.len() as u64;
        self.runs.single(SPLIT, n);
        self.moved = true;
        self.hashes_left = self.hashes_left.saturating_sub(n * HASHES_OF_A_FINGERPRINT);
        self.spend(self.bounds.len() + self.digests.len() - before + 4);
        if mutant!(BrokenOffInside)
            && let Some((first, _)) = pieces.split_first().filter(|(_, more)| !more.is_empty())
        {
            self.resume_at = first.0.end().map(<[u8]>::to_vec);
        }
        Ok(())
    }

    /// Answers to items: sends what is not among them, marks those that the
    /// server does not have.
    fn resolve(&mut self, range: &KeyRange, items: &[u8]) -> Result<(), RespondError<V::Error, L>> {
        let mut items = Items::new(items, self.shortener.len);
        let mut failed = None;
        let mut cut: Option<Vec<u8>> = None;
        let mut here = false;
        // the walk borrows the view, the visit everything else
        let view = self.view;
        view.items(range, &mut |key, digest| {
            let stop = |cut: &mut Option<Vec<u8>>| {
                *cut = Some(key.to_vec());
                ControlFlow::Break(())
            };
            if self.hashes_left == 0 && self.moved {
                return stop(&mut cut);
            }
            self.hashes_left = self.hashes_left.saturating_sub(1);
            if !items.find(&self.shortener.padded(digest)) {
                match self.send(key) {
                    Ok(true) => {}
                    Ok(false) => return stop(&mut cut),
                    Err(e) => {
                        failed = Some(e);
                        return ControlFlow::Break(());
                    }
                }
            }
            self.moved = true;
            here = true;
            ControlFlow::Continue(())
        })
        .map_err(RespondError::View)?;
        if let Some(e) = failed {
            return Err(RespondError::Load(e));
        }
        let processed = match &cut {
            None => Some(range.clone()),
            Some(key) => KeyRange::new(range.start(), Some(key)).ok(),
        };
        // a part of which nothing was processed has no answer
        if let Some(processed) = processed.filter(|_| here || cut.is_none()) {
            self.want(&processed);
            self.runs.extend(match mutant!(ItemsCalledEqual) {
                false => RESOLVED,
                true => EQUAL,
            });
            self.moved = true;
            for &found in &items.found {
                self.lacking.add(!found && !mutant!(LackingUntold));
            }
            self.resume_at = cut;
        } else {
            self.resume_at = Some(range.start().to_vec());
        }
        Ok(())
    }

    /// Sends the record under `key`; `false` when it does not fit.
    fn send(&mut self, key: &[u8]) -> Result<bool, L> {
        match (self.load)(key)? {
            // keys of a view are keys
            None => self
                .wanted
                .extend(Key::new(key).map(|k| KeyRange::single(&k))),
            Some(record) => {
                let record = wire::Record::from(record);
                let size = record.encoded_len() + 4;
                if size > self.bytes_left && self.moved {
                    return Ok(false);
                }
                self.spend(size);
                self.records.push(record);
            }
        }
        Ok(true)
    }

    fn want(&mut self, range: &KeyRange) {
        let all = self.damaged.as_slice();
        let first = all.partition_point(|r| r.end().is_some_and(|end| end <= range.start()));
        let here = all[first..].iter().map_while(|r| r.intersect(range));
        self.wanted.extend(here);
    }

    fn spend(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    fn finish(self) -> wire::ReconcileResponse {
        let wanted = RangeSet::union(self.wanted);
        let mut records = self.records;
        if mutant!(RecordsHeldBack) {
            records.pop();
        }
        if mutant!(RecordsBackwards) {
            records.reverse();
        }
        wire::ReconcileResponse {
            parts: self.runs.finish(),
            bounds: self.bounds,
            digests: self.digests,
            lacking: self.lacking.finish(),
            records,
            wanted: match mutant!(WantedUntold) {
                false if mutant!(WantedTwice) => {
                    wanted.iter().chain(&wanted).map(Into::into).collect()
                }
                false => wanted.iter().map(Into::into).collect(),
                true => Vec::new(),
            },
            resume_at: self.resume_at.filter(|_| !mutant!(ResumeUntold)),
            ..Default::default()
        }
    }
}

/// Finds the server's digests among the replica's items. Both come in key
/// order, so mostly the next one is it; the others are looked up.
struct Items<'a> {
    shorts: &'a [u8],
    len: usize,
    next: usize,
    found: Vec<bool>,
    /// The first four bytes of each short, then its place, sorted.
    index: Option<Vec<u64>>,
}

/// The first four bytes, the least that a short has, in the upper half of a
/// number.
fn prefix(short: &[u8]) -> u64 {
    let first = short.first_chunk().copied().unwrap_or_default();
    u64::from(u32::from_be_bytes(first)) << 32
}

impl<'a> Items<'a> {
    fn new(shorts: &'a [u8], len: usize) -> Self {
        Items {
            shorts,
            len,
            next: 0,
            found: vec![false; shorts.len() / len],
            index: None,
        }
    }

    /// Whether the digest of which `full` is the salted hash is listed.
    fn find(&mut self, full: &[u8; 32]) -> bool {
        let wanted = &full[..self.len];
        let mut shorts = self.shorts.chunks_exact(self.len);
        if shorts.nth(self.next).is_some_and(|short| short == wanted) {
            self.found[self.next] = true;
            self.next += 1;
            return true;
        }
        let index = self.index.get_or_insert_with(|| {
            let shorts = self.shorts.chunks_exact(self.len);
            let mut index: Vec<_> = shorts.zip(0..).map(|(s, i)| prefix(s) | i).collect();
            index.sort_unstable();
            index
        });
        let first = prefix(wanted);
        let hit = index[index.partition_point(|entry| *entry < first)..]
            .iter()
            .map_while(|entry| u32::try_from(entry ^ first).ok())
            .map(|i| i as usize)
            .find(|i| self.shorts[i * self.len..].starts_with(wanted));
        if let Some(i) = hit {
            self.found[i] = true;
            self.next = i + 1;
        }
        hit.is_some()
    }
}

/// Writes the column `lacking`.
#[derive(Default)]
struct LackingRuns {
    bytes: Vec<u8>,
    lacks: bool,
    run: u64,
}

impl LackingRuns {
    fn add(&mut self, lacks: bool) {
        if lacks != self.lacks {
            put_varint(&mut self.bytes, self.run);
            self.lacks = lacks;
            self.run = 0;
        }
        self.run += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        if self.lacks {
            put_varint(&mut self.bytes, self.run);
        }
        self.bytes
    }
}
