//! Documents with fields over keys and values: each field is its own record,
//! so that two people who edit different fields both keep their edits. Knows
//! nothing of the network; a profile that other clients share (spec chapter
//! "Documents").

mod key;

pub use key::{DocumentId, collection_range, is_existence, parse};

use crate::client::{Client, Pending, Row, WriteHandle, rows_of};
use crate::replica::edit::{Edit, WriteError};
use crate::store::{Reads, Store, StoreError, View};
use bytes::Bytes;
use gosync_proto::{Invalid, Key, mutant};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A document as a reader sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct Document {
    /// Its id within the collection.
    pub id: String,
    /// Its fields.
    pub fields: BTreeMap<String, Value>,
    /// Fields whose value is not JSON: kept, not shown.
    pub unreadable: Vec<String>,
    /// Whether some of it waits for the server.
    pub pending: bool,
    /// Whether the server refused some of it.
    pub rejected: bool,
}

/// A change of one document.
#[derive(Clone, PartialEq, Debug)]
pub enum DocumentEdit {
    /// Replaces the document, or makes it.
    Put(DocumentId, BTreeMap<String, Value>),
    /// Changes some fields of a document that is there: sets these, removes
    /// those.
    Patch(DocumentId, BTreeMap<String, Value>, Vec<String>),
    /// Deletes the document.
    Delete(DocumentId),
}

impl DocumentEdit {
    fn document(&self) -> &DocumentId {
        match self {
            DocumentEdit::Put(d, _) | DocumentEdit::Patch(d, ..) | DocumentEdit::Delete(d) => d,
        }
    }
}

/// Why documents were not written or read.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum DocumentError {
    /// A name cannot be part of a key.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Only a document that is there can be patched.
    #[error("there is no document {id:?} in {collection:?} to change; put it first")]
    NoDocument {
        /// Where it was looked for.
        collection: String,
        /// What was looked for.
        id: String,
    },
    /// The write was not taken.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The documents of a client.
#[derive(Debug)]
pub struct Documents<S> {
    client: Client<S>,
}

impl<S> Clone for Documents<S> {
    fn clone(&self) -> Self {
        Documents {
            client: self.client.clone(),
        }
    }
}

impl<S: Store> Documents<S> {
    /// Over a client. Other keys of its space are left alone.
    pub fn new(client: Client<S>) -> Documents<S> {
        Documents { client }
    }

    /// Several changes that become visible, durable and pushed together.
    /// Later ones see what earlier ones did.
    ///
    /// # Errors
    /// [`DocumentError`]; nothing was written.
    pub async fn write(&self, edits: Vec<DocumentEdit>) -> Result<WriteHandle, DocumentError> {
        let documents: BTreeSet<&DocumentId> = edits.iter().map(DocumentEdit::document).collect();
        let ranges = documents
            .into_iter()
            .map(DocumentId::range)
            .collect::<Result<_, _>>()?;
        let reads = Reads {
            ranges,
            ..Reads::default()
        };
        self.client
            .update(reads, move |view| record_edits(view, edits))
            .await
    }

    /// Replaces a document, or makes it.
    ///
    /// # Errors
    /// [`DocumentError`]; nothing was written.
    pub async fn put(
        &self,
        document: DocumentId,
        fields: BTreeMap<String, Value>,
    ) -> Result<WriteHandle, DocumentError> {
        self.write(vec![DocumentEdit::Put(document, fields)]).await
    }

    /// Sets some fields of a document that is there.
    ///
    /// # Errors
    /// [`DocumentError`]; nothing was written.
    pub async fn patch(
        &self,
        document: DocumentId,
        fields: BTreeMap<String, Value>,
    ) -> Result<WriteHandle, DocumentError> {
        self.write(vec![DocumentEdit::Patch(document, fields, Vec::new())])
            .await
    }

