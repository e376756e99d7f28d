//! How records lie in IndexedDB: packed into pages of neighbours, since one
//! IndexedDB value per record costs thirty times as much. Knows bytes and
//! records, not IndexedDB.
//!
//! A page is the concatenation of its records in key order. Its key in the
//! object store is the lowest key that belongs to it; it holds every record
//! from there to the next page's key. The first page lies at the lowest key that
//! a record can have, so that no record lies below all pages.

use crate::store::{Quarantined, Stored, Write, WriteId, WriteState};
use bytes::Bytes;
use gosync_proto::history::{Epoch, Point};
use gosync_proto::version::ReplicaId;
use gosync_proto::{Digest, Key, Reason, Record, Time, Version};
use std::collections::BTreeMap;

/// Records of a full page; above it the page is split.
const MAX_RECORDS: usize = 96;
/// Bytes of a full page, unless a single record is larger.
const MAX_BYTES: usize = 64 << 10;
/// Bytes of a record beside its key and value.
const HEADER: usize = 1 + 5 * 8 + 32 + 2 + 4;

/// One page in memory.
#[derive(Debug, Default)]
pub struct Page {
    /// Its records.
    pub records: BTreeMap<Key, Stored>,
    /// Some of it could not be read, and is missing above.
    pub torn: bool,
}

impl Page {
    /// Reads what was written. Bytes that cannot be a record end the page: the
    /// records behind them are missing, and will be healed like any others
    /// that are.
    pub fn decode(bytes: &[u8]) -> Page {
        let mut page = Page::default();
        let bytes = Bytes::copy_from_slice(bytes);
        let mut at = 0;
        while at < bytes.len() {
            let Some((stored, next)) = decode_record(&bytes, at) else {
                page.torn = true;
                break;
            };
            page.records.insert(stored.record.key.clone(), stored);
            at = next;
        }
        page
    }

    /// The page as bytes, in as many parts as it takes; each with its lowest
    /// key. The first part keeps the page's own key, which the caller knows.
    pub fn encode(&self) -> Vec<(Key, Vec<u8>)> {
        let parts = self.records.len().div_ceil(MAX_RECORDS).max(1);
        // Even parts: a page that has just been split has room again.
        let per_part = self.records.len().div_ceil(parts);
        let mut out: Vec<(Key, Vec<u8>)> = Vec::new();
        let mut in_part = 0;
        for (key, stored) in &self.records {
            let size = HEADER + stored.record.size();
            let full = match out.last() {
                None => true,
                Some((_, bytes)) => in_part == per_part || bytes.len() + size > MAX_BYTES,
            };
            if full {
                out.push((key.clone(), Vec::with_capacity(size * per_part.min(16))));
                in_part = 0;
            }
            in_part += 1;
            if let Some((_, bytes)) = out.last_mut() {
                encode_record(stored, bytes);
            }
        }
        out
    }
}

fn encode_record(s: &Stored, out: &mut Vec<u8>) {
    let key = s.record.key.as_bytes();
    let value = s.record.content.value();
    out.push(s.record.content.flags() as u8);
    for number in [
        s.record.version.time.0,
        s.record.version.replica.0,
        s.point.epoch.0,
        s.point.sequence,
        s.era,
    ] {
        out.extend(number.to_be_bytes());
    }
    out.extend(s.digest.0);
    out.extend((key.len() as u16).to_be_bytes());
    out.extend((value.len() as u32).to_be_bytes());
    out.extend(key);
    out.extend(value);
}

fn decode_record(bytes: &Bytes, at: usize) -> Option<(Stored, usize)> {
    let header = bytes.get(at..at + HEADER)?;
    let number = |i: usize| -> Option<u64> {
        let b = header.get(1 + i * 8..9 + i * 8)?;
        Some(u64::from_be_bytes(b.try_into().ok()?))
    };
    let digest = header.get(41..73)?;
    let key_len = u16::from_be_bytes(header.get(73..75)?.try_into().ok()?) as usize;
    let value_len = u32::from_be_bytes(header.get(75..79)?.try_into().ok()?) as usize;
    let key_at = at + HEADER;
    let value_at = key_at + key_len;
    let end = value_at.checked_add(value_len)?;
    let key = Key::new(bytes.get(key_at..value_at)?).ok()?;
    bytes.get(value_at..end)?;
    let stored = Stored::from_parts(
        key,
        Version {
            time: Time(number(0)?),
            replica: ReplicaId(number(1)?),
        },
        header[0] == 1,
        bytes.slice(value_at..end),
        digest,
        Point {
            epoch: Epoch(number(2)?),
            sequence: number(3)?,
        },
        number(4)?,
    );
    Some((stored, end))
}

