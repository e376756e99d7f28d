//! The columns of Reconcile, one entry at a time, and what a replica asks and
//! learns with them. The naive side of a session: correct, not lean.

use super::fingerprint::{fingerprint, visible};
use super::record::{Record, contains};
use crate::schema::v1;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What is said of a part of the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing.
    Skip,
    /// The fingerprint.
    Fingerprint,
    /// Every item.
    Items,
}

/// A part and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where.
    pub range: v1::Range,
    /// What.
    pub ask: Ask,
}

/// A part of a request and the shorts that are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The part.
    pub part: Part,
    /// Of its fingerprint, or of each of its items.
    pub shorts: Vec<Vec<u8>>,
}

/// The answer to an asked part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Equal.
    Equal,
    /// Differs; the server's shorts of finer parts.
    Split(Vec<(v1::Range, Vec<u8>)>),
    /// `records` holds all that is missing here.
    Resolved,
    /// Nothing: the answer ended before it.
    Unanswered,
}

/// An answer, taken apart.
#[derive(Clone, Debug)]
pub struct Taken {
    /// One for each asked part.
    pub told: Vec<Told>,
    /// Of the items of all resolved parts of kind `Items`: whether the server
    /// lacks them.
    pub lacking: Vec<bool>,
}

/// The short of a digest or fingerprint: itself, or the first bytes of a sum of
/// products with keys that the salt gives.
pub fn short(salt: u64, digest: &[u8; 32], length: usize) -> Vec<u8> {
    if length == 32 {
        return digest.to_vec();
    }
    let mut stream = Vec::new();
    for i in 0..3u8 {
        let stem = [b"gosync.v1.shorts".as_slice(), &salt.to_be_bytes(), &[i]];
        stream.extend(Sha256::digest(stem.concat()));
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0u128, |n, b| n << 8 | u128::from(*b));
    let mut keys = stream.chunks(16).map(number);
    let first = keys.next().unwrap_or_default();
    let sum = keys.zip(digest.chunks(8)).fold(first, |sum, (key, word)| {
        sum.wrapping_add(key.wrapping_mul(number(word)))
    });
    sum.to_be_bytes()[..length.min(8)].to_vec()
}

/// A varint in its shortest form.
pub fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n > 127 {
        out.push(n as u8 & 127 | 128);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for i in 0..10 {
        let (byte, rest) = bytes
            .split_first()
            .ok_or_else(|| "a column ends within a varint".to_owned())?;
        *bytes = rest;
        if i == 9 && *byte > 1 {
            return Err("a varint is over 64 bits".into());
        }
        value |= u64::from(byte & 127) << (7 * i);
        if byte & 128 == 0 {
            return if *byte == 0 && i > 0 {
                Err("a varint is not in its shortest form".into())
            } else {
                Ok(value)
            };
        }
    }
    Err("a varint is too long".into())
}

/// A bound, coded against the lower one.
pub fn bound(lower: &[u8], upper: &[u8], out: &mut Vec<u8>) {
    let shared = lower.iter().zip(upper).take_while(|(a, b)| a == b).count();
    let (drop, add) = (lower.len() - shared, upper.len() - shared);
    out.push((drop.min(15) * 16 + add.min(15)) as u8);
    for n in [drop, add] {
        if n >= 15 {
            varint(n as u64 - 15, out);
        }
    }
    out.extend(&upper[shared..]);
}

fn take_bound(lower: &[u8], bytes: &mut &[u8]) -> Result<Vec<u8>, String> {
    let (head, rest) = bytes
        .split_first()
        .ok_or_else(|| "a bound is missing".to_owned())?;
    *bytes = rest;
    let mut counts = [usize::from(head >> 4), usize::from(head & 15)];
    for count in &mut counts {
        if *count == 15 {
            *count = count.saturating_add(take_varint(bytes)? as usize);
        }
    }
    let [drop, add] = counts;
    if drop > lower.len() || add > bytes.len() {
        return Err("a bound drops or adds more than there is".into());
    }
    let mut upper = lower[..lower.len() - drop].to_vec();
    upper.extend(&bytes[..add]);
    *bytes = &bytes[add..];
    if upper.as_slice() <= lower || upper.len() > 513 {
        return Err("a bound is not above the lower one, or too long".into());
    }
    Ok(upper)
}