    /// Deletes a document; one that is not there is no error.
    ///
    /// # Errors
    /// [`DocumentError`]; nothing was written.
    pub async fn delete(&self, document: DocumentId) -> Result<WriteHandle, DocumentError> {
        self.write(vec![DocumentEdit::Delete(document)]).await
    }

    /// A document; `None` when there is none.
    ///
    /// # Errors
    /// The store failed.
    pub async fn get(&self, document: &DocumentId) -> Result<Option<Document>, DocumentError> {
        let rows = self.client.list_all(&document.range()?).await?;
        Ok(assemble(&rows).pop())
    }

    /// The documents of a collection whose ids begin with `id_prefix`, by id.
    ///
    /// # Errors
    /// [`DocumentError::Invalid`] for a bad name, or the store failed.
    pub async fn list(
        &self,
        collection: &str,
        id_prefix: &str,
    ) -> Result<Vec<Document>, DocumentError> {
        let range = collection_range(collection, id_prefix)?;
        let rows = self.client.list_all(&range).await?;
        Ok(assemble(&rows))
    }
}

/// Documents out of rows in key order. A document shows when its existence
/// record does, and a field when it is not older than that.
pub fn assemble(rows: &[Row]) -> Vec<Document> {
    let mut documents: Vec<Document> = Vec::new();
    let mut current: Option<(DocumentId, &Row)> = None;
    for row in rows {
        let Some((document, field)) = parse(&row.key) else {
            continue;
        };
        if mutant!(ExistenceValueRead) && field.is_empty() && !row.value.is_empty() {
            continue;
        }
        let known = current.as_ref().is_some_and(|(d, _)| *d == document);
        if field.is_empty() || (mutant!(LateFieldRevives) && !known) {
            // the shortest key of the document comes first
            documents.push(Document {
                id: document.id().to_owned(),
                fields: BTreeMap::new(),
                unreadable: Vec::new(),
                pending: is_pending(row),
                rejected: is_rejected(row),
            });
            current = Some((document, row));
            continue;
        }
        let shown = current.as_ref().is_some_and(|(d, existence)| {
            let former = row.version < existence.version && !mutant!(OldFieldsShown);
            *d == document && !former
        });
        let Some(open) = documents.last_mut().filter(|_| shown) else {
            continue;
        };
        match serde_json::from_slice(&row.value) {
            Ok(value) => {
                open.fields.insert(field.to_owned(), value);
            }
            Err(_) if mutant!(UnreadableUntold) => {}
            Err(_) => open.unreadable.push(field.to_owned()),
        }
        open.pending |= is_pending(row);
        open.rejected |= is_rejected(row);
    }
    documents
}

fn is_pending(row: &Row) -> bool {
    row.pending == Pending::Waiting
}

fn is_rejected(row: &Row) -> bool {
    matches!(row.pending, Pending::Rejected { .. })
}

/// What is there while a batch is worked off.
#[derive(Default)]
struct State {
    shown: bool,
    /// Fields that hold a value, shown or not.
    puts: BTreeSet<Key>,
}