/// A write as bytes of its own: a record with the fields of a write before it.
pub fn encode_write(w: &Write) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + 32 + w.record.size());
    let (state, reason, detail) = match &w.state {
        WriteState::Waiting => (0, "", ""),
        WriteState::Rejected { reason, detail } => {
            (1, reason.map_or("", Reason::as_str), detail.as_str())
        }
    };
    out.push(state | u8::from(w.in_doubt) << 1 | u8::from(w.batch.is_some()) << 2);
    out.extend(w.id.0.to_be_bytes());
    out.extend(w.batch.map_or(0, |b| b.0).to_be_bytes());
    encode_text(reason, &mut out);
    encode_text(detail, &mut out);
    out.extend(encode_plain(&w.record, w.digest));
    out
}

fn encode_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u32).to_be_bytes());
    out.extend(text.as_bytes());
}

/// The text at `at`, which moves behind it.
fn decode_text(bytes: &[u8], at: &mut usize) -> Option<String> {
    let len = u32::from_be_bytes(bytes.get(*at..*at + 4)?.try_into().ok()?) as usize;
    let found = bytes.get(*at + 4..)?.get(..len)?;
    *at += 4 + len;
    std::str::from_utf8(found).ok().map(str::to_owned)
}

/// The inverse of [`encode_write`]; `None` for anything else.
pub fn decode_write(bytes: &[u8]) -> Option<Write> {
    let flags = *bytes.first()?;
    let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let mut at = 17;
    let (reason, detail) = (decode_text(bytes, &mut at)?, decode_text(bytes, &mut at)?);
    let (record, digest) = decode_plain(bytes.get(at..)?)?;
    Some(Write {
        id: WriteId(number(1)?),
        record,
        digest,
        batch: match flags & 4 {
            0 => None,
            _ => Some(WriteId(number(9)?)),
        },
        state: match flags & 1 {
            0 => WriteState::Waiting,
            _ => WriteState::Rejected {
                reason: Reason::from_name(&reason),
                detail,
            },
        },
        in_doubt: flags & 2 != 0,
    })
}

/// A quarantined record: a record with its reason behind it.
pub fn encode_quarantined(q: &Quarantined) -> Vec<u8> {
    let mut out = encode_plain(&q.record, q.record.digest());
    encode_text(q.reason.map_or("", Reason::as_str), &mut out);
    encode_text(&q.detail, &mut out);
    out
}

/// The inverse of [`encode_quarantined`]; `None` for anything else. In schema 1
/// a record stood alone.
pub fn decode_quarantined(bytes: &[u8]) -> Option<Quarantined> {
    let (stored, mut at) = decode_record(&Bytes::copy_from_slice(bytes), 0)?;
    let record = stored.intact().then_some(stored.record)?;
    let (reason, detail) = match at == bytes.len() {
        true => (String::new(), String::new()),
        false => (decode_text(bytes, &mut at)?, decode_text(bytes, &mut at)?),
    };
    (at == bytes.len()).then_some(Quarantined {
        record,
        reason: Reason::from_name(&reason),
        detail,
    })
}

/// A record and its digest alone.
fn encode_plain(r: &Record, digest: Digest) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + r.size());
    let origin = Point {
        epoch: Epoch(0),
        sequence: 0,
    };
    let stored = Stored {
        record: r.clone(),
        digest,
        point: origin,
        era: 0,
    };
    encode_record(&stored, &mut out);
    out
}

/// The inverse of [`encode_plain`]; `None` for anything else, damaged content
/// included.
fn decode_plain(bytes: &[u8]) -> Option<(Record, Digest)> {
    let bytes = Bytes::copy_from_slice(bytes);
    let (stored, end) = decode_record(&bytes, 0)?;
    (end == bytes.len() && stored.intact()).then_some((stored.record, stored.digest))
}