/// Counts in turns what the server has and what it lacks (RECON-020).
pub fn lacking(lacks: &[bool]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    let mut kind = false;
    while lacks[at..].contains(&true) {
        let n = lacks[at..].iter().take_while(|l| **l == kind).count();
        varint(n as u64, &mut out);
        at += n;
        kind = !kind;
    }
    out
}

/// The records of a range that fingerprints cover.
pub fn covered<'a>(
    records: &'a BTreeMap<Vec<u8>, Record>,
    range: &v1::Range,
    horizon: u64,
) -> Vec<&'a Record> {
    // a thousand parts of ten thousand records are too many to look at all each time
    records
        .range(range.start.clone()..)
        .map(|(_, record)| record)
        .take_while(|r| contains(range, &r.key))
        .filter(|r| visible(r, horizon))
        .collect()
}

/// Fills the columns of a request. The parts must tile the key space.
pub fn ask(
    request: &mut v1::ReconcileRequest,
    parts: &[Part],
    records: &BTreeMap<Vec<u8>, Record>,
) {
    let length = match request.digest_len {
        0 => 5,
        n => n as usize,
    };
    request.parts.clear();
    request.bounds.clear();
    request.digests.clear();
    for part in parts {
        let inside = covered(records, &part.range, request.horizon);
        match part.ask {
            Ask::Skip => varint(4, &mut request.parts),
            Ask::Fingerprint => {
                varint(5, &mut request.parts);
                let short = short(request.salt, &fingerprint(&inside), length);
                request.digests.extend(short);
            }
            Ask::Items => {
                varint(inside.len() as u64 * 4 + 2, &mut request.parts);
                for record in inside {
                    let short = short(request.salt, &record.digest(), length);
                    request.digests.extend(short);
                }
            }
        }
        if let Some(end) = &part.range.end {
            bound(&part.range.start, end, &mut request.bounds);
        }
    }
}

/// Takes a request's columns apart: each part with the shorts that are told of
/// it. The server's side of [`ask`].
///
/// # Errors
/// What is malformed about them (RECON-002, -003, -008).
pub fn asked(request: &v1::ReconcileRequest) -> Result<Vec<Asked>, String> {
    let length = match request.digest_len {
        0 => 5,
        n => n as usize,
    };
    let mut kinds = Vec::new();
    let mut column = request.parts.as_slice();
    while !column.is_empty() {
        let entry = take_varint(&mut column)?;
        let (n, kind) = ((entry >> 2) as usize, entry & 3);
        // each part but the last takes two bytes of `bounds`, each item some of `digests`
        match kind {
            _ if n > request.bounds.len() + request.digests.len() + 1 => {
                return Err("more parts than columns".into());
            }
            0 | 1 if n == 0 => return Err("a run of no parts".into()),
            // many runs may not add up to more than one of them may be
            0 | 1 if kinds.len() + n > request.bounds.len() + 1 => {
                return Err("more parts than bounds".into());
            }
            0 => kinds.extend(std::iter::repeat_n((Ask::Skip, 0), n)),
            1 => kinds.extend(std::iter::repeat_n((Ask::Fingerprint, 1), n)),
            2 => kinds.push((Ask::Items, n)),
            _ => return Err("a part of kind 3".into()),
        }
    }
    let mut bounds = request.bounds.as_slice();
    let mut digests = request.digests.as_slice();
    let mut parts = Vec::new();
    let mut start = Vec::new();
    let count = kinds.len();
    for (at, (ask, n)) in kinds.into_iter().enumerate() {
        let end = if at + 1 == count {
            None
        } else {
            Some(take_bound(&start, &mut bounds)?)
        };
        let (shorts, rest) = digests
            .split_at_checked(n * length)
            .ok_or_else(|| "shorts are missing".to_owned())?;
        digests = rest;
        let range = v1::Range {
            start: start.clone(),
            end: end.clone(),
        };
        let shorts = shorts.chunks(length).map(<[u8]>::to_vec).collect();
        let part = Part { range, ask };
        parts.push(Asked { part, shorts });
        start = end.unwrap_or_default();
    }
    if parts.is_empty() || !bounds.is_empty() || !digests.is_empty() {
        return Err("no part at all, or entries left over".into());
    }
    Ok(parts)
}

