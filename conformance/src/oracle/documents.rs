//! The documents profile: fields as records, and what a reader sees.

use super::record::Record;
use std::collections::BTreeMap;

/// The key of a document's field; the empty field is the document's existence.
pub fn document_key(collection: &[u8], id: &[u8], field: &[u8]) -> Vec<u8> {
    let mut key = document_prefix(collection, id);
    key.extend(field);
    key
}

/// What the keys of a document begin with.
pub fn document_prefix(collection: &[u8], id: &[u8]) -> Vec<u8> {
    let mut key = collection.to_vec();
    key.push(0);
    key.extend(id);
    key.push(0);
    key
}

/// Why a replica refuses such names; `None` when it does not (DOC-002 to
/// DOC-004).
pub fn name_failure(collection: &str, id: &str, field: &str) -> Option<&'static str> {
    if [collection, id, field].iter().any(|n| n.contains('\0')) {
        Some("zero_in_name")
    } else if collection.is_empty() || id.is_empty() {
        Some("empty_name")
    } else if document_key(collection.as_bytes(), id.as_bytes(), field.as_bytes()).len() > 512 {
        Some("long_key")
    } else {
        None
    }
}

/// A document as a reader sees it: its fields and their values.
pub type Document = BTreeMap<Vec<u8>, Vec<u8>>;

/// The documents of a collection, by id.
pub fn documents(records: &[Record], collection: &[u8]) -> BTreeMap<Vec<u8>, Document> {
    let mut prefix = collection.to_vec();
    prefix.push(0);
    let parts: Vec<(Vec<u8>, Vec<u8>, &Record)> = records
        .iter()
        .filter_map(|r| {
            let rest = r.key.strip_prefix(prefix.as_slice())?;
            let nul = rest.iter().position(|b| *b == 0)?;
            let text = std::str::from_utf8(&r.key).is_ok();
            (nul > 0 && text).then(|| (rest[..nul].to_vec(), rest[nul + 1..].to_vec(), r))
        })
        .collect();
    let mut found = BTreeMap::new();
    for (id, field, existence) in &parts {
        if !field.is_empty() || existence.is_tombstone() {
            continue;
        }
        let mut document = Document::new();
        for (of, name, record) in &parts {
            let counts = of == id
                && !name.is_empty()
                && !record.is_tombstone()
                && (record.time, record.replica) >= (existence.time, existence.replica);
            if counts {
                document.insert(name.clone(), record.value.clone());
            }
        }
        found.insert(id.clone(), document);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, time: u64, value: &str) -> Record {
        Record::put(document_key(b"todo", b"1", name.as_bytes()), time, 1, value)
    }

    #[test]
    fn a_field_older_than_the_document_does_not_show() {
        let records = [
            field("", 5, ""),
            field("title", 4, "old"),
            field("done", 5, "yes"),
        ];
        let seen = documents(&records, b"todo");
        let document = &seen[b"1".as_slice()];
        assert_eq!(document.keys().collect::<Vec<_>>(), [b"done"]);
    }

    #[test]
    fn a_late_patch_does_not_revive_a_deleted_document() {
        let deleted = Record::tombstone(document_key(b"todo", b"1", b""), 5, 1);
        assert!(documents(&[deleted, field("title", 9, "late")], b"todo").is_empty());
    }
}
