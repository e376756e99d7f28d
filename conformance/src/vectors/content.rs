//! Names which rule of the specification a well-formed message breaks.

use crate::oracle::{self, Record};
use crate::schema::v1;
use prost::Message;
use std::collections::BTreeSet;

/// The class of failure of a request's content; `None` when it is fine.
///
/// # Errors
/// When it cannot be decoded after all, or is of a type without rules.
pub fn failure(kind: &str, bytes: &[u8]) -> Result<Option<&'static str>, String> {
    match kind {
        "gosync.v1.HelloRequest" => {
            let request = v1::HelloRequest::decode(bytes).map_err(|e| e.to_string())?;
            Ok(space(&request.space).or_else(|| held(&request.held)))
        }
        "gosync.v1.PushRequest" => {
            let request = v1::PushRequest::decode(bytes).map_err(|e| e.to_string())?;
            Ok(space(&request.space)
                .or_else(|| held(&request.held))
                .or_else(|| records(&request.records)))
        }
        other => Err(format!("there are no rules for {other} here")),
    }
}

fn space(id: &str) -> Option<&'static str> {
    (!oracle::check_space_id(id)).then_some("space_id")
}

fn held(entries: &[v1::HeldRanges]) -> Option<&'static str> {
    for entry in entries {
        if entry.ranges.is_empty() {
            return Some("no_ranges");
        }
        for range in &entry.ranges {
            if range.start.len() > 513 || range.end.as_ref().is_some_and(|e| e.len() > 513) {
                return Some("long_bound");
            }
            if range.end.as_ref().is_some_and(|e| *e <= range.start) {
                return Some("inverted_range");
            }
        }
        if entry.ranges.windows(2).any(|w| w[1].start < w[0].start) {
            return Some("unsorted_ranges");
        }
    }
    let mut all: Vec<&v1::Range> = entries.iter().flat_map(|e| &e.ranges).collect();
    all.sort_by(|a, b| a.start.cmp(&b.start));
    let overlap = all
        .windows(2)
        .any(|w| w[0].end.as_ref().is_none_or(|e| *e > w[1].start));
    overlap.then_some("overlapping_ranges")
}

fn records(records: &[v1::Record]) -> Option<&'static str> {
    let mut keys = BTreeSet::new();
    for record in records {
        if let Err(defect) = Record::from_wire(record) {
            return Some(defect.name());
        }
        if !keys.insert(&record.key) {
            return Some("duplicate_key");
        }
    }
    None
}
