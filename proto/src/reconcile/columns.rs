//! The packed columns of the Reconcile messages: varints, bounds, parts. Knows
//! their bytes and what is well-formed; not what is asked or answered, or why.

use crate::key::KeyRange;
use crate::merkle::common_prefix;
use crate::mutant;
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
/// Bytes of a digest that is not shortened.
pub const FULL_DIGEST_LEN: usize = 32;

/// Whether digests may have so many bytes: 4 to 8, or all.
pub fn is_digest_len(len: usize) -> bool {
    matches!(len, 4..=8 | FULL_DIGEST_LEN)
}

pub(super) const SKIP: u64 = 0;
pub(super) const FINGERPRINT: u64 = 1;
pub(super) const ITEMS: u64 = 2;

pub(super) const EQUAL: u64 = 0;
pub(super) const SPLIT: u64 = 1;
pub(super) const RESOLVED: u64 = 2;

/// Begins the preimages that a salt's keys are drawn from.
const SHORTS_TAG: &[u8; 16] = b"gosync.v1.shorts";

/// What a salt makes of digests: a function that nobody who does not know the
/// salt can find two digests with equal values for. The top 65 bits are
/// strongly universal (multilinear hashing, words of 64 and keys of 128 bits):
/// two different digests agree in n bytes with probability 2^-8n. A hash that
/// holds by itself would cost a hundred times as much, and reconciliation
/// shortens the digests of nearly all records where many differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    first: u128,
    words: [u128; 4],
}

impl Keys {
    /// Those of a salt: 80 bytes of SHA-256 in counter mode.
    pub fn new(salt: u64) -> Keys {
        let mut preimage = [0; 25];
        preimage[..16].copy_from_slice(SHORTS_TAG);
        preimage[16..24].copy_from_slice(&salt.to_be_bytes());
        let blocks: [_; 3] = std::array::from_fn(|i| {
            preimage[24] = i as u8;
            sha256_of(&preimage)
        });
        let stream = blocks.as_flattened().as_chunks::<16>().0;
        let key = |i: usize| u128::from_be_bytes(stream[i]);
        Keys {
            first: key(0),
            words: std::array::from_fn(|i| key(i + 1)),
        }
    }

    /// Of the sum of products modulo 2^128, the upper half.
    fn hash(&self, digest: &Digest) -> u64 {
        let words = digest.0.as_chunks::<8>().0.iter();
        let sum = words.zip(self.words).fold(self.first, |sum, (word, key)| {
            let word = u128::from(u64::from_be_bytes(*word));
            sum.wrapping_add(key.wrapping_mul(word))
        });
        (sum >> 64) as u64
    }
}

/// Makes shorts: `len` bytes of what the keys make of a digest, or the digest
/// itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shortener {
    keys: Keys,
    pub len: usize,
}

impl Shortener {
    /// `len` is one that [`is_digest_len`] allows.
    pub fn new(keys: Keys, len: usize) -> Shortener {
        debug_assert!(is_digest_len(len));
        Shortener { keys, len }
    }

    /// The short, and bytes without meaning after it.
    pub fn padded(&self, digest: &Digest) -> [u8; 32] {
        if self.len == FULL_DIGEST_LEN {
            return digest.0;
        }
        let mut padded = [0; 32];
        padded[..8].copy_from_slice(&self.keys.hash(digest).to_be_bytes());
        padded
    }

    pub fn append(&self, digest: &Digest, out: &mut Vec<u8>) {
        // a copy of fixed length takes no call
        let end = out.len() + self.len;
        out.extend_from_slice(&self.padded(digest));
        out.truncate(end);
    }