fn record_edits(view: &View, edits: Vec<DocumentEdit>) -> Result<Vec<Edit>, DocumentError> {
    let mut states: BTreeMap<DocumentId, State> = BTreeMap::new();
    let (rows, _) = rows_of(
        view.clean.values(),
        view.quarantine.values(),
        view.writes.values(),
    );
    for row in rows {
        if let Some((document, field)) = parse(&row.key) {
            let state = states.entry(document).or_default();
            if field.is_empty() {
                state.shown = true;
            } else {
                state.puts.insert(row.key.clone());
            }
        }
    }
    let mut out = Vec::new();
    for edit in edits {
        let state = states.entry(edit.document().clone()).or_default();
        match edit {
            DocumentEdit::Put(document, fields) => {
                let existence = existence_put(&document)?;
                state.shown = true;
                if mutant!(ExistenceLast) {
                    set_fields(&document, fields, state, &mut out)?;
                    out.push(existence);
                    continue;
                }
                // first, so that the fields are newer
                out.push(existence);
                set_fields(&document, fields, state, &mut out)?;
            }
            DocumentEdit::Patch(document, fields, removed) => {
                if !state.shown && !mutant!(PatchRevives) {
                    return Err(DocumentError::NoDocument {
                        collection: document.collection().to_owned(),
                        id: document.id().to_owned(),
                    });
                }
                if mutant!(PatchWritesExistence) {
                    out.push(existence_put(&document)?);
                }
                set_fields(&document, fields, state, &mut out)?;
                for field in removed {
                    let key = document.field(&field)?;
                    if mutant!(RemovedIsNull) {
                        out.push(Edit::Put(key, encode(&Value::Null)));
                        continue;
                    }
                    state.puts.remove(&key);
                    out.push(Edit::Delete(key));
                }
            }
            DocumentEdit::Delete(document) => {
                if state.shown || !state.puts.is_empty() {
                    if !mutant!(DeleteFieldsOnly) {
                        out.push(Edit::Delete(document.existence()?));
                    }
                    state.shown = false;
                    let puts = std::mem::take(&mut state.puts).into_iter();
                    if !mutant!(DeleteHidesOnly) {
                        out.extend(puts.map(Edit::Delete));
                    }
                }
            }
        }
    }
    Ok(out)
}

fn existence_put(document: &DocumentId) -> Result<Edit, Invalid> {
    let value = match mutant!(ExistenceHoldsValue) {
        true => Bytes::from_static(b"{}"),
        false => Bytes::new(),
    };
    Ok(Edit::Put(document.existence()?, value))
}

fn set_fields(
    document: &DocumentId,
    fields: BTreeMap<String, Value>,
    state: &mut State,
    out: &mut Vec<Edit>,
) -> Result<(), DocumentError> {
    for (name, value) in fields {
        let key = document.field(&name)?;
        state.puts.insert(key.clone());
        out.push(Edit::Put(key, encode(&value)));
    }
    Ok(())
}

