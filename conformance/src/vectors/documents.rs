//! Documents: the keys of fields, and what a reader shows.

use super::form::{self, Hex, Plain, plain};
use super::{Case, Kind};
use crate::oracle::{self, Record};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A name, or a view.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Documents {
    /// The key of a field.
    Key {
        collection: String,
        id: String,
        field: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<Hex>,
    },
    /// The documents of a collection, and their fields.
    View {
        collection: String,
        records: Vec<Plain>,
        documents: BTreeMap<Hex, BTreeMap<Hex, Hex>>,
    },
}

impl Kind for Documents {
    const NAME: &'static str = "documents";
    const ABOUT: &'static str = "Keys of documents and fields, and what a reader shows.";

    fn cases() -> Vec<Case<Documents>> {
        let long = "x".repeat(504);
        let names = [
            ("the existence record", "todos", "t1", ""),
            ("a field", "todos", "t1", "title"),
            ("names beyond ASCII", "Städte", "zürich", "größe"),
            ("an id that looks like a path", "files", "a/b.c", "size"),
            ("no collection", "", "t1", "title"),
            ("no id", "todos", "", "title"),
            ("a zero in the collection", "to\0dos", "t1", "title"),
            ("a zero in the id", "todos", "t\u{0}1", "title"),
            ("a zero in the field's name", "todos", "t1", "ti\0tle"),
            ("a key of 513 bytes", "todos", "t1", &long),
        ];
        let names = names.map(|(name, collection, id, field)| {
            let of = Documents::Key {
                collection: collection.to_owned(),
                id: id.to_owned(),
                field: field.to_owned(),
                key: None,
            };
            Case::new(format!("key: {name}"), of)
        });
        let views = views().into_iter().map(|(name, records)| {
            let of = Documents::View {
                collection: "todos".to_owned(),
                records: plain(&records),
                documents: BTreeMap::new(),
            };
            Case::new(format!("view: {name}"), of)
        });
        names.into_iter().chain(views).collect()
    }

    fn compute(&mut self) -> Result<Option<&'static str>, String> {
        match self {
            Documents::Key {
                collection,
                id,
                field,
                key,
            } => {
                let refused = oracle::name_failure(collection, id, field);
                let (collection, id, field) =
                    (collection.as_bytes(), id.as_bytes(), field.as_bytes());
                *key = refused
                    .is_none()
                    .then(|| Hex(oracle::document_key(collection, id, field)));
                Ok(refused)
            }
            Documents::View {
                collection,
                records,
                documents,
            } => {
                *documents = oracle::documents(&form::records(records), collection.as_bytes())
                    .into_iter()
                    .map(|(id, fields)| {
                        let fields = fields.into_iter().map(|(k, v)| (Hex(k), Hex(v)));
                        (Hex(id), fields.collect())
                    })
                    .collect();
                Ok(None)
            }
        }
    }
}

/// A record of a field of the document `todos`/`t1`.
fn field(name: &[u8], time: u64, replica: u64, value: &str) -> Record {
    let key = oracle::document_key(b"todos", b"t1", name);
    Record::put(key, time, replica, value)
}

fn removed(name: &[u8], time: u64) -> Record {
    Record::tombstone(oracle::document_key(b"todos", b"t1", name), time, 1)
}

fn views() -> Vec<(&'static str, Vec<Record>)> {
    let exists = |time: u64| field(b"", time, 1, "");
    let elsewhere = |collection: &[u8], id: &[u8], name: &[u8], time: u64, value: &str| {
        Record::put(oracle::document_key(collection, id, name), time, 1, value)
    };
    let bare = |key: &[u8]| Record::put(key, 5, 1, "v");
    vec![
        (
            "two fields",
            vec![
                exists(5),
                field(b"title", 6, 1, "\"Milk\""),
                field(b"done", 7, 1, "false"),
            ],
        ),
        (
            "no existence record",
            vec![field(b"title", 6, 1, "\"Milk\"")],
        ),
        (
            "deleted, then a late patch",
            vec![removed(b"", 9), field(b"title", 10, 1, "\"late\"")],
        ),
        (
            "created again: old fields do not show",
            vec![exists(9), field(b"title", 8, 1, "\"old\"")],
        ),
        (
            "a field of the same version shows",
            vec![field(b"", 9, 4, ""), field(b"title", 9, 4, "\"same\"")],
        ),
        (
            "a field of the same time and a lower replica does not",
            vec![field(b"", 9, 4, ""), field(b"title", 9, 3, "\"low\"")],
        ),
        (
            "the existence record's value does not matter",
            vec![field(b"", 5, 1, "odd"), field(b"title", 6, 1, "\"Milk\"")],
        ),
        (
            "keys that are no UTF-8",
            vec![
                elsewhere(b"todos", b"\xff", b"", 5, ""),
                exists(5),
                field(b"\xff", 6, 1, "1"),
            ],
        ),
        ("a removed field", vec![exists(5), removed(b"title", 6)]),
        (
            "an id that extends another",
            vec![
                exists(5),
                elsewhere(b"todos", b"t10", b"", 5, ""),
                elsewhere(b"todos", b"t10", b"x", 6, "1"),
            ],
        ),
        (
            "keys that are no documents",
            vec![bare(b"todos"), bare(b"todos\0"), bare(b"todos\0\0f")],
        ),
        (
            "another collection",
            vec![
                elsewhere(b"todo", b"t1", b"", 5, ""),
                elsewhere(b"todos2", b"t1", b"", 5, ""),
            ],
        ),
        (
            "a field name with a zero byte",
            vec![exists(5), field(b"a\0b", 6, 1, "1")],
        ),
    ]
}
