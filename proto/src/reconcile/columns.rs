//! The packed columns of the Reconcile messages: varints, bounds, parts. Knows
//! their bytes and what is well-formed; not what is asked or answered, or why.

use crate::key::KeyRange;
use crate::merkle::common_prefix;
use crate::reason::Invalid;
use crate::record::Digest;
use crate::sha256::sha256_of;
use std::sync::Arc;

/// Bytes of a short digest when a request does not say.
///
/// Collisions: a difference is overlooked when two different fingerprints have
/// equal shorts, with probability 2^-40 for each comparison, or when a record
/// has the short of one of the items listed for its part, with items × 2^-40.
/// A session with 10,000 differences among a million records makes about
/// 50,000 of the former and 10,000 of the latter with 40 items: together
/// 4 × 10^-7. And nothing is lost then: most collisions show at once (a part
/// differs, nothing in it does) and the rest in the full comparison that ends
/// a session; both make the replica ask again with 32 bytes.
pub const DEFAULT_DIGEST_LEN: usize = 5;
/// The least and the most bytes of a short digest.
pub const DIGEST_LENS: std::ops::RangeInclusive<usize> = 4..=32;

pub(super) const SKIP: u64 = 0;
pub(super) const FINGERPRINT: u64 = 1;
pub(super) const ITEMS: u64 = 2;

pub(super) const EQUAL: u64 = 0;
pub(super) const SPLIT: u64 = 1;
pub(super) const RESOLVED: u64 = 2;

/// Makes shorts: the first bytes of SHA-256(salt || digest). The 40 bytes are
/// shorter than any other preimage of the protocol, so they need no tag, and
/// they fit one block of the hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shortener {
    pub salt: u64,
    pub len: usize,
}

impl Shortener {
    pub fn full(self, digest: &Digest) -> [u8; 32] {
        let mut preimage = [0; 40];
        preimage[..8].copy_from_slice(&self.salt.to_be_bytes());
        preimage[8..].copy_from_slice(&digest.0);
        sha256_of(&preimage)
    }

    pub fn append(self, digest: &Digest, out: &mut Vec<u8>) {
        // a copy of fixed length takes no call
        let end = out.len() + self.len;
        out.extend_from_slice(&self.full(digest));
        out.truncate(end);
    }

    pub fn matches(self, digest: &Digest, short: &[u8]) -> bool {
        self.full(digest)[..self.len] == *short
    }
}

/// What is wrong with a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flaw {
    pub field: &'static str,
    pub problem: &'static str,
}

impl Flaw {
    pub fn new(field: &'static str, problem: &'static str) -> Flaw {
        Flaw { field, problem }
    }
}

impl From<Flaw> for Invalid {
    fn from(f: Flaw) -> Invalid {
        Invalid::malformed(f.field, f.problem)
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Takes one varint off the front.
pub(super) fn get_varint(field: &'static str, column: &mut &[u8]) -> Result<u64, Flaw> {
    let mut v = 0u64;
    for i in 0..10 {
        let Some((&byte, rest)) = column.split_first() else {
            return Err(Flaw::new(field, "ends within a varint"));
        };
        *column = rest;
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            break;
        }
        v |= bits << (7 * i);
        if byte & 0x80 == 0 {
            if byte == 0 && i > 0 {
                return Err(Flaw::new(
                    field,
                    "has a varint that is not in shortest form",
                ));
            }
            return Ok(v);
        }
    }
    Err(Flaw::new(field, "has a varint of more than 64 bits"))
}

/// Takes a number in front of its kind: n * 4 + kind.
pub(super) fn get_run(column: &mut &[u8]) -> Result<(u64, u64), Flaw> {
    let v = get_varint("parts", column)?;
    Ok((v & 3, v >> 2))
}

/// A run that grows while the same kind goes on.
#[derive(Debug, Default)]
pub(super) struct Runs {
    pub bytes: Vec<u8>,
    open: Option<(u64, u64)>,
}

impl Runs {
    pub fn extend(&mut self, kind: u64) {
        match &mut self.open {
            Some((k, n)) if *k == kind => *n += 1,
            _ => {
                self.close();
                self.open = Some((kind, 1));
            }
        }
    }