/// JSON without white space, object members in the order of their names.
fn encode(value: &Value) -> Bytes {
    fn ordered(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let members: BTreeMap<_, _> = members.iter().collect();
                let members = members.into_iter().map(|(k, v)| (k.clone(), ordered(v)));
                Value::Object(members.collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(ordered).collect()),
            other => other.clone(),
        }
    }
    match value {
        Value::String(text) if mutant!(TextUnquoted) => text.clone().into(),
        value if mutant!(JsonSpaced) => format!("{:#}", ordered(value)).into(),
        value => ordered(value).to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::edit::{self, Author};
    use crate::store::{MemoryStore, Page};
    use gosync_proto::{KeyRange, ReplicaId};
    use serde_json::json;

    fn todo(id: &str) -> DocumentId {
        DocumentId::new("todos", id).unwrap()
    }

    fn fields(value: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    /// Writes through the store as a client does.
    async fn write(
        store: &MemoryStore,
        now_ms: u64,
        edits: Vec<DocumentEdit>,
    ) -> Result<(), DocumentError> {
        let reads = Reads {
            ranges: vec![KeyRange::all()],
            ..Reads::default()
        };
        let author = Author {
            replica: ReplicaId(1),
            now_ms,
        };
        let decide = move |view: &View| match record_edits(view, edits) {
            Err(e) => (Default::default(), Err(e)),
            Ok(edits) => {
                let (changes, written) = edit::decide(view, author, edits);
                (changes, written.map(|_| ()).map_err(DocumentError::from))
            }
        };
        store.transact(reads, decide).await.unwrap()
    }

    async fn all(store: &MemoryStore) -> Vec<Document> {
        let page: Page = store.page(&KeyRange::all(), None, 1000).await.unwrap();
        assemble(&crate::client::rows(&page).0)
    }

    #[tokio::test]
    async fn a_put_replaces_every_field_and_a_patch_only_its_own() {
        let s = MemoryStore::new();
        let put = |v| DocumentEdit::Put(todo("t1"), fields(v));
        write(&s, 1, vec![put(json!({"title": "Milk", "done": false}))])
            .await
            .unwrap();
        let patch = DocumentEdit::Patch(todo("t1"), fields(json!({"done": true})), vec![]);
        write(&s, 2, vec![patch]).await.unwrap();
        let [t1] = &all(&s).await[..] else { panic!() };
        assert_eq!(t1.fields, fields(json!({"title": "Milk", "done": true})));
        assert!(t1.pending);
        write(&s, 3, vec![put(json!({"title": "Oat"}))])
            .await
            .unwrap();
        assert_eq!(all(&s).await[0].fields, fields(json!({"title": "Oat"})));
    }

    #[tokio::test]
    async fn a_deleted_document_is_not_revived_by_a_patch_and_comes_back_without_old_fields() {
        let s = MemoryStore::new();
        let put = |v| DocumentEdit::Put(todo("t1"), fields(v));
        write(&s, 1, vec![put(json!({"a": 1, "b": 2}))])
            .await
            .unwrap();
        write(&s, 2, vec![DocumentEdit::Delete(todo("t1"))])
            .await
            .unwrap();
        assert_eq!(all(&s).await, []);
        let patch = DocumentEdit::Patch(todo("t1"), fields(json!({"a": 3})), vec![]);
        assert!(matches!(
            write(&s, 3, vec![patch]).await,
            Err(DocumentError::NoDocument { .. })
        ));
        write(&s, 4, vec![put(json!({"b": 5}))]).await.unwrap();
        assert_eq!(all(&s).await[0].fields, fields(json!({"b": 5})));
    }

    #[tokio::test]
    async fn one_batch_sees_its_own_changes() {
        let s = MemoryStore::new();
        let edits = vec![
            DocumentEdit::Put(todo("t1"), fields(json!({"a": 1}))),
            DocumentEdit::Patch(todo("t1"), fields(json!({"b": 2})), vec!["a".into()]),
            DocumentEdit::Put(todo("t2"), fields(json!({}))),
            DocumentEdit::Delete(todo("t2")),
        ];
        write(&s, 1, edits).await.unwrap();
        let [t1] = &all(&s).await[..] else { panic!() };
        assert_eq!(t1.fields, fields(json!({"b": 2})));
    }

    #[tokio::test]
    async fn a_value_that_is_not_json_is_kept_and_told() {
        let s = MemoryStore::new();
        write(
            &s,
            1,
            vec![DocumentEdit::Put(todo("t1"), fields(json!({"a": 1})))],
        )
        .await
        .unwrap();
        let key = todo("t1").field("b").unwrap();
        let author = Author {
            replica: ReplicaId(1),
            now_ms: 2,
        };
        s.transact(Reads::keys([key.clone()]), move |view| {
            edit::decide(view, author, vec![Edit::Put(key, "{".into())])
        })
        .await
        .unwrap()
        .unwrap();
        assert_eq!(all(&s).await[0].unreadable, ["b"]);
    }

    #[test]
    fn values_are_encoded_with_sorted_members_and_without_white_space() {
        let value = json!({"b": [1, {"d": null, "c": "é"}], "a": 1.5});
        assert_eq!(encode(&value), r#"{"a":1.5,"b":[1,{"c":"é","d":null}]}"#);
    }

    /// Read with less than full care, one number in ten changes in its last digit.
    #[test]
    fn numbers_are_read_back_exactly() {
        let mut state = 1u64;
        for _ in 0..10_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let fraction = (state >> 11) as f64 / (1u64 << 53) as f64;
            let any = Some(f64::from_bits(state)).filter(|n| n.is_finite());
            for number in [fraction, any.unwrap_or(-0.0)] {
                let read: Value = serde_json::from_slice(&encode(&json!(number))).unwrap();
                assert_eq!(read.as_f64().map(f64::to_bits), Some(number.to_bits()));
            }
        }
    }
}