/// Spoils a stored record's content and leaves its digest, as a failing disk
/// would.
pub fn spoil(stored: &mut Stored) {
    let mut value = stored.record.content.value().to_vec();
    match value.first_mut() {
        Some(byte) => *byte ^= 0xff,
        None => value.push(0xff),
    }
    stored.record.content = gosync_proto::Content::Put(value.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use gosync_proto::Content;
    use proptest::prelude::*;

    fn stored(key: Vec<u8>, value: Option<Vec<u8>>, n: u64) -> Stored {
        let record = Record {
            key: Key::new(key).unwrap(),
            version: Version {
                time: Time(n),
                replica: ReplicaId(n ^ 0xff),
            },
            content: value.map_or(Content::Tombstone, |v| Content::Put(v.into())),
        };
        let point = Point {
            epoch: Epoch(!n),
            sequence: n,
        };
        Stored::new(record, point, n % 7)
    }

    fn any_stored() -> impl Strategy<Value = Stored> {
        let key = prop::collection::vec(any::<u8>(), 1..20);
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..3000));
        (key, value, any::<u64>()).prop_map(|(k, v, n)| stored(k, v, n))
    }

    fn page(records: Vec<Stored>) -> Page {
        let records = records
            .into_iter()
            .map(|s| (s.record.key.clone(), s))
            .collect();
        Page {
            records,
            torn: false,
        }
    }

    proptest! {
        #[test]
        fn parts_hold_all_records_in_order_and_are_not_too_large(records in prop::collection::vec(any_stored(), 0..300)) {
            let page = page(records);
            let mut found = BTreeMap::new();
            let mut last: Option<Key> = None;
            for (first, bytes) in page.encode() {
                let part = Page::decode(&bytes);
                prop_assert!(!part.torn);
                prop_assert!(part.records.len() <= MAX_RECORDS);
                prop_assert!(bytes.len() <= MAX_BYTES || part.records.len() == 1);
                prop_assert_eq!(part.records.first_key_value().map(|(k, _)| k), Some(&first));
                prop_assert!(last.is_none_or(|l| l < first));
                last = part.records.last_key_value().map(|(k, _)| k.clone());
                found.extend(part.records);
            }
            prop_assert_eq!(found, page.records);
        }

        #[test]
        fn no_bytes_make_a_page_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            Page::decode(&bytes);
            decode_write(&bytes);
            decode_quarantined(&bytes);
        }

        #[test]
        fn a_torn_page_keeps_the_records_before_the_tear(records in prop::collection::vec(any_stored(), 1..20), cut in any::<prop::sample::Index>()) {
            let whole = page(records);
            let (_, bytes) = whole.encode().swap_remove(0);
            let torn = Page::decode(&bytes[..cut.index(bytes.len())]);
            for (key, stored) in torn.records {
                prop_assert_eq!(whole.records.get(&key), Some(&stored));
            }
        }

        #[test]
        fn a_write_survives_its_encoding(s in any_stored(), id in any::<u64>(), batch in prop::option::of(any::<u64>()), in_doubt: bool, rejected: bool) {
            let state = if rejected {
                WriteState::Rejected { reason: Some(Reason::QuotaExceeded), detail: "voll, schön".into() }
            } else {
                WriteState::Waiting
            };
            let write = Write { state, in_doubt, ..Write::new(WriteId(id), s.record, batch.map(WriteId)) };
            prop_assert_eq!(decode_write(&encode_write(&write)), Some(write));
        }
    }

    #[test]
    fn a_quarantined_record_survives_its_encoding_and_schema_1_had_no_reason() {
        let told = Quarantined {
            record: stored(b"k".to_vec(), None, 3).record,
            reason: Some(Reason::QuotaExceeded),
            detail: "voll, schön".into(),
        };
        assert_eq!(
            decode_quarantined(&encode_quarantined(&told)),
            Some(told.clone())
        );
        let silent = Quarantined {
            reason: None,
            detail: String::new(),
            ..told.clone()
        };
        assert_eq!(
            decode_quarantined(&encode_plain(&told.record, told.record.digest())),
            Some(silent)
        );
        let mut torn = encode_quarantined(&told);
        torn.pop();
        assert_eq!(decode_quarantined(&torn), None);
    }

    #[test]
    fn a_spoiled_record_is_damaged_and_keeps_its_digest() {
        for value in [None, Some(vec![]), Some(b"v".to_vec())] {
            let good = stored(b"k".to_vec(), value, 3);
            let mut bad = good.clone();
            spoil(&mut bad);
            assert_eq!(bad.digest, good.digest);
            let (_, bytes) = page(vec![bad]).encode().swap_remove(0);
            let read = Page::decode(&bytes).records.pop_first().unwrap().1;
            assert!(good.intact() && !read.intact());
        }
    }

    #[test]
    fn a_write_whose_bytes_were_changed_is_not_taken_for_another() {
        let record = stored(b"k".to_vec(), Some(b"value".to_vec()), 3).record;
        let write = Write::new(WriteId(1), record, None);
        let mut bytes = encode_write(&write);
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(decode_write(&bytes), None);
    }
}