    pub fn single(&mut self, kind: u64, n: u64) {
        self.close();
        put_varint(&mut self.bytes, n << 2 | kind);
    }

    fn close(&mut self) {
        if let Some((kind, n)) = self.open.take() {
            put_varint(&mut self.bytes, n << 2 | kind);
        }
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.close();
        self.bytes
    }
}

/// Appends `bound`, coded against the lower bound of the part that it ends.
pub(super) fn put_bound(out: &mut Vec<u8>, lower: &[u8], bound: &[u8]) {
    let shared = common_prefix(lower, bound);
    let (drop, add) = (lower.len() - shared, bound.len() - shared);
    out.push((drop.min(15) << 4 | add.min(15)) as u8);
    for n in [drop, add] {
        if let Some(rest) = n.checked_sub(15) {
            put_varint(out, rest as u64);
        }
    }
    out.extend_from_slice(&bound[shared..]);
}

/// Takes one bound off the front.
pub(super) fn get_bound(column: &mut &[u8], lower: &[u8]) -> Result<Arc<[u8]>, Flaw> {
    let flaw = |problem| Flaw::new("bounds", problem);
    let Some((&head, rest)) = column.split_first() else {
        return Err(flaw("has fewer bounds than parts need"));
    };
    *column = rest;
    let mut number = |n: u8| -> Result<usize, Flaw> {
        if n < 15 {
            return Ok(usize::from(n));
        }
        let rest = get_varint("bounds", column)?;
        Ok(15 + usize::try_from(rest).unwrap_or(usize::MAX - 15))
    };
    let (drop, add) = (number(head >> 4)?, number(head & 15)?);
    let Some(kept) = lower.len().checked_sub(drop) else {
        return Err(flaw("drops more bytes than the lower bound has"));
    };
    if kept.saturating_add(add) > KeyRange::MAX_BOUND_BYTES {
        return Err(flaw("has a bound of more than 513 bytes"));
    }
    let Some((added, rest)) = column.split_at_checked(add) else {
        return Err(flaw("ends within a bound"));
    };
    *column = rest;
    // bytes that are kept are equal: what was added or dropped decides
    if *added <= lower[kept..] {
        return Err(flaw("are not ascending"));
    }
    let mut bound = [0; KeyRange::MAX_BOUND_BYTES];
    bound[..kept].copy_from_slice(&lower[..kept]);
    bound[kept..kept + add].copy_from_slice(added);
    Ok(bound[..kept + add].into())
}

/// Takes the next `n` shorts of `len` bytes off the front.
pub(super) fn get_shorts<'a>(column: &mut &'a [u8], n: u64, len: usize) -> Result<&'a [u8], Flaw> {
    let taken = usize::try_from(n)
        .ok()
        .and_then(|n| n.checked_mul(len))
        .and_then(|bytes| column.split_at_checked(bytes));
    let Some((shorts, rest)) = taken else {
        return Err(Flaw::new("digests", "has fewer digests than parts need"));
    };
    *column = rest;
    Ok(shorts)
}

/// What a request says of one part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spoken<'a> {
    /// One short of the fingerprint.
    Fingerprint(&'a [u8]),
    /// The shorts of all items.
    Items(&'a [u8]),
}

/// Reads the asked parts of a request, one at a time: a request that unpacks
/// to much more than its own size never does so in memory.
#[derive(Clone, Debug)]
pub(super) struct Asked<'a> {
    parts: &'a [u8],
    bounds: &'a [u8],
    digests: &'a [u8],
    digest_len: usize,
    lower: Arc<[u8]>,
    /// What is left of a run of parts of one kind.
    run: (u64, u64),
    ended: bool,
}

impl<'a> Asked<'a> {
    pub fn new(parts: &'a [u8], bounds: &'a [u8], digests: &'a [u8], digest_len: usize) -> Self {
        Asked {
            parts,
            bounds,
            digests,
            digest_len,
            lower: Arc::default(),
            run: (SKIP, 0),
            ended: false,
        }
    }