    pub fn matches(&self, digest: &Digest, short: &[u8]) -> bool {
        self.padded(digest)[..self.len] == *short
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
    match mutant!(VarintsPadded) {
        true => out.extend([v as u8 | 0x80, 0]),
        false => out.push(v as u8),
    }
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
            if byte == 0 && i > 0 && !mutant!(LongVarintsTaken) {
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
        if mutant!(LongVarints)
            && let Some(last) = self.bytes.last_mut()
        {
            *last |= 0x80;
            self.bytes.push(0);
        }
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
        if mutant!(BoundCountWraps) {
            return Ok(rest.wrapping_add(15) as usize);
        }
        Ok(usize::try_from(rest)
            .unwrap_or(usize::MAX)
            .saturating_add(15))
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
    if *added <= lower[kept..] && !mutant!(LowBoundsTaken) {
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
        if mutant!(MissingDigestsTaken) {
            *column = &[];
            return Ok(&[0; 32][..len]);
        }
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
                let (kind, n) = match get_run(&mut self.parts)? {
                    (3, n) if mutant!(UnknownKindsTaken) => (FINGERPRINT, n),
                    run => run,
                };
                match (kind, n) {
                    (SKIP | FINGERPRINT, 0) if mutant!(EmptyRunsTaken) => continue,
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
        let range = match KeyRange::of_bounds(self.lower.clone(), end.clone()) {
            Err(_) if mutant!(LowBoundsTaken) => KeyRange::all(),
            range => range.map_err(|_| Flaw::new("bounds", "are not ascending"))?,
        };
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
        if mutant!(LeftoversTaken) {
            return Ok(None);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: the count wrapped, which gave one bound a second encoding, and
    /// was a panic where overflows are looked for.
    #[test]
    fn a_count_of_a_bound_does_not_wrap() {
        for rest in [u64::MAX, u64::MAX - 14, u64::from(u32::MAX)] {
            for head in [0x0f, 0xf0] {
                let mut bound = vec![head];
                put_varint(&mut bound, rest);
                bound.extend_from_slice(b"twenty bytes of a key");
                let read = get_bound(&mut bound.as_slice(), b"");
                assert!(read.is_err(), "{head:02x} {rest:x}");
            }
        }
    }

    /// Computed by the generator of the vectors.
    #[test]
    fn shorts_are_those_of_the_written_rule() {
        let ascending = Digest(std::array::from_fn(|i| i as u8 + 1));
        for (salt, digest, short) in [
            (0x0123_4567_89ab_cdef, ascending, 0x2086_78ae_ff5b_af00),
            (
                0x0123_4567_89ab_cdef,
                Digest([255; 32]),
                0x1f58_5fb3_4a3d_91eb_u64,
            ),
            (0, Digest::ZERO, 0xb125_5ace_b012_9186),
        ] {
            let keys = Keys::new(salt);
            for len in 4..=8 {
                let shortener = Shortener::new(keys, len);
                let mut column = vec![9];
                shortener.append(&digest, &mut column);
                assert_eq!(column[1..], short.to_be_bytes()[..len], "{len}");
                assert!(shortener.matches(&digest, &column[1..]));
                column[len] ^= 1;
                assert!(!shortener.matches(&digest, &column[1..]));
            }
            let full = Shortener::new(keys, FULL_DIGEST_LEN);
            let mut column = Vec::new();
            full.append(&digest, &mut column);
            assert_eq!(column, digest.0);
        }
    }

    /// What the bound on collisions says, on pairs as alike as can be: over
    /// the salts, one in 2^16 agrees in the first two bytes.
    #[test]
    fn alike_digests_agree_under_as_few_salts_as_others() {
        let base = Digest([0; 32]);
        let alike = (0..256).map(|bit| {
            let mut other = base;
            other.0[bit / 8] ^= 1 << (bit % 8);
            other
        });
        let alike: Vec<Digest> = alike.collect();
        let mut agree = 0;
        for salt in 0..2048 {
            let keys = Keys::new(salt);
            let first = keys.hash(&base) >> 48;
            agree += alike.iter().filter(|d| keys.hash(d) >> 48 == first).count();
        }
        // 2^19 pairs: 8 on average
        assert!((1..30).contains(&agree), "{agree}");
    }

    #[test]
    fn digests_have_four_to_eight_bytes_or_all() {
        let allowed: Vec<usize> = (0..64).filter(|n| is_digest_len(*n)).collect();
        assert_eq!(allowed, [4, 5, 6, 7, 8, 32]);
    }
}