/// Takes an answer apart.
///
/// # Errors
/// What is wrong with it.
pub fn take(
    request: &v1::ReconcileRequest,
    parts: &[Part],
    items: usize,
    answer: &v1::ReconcileResponse,
) -> Result<Taken, String> {
    let length = match request.digest_len {
        0 => 5,
        n => n as usize,
    };
    let mut column = answer.parts.as_slice();
    let mut bounds = answer.bounds.as_slice();
    let mut digests = answer.digests.as_slice();
    let mut told = Vec::new();
    let (mut run, mut kind) = (0u64, 0u64);
    for part in parts.iter().filter(|p| p.ask != Ask::Skip) {
        let beyond = answer
            .resume_at
            .as_ref()
            .is_some_and(|at| part.range.start >= *at);
        if beyond {
            told.push(Told::Unanswered);
            continue;
        }
        if run == 0 {
            let entry = take_varint(&mut column)?;
            (run, kind) = (entry >> 2, entry & 3);
            if run == 0 {
                return Err("an answer to no part".into());
            }
        }
        match (kind, part.ask) {
            (0, Ask::Fingerprint) => {
                run -= 1;
                told.push(Told::Equal);
            }
            (2, _) => {
                run -= 1;
                told.push(Told::Resolved);
            }
            (1, Ask::Fingerprint) => {
                let mut finer = Vec::new();
                let mut start = part.range.start.clone();
                for i in 0..run {
                    let end = if i + 1 == run {
                        part.range.end.clone()
                    } else {
                        let end = take_bound(&start, &mut bounds)?;
                        if part.range.end.as_ref().is_some_and(|e| end >= *e) {
                            return Err("an inner bound lies outside its part".into());
                        }
                        Some(end)
                    };
                    let (digest, rest) = digests
                        .split_at_checked(length)
                        .ok_or_else(|| "a split has too few fingerprints".to_owned())?;
                    digests = rest;
                    let range = v1::Range {
                        start: start.clone(),
                        end: end.clone(),
                    };
                    finer.push((range, digest.to_vec()));
                    start = end.unwrap_or_default();
                }
                run = 0;
                told.push(Told::Split(finer));
            }
            _ => {
                return Err(format!(
                    "answer {kind} to a part that was asked for {:?}",
                    part.ask
                ));
            }
        }
    }
    if run != 0 || !column.is_empty() || !bounds.is_empty() || !digests.is_empty() {
        return Err("a column holds more than the answers need".into());
    }
    let mut lacking = Vec::new();
    let mut runs = answer.lacking.as_slice();
    let mut lacks = false;
    while !runs.is_empty() {
        let n = take_varint(&mut runs)? as usize;
        if n > items - lacking.len() {
            return Err("lacking counts more items than were told".into());
        }
        lacking.extend(std::iter::repeat_n(lacks, n));
        lacks = !lacks;
    }
    lacking.resize(items, false);
    Ok(Taken { told, lacking })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bound_comes_back(a in prop::collection::vec(any::<u8>(), 0..40), b in prop::collection::vec(any::<u8>(), 1..40)) {
            prop_assume!(a < b);
            let mut coded = Vec::new();
            bound(&a, &b, &mut coded);
            let mut rest = coded.as_slice();
            prop_assert_eq!(take_bound(&a, &mut rest), Ok(b));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn a_varint_comes_back(n in any::<u64>()) {
            let mut coded = Vec::new();
            varint(n, &mut coded);
            prop_assert_eq!(take_varint(&mut coded.as_slice()), Ok(n));
        }
    }

    #[test]
    fn a_varint_that_is_not_in_its_shortest_form_is_refused() {
        assert!(take_varint(&mut [0x80, 0].as_slice()).is_err());
    }

    /// Each run was bounded, their sum was not: a request of a megabyte made the
    /// suite's server take gigabytes.
    #[test]
    fn runs_that_add_up_to_more_parts_than_there_are_bounds_are_refused() {
        let mut run = Vec::new();
        varint(100 << 2, &mut run);
        let request = v1::ReconcileRequest {
            parts: run.repeat(1_000),
            bounds: vec![0x01; 200],
            ..v1::ReconcileRequest::default()
        };
        assert_eq!(asked(&request), Err("more parts than bounds".into()));
    }
}