    /// The next asked part; `None` after the last one, when all columns turned
    /// out to be used up.
    pub fn next(&mut self) -> Result<Option<(KeyRange, Spoken<'a>)>, Flaw> {
        loop {
            if self.run.1 == 0 && self.parts.is_empty() {
                return self.end();
            }
            let (kind, items) = if self.run.1 > 0 {
                self.run.1 -= 1;
                (self.run.0, 0)
            } else {
                let (kind, n) = get_run(&mut self.parts)?;
                match (kind, n) {
                    (SKIP | FINGERPRINT, 0) => {
                        return Err(Flaw::new("parts", "has a run of no parts"));
                    }
                    (SKIP | FINGERPRINT, n) => self.run = (kind, n - 1),
                    (ITEMS, _) => {}
                    _ => {
                        return Err(Flaw::new(
                            "parts",
                            "has a kind that version 1 does not define",
                        ));
                    }
                }
                (kind, n)
            };
            let range = self.range()?;
            let shorts = |n, digests: &mut &'a [u8]| get_shorts(digests, n, self.digest_len);
            match kind {
                FINGERPRINT => {
                    let short = shorts(1, &mut self.digests)?;
                    return Ok(Some((range, Spoken::Fingerprint(short))));
                }
                ITEMS => {
                    let items = shorts(items, &mut self.digests)?;
                    return Ok(Some((range, Spoken::Items(items))));
                }
                _ => {}
            }
        }
    }

    fn range(&mut self) -> Result<KeyRange, Flaw> {
        let last = self.run.1 == 0 && self.parts.is_empty();
        let end = if last {
            None
        } else {
            Some(get_bound(&mut self.bounds, &self.lower)?)
        };
        let range = KeyRange::of_bounds(self.lower.clone(), end.clone())
            .map_err(|_| Flaw::new("bounds", "are not ascending"))?;
        match end {
            Some(end) => self.lower = end,
            None => self.ended = true,
        }
        Ok(range)
    }

    fn end(&self) -> Result<Option<(KeyRange, Spoken<'a>)>, Flaw> {
        if !self.ended {
            return Err(Flaw::new("parts", "is empty"));
        }
        if !self.bounds.is_empty() {
            return Err(Flaw::new("bounds", "has more bounds than parts need"));
        }
        if !self.digests.is_empty() {
            return Err(Flaw::new("digests", "has more digests than parts need"));
        }
        Ok(None)
    }
}

/// Writes the parts of a request, in key order; what is between them is
/// skipped.
#[derive(Debug, Default)]
pub(super) struct Asking {
    runs: Runs,
    bounds: Vec<u8>,
    pub digests: Vec<u8>,
    lower: Vec<u8>,
    ended: bool,
}

impl Asking {
    /// A part with one short, which the caller appends to `digests`.
    pub fn fingerprint(&mut self, range: &KeyRange) {
        self.skip_to(range.start());
        self.runs.extend(FINGERPRINT);
        self.end_part(range.end());
    }

    /// A part with `n` shorts, which the caller appends to `digests`.
    pub fn items(&mut self, range: &KeyRange, n: u64) {
        self.skip_to(range.start());
        self.runs.single(ITEMS, n);
        self.end_part(range.end());
    }

    /// The columns parts, bounds and digests.
    pub fn finish(mut self) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        if !self.ended {
            self.runs.extend(SKIP);
        }
        (self.runs.finish(), self.bounds, self.digests)
    }

    fn skip_to(&mut self, start: &[u8]) {
        debug_assert!(*start >= *self.lower && !self.ended);
        if *start > *self.lower {
            self.runs.extend(SKIP);
            self.end_part(Some(start));
        }
    }

    fn end_part(&mut self, end: Option<&[u8]>) {
        match end {
            Some(end) => {
                put_bound(&mut self.bounds, &self.lower, end);
                self.lower.clear();
                self.lower.extend_from_slice(end);
            }
            None => self.ended = true,
        }
    }
}
