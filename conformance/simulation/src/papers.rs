//! Documents as a naive reader sees them, out of records: to be compared with
//! what the client shows. Shares no code with it.

use gosync_client::client::rows;
use gosync_client::documents::assemble;
use gosync_client::store::Page;
use gosync_proto::{Content, Key, Record};
use std::collections::BTreeMap;

/// Each document's fields; those that are no JSON, which nobody can read, empty.
pub(crate) type Papers = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// `doc 00 id 00 field`, taken apart.
fn parts(key: &Key) -> Option<(String, String)> {
    let text = std::str::from_utf8(key.as_bytes()).ok()?;
    match text.split('\0').collect::<Vec<_>>()[..] {
        ["doc", id, field] => Some((id.to_owned(), field.to_owned())),
        _ => None,
    }
}

/// A document is there when its existence record is, and a field counts when it
/// is not older than that.
pub(crate) fn naive(records: &BTreeMap<Key, Record>) -> Papers {
    let puts = records.values().filter_map(|r| match &r.content {
        Content::Put(value) => Some((parts(&r.key)?, r.version, value)),
        Content::Tombstone => None,
    });
    let mut papers = Papers::new();
    let mut since = BTreeMap::new();
    // in the order of keys: the existence record comes first
    for ((id, field), version, value) in puts {
        if field.is_empty() {
            since.insert(id.clone(), version);
            papers.insert(id, BTreeMap::new());
        } else if since.get(&id).is_some_and(|since| version >= *since) {
            let readable = serde_json::from_slice::<serde_json::Value>(value).is_ok();
            let value = if readable { value.to_vec() } else { Vec::new() };
            papers.entry(id).or_default().insert(field, value);
        }
    }
    papers
}

/// What the client makes of what it holds.
pub(crate) fn shown(page: &Page) -> Papers {
    let (rows, _) = rows(page);
    let documents = assemble(&rows).into_iter();
    let fields = documents.map(|document| {
        let fields = document.fields.into_iter();
        let fields = fields.map(|(name, value)| (name, value.to_string().into_bytes()));
        let unreadable = document
            .unreadable
            .into_iter()
            .map(|name| (name, Vec::new()));
        (document.id, fields.chain(unreadable).collect())
    });
    fields.collect()
}
