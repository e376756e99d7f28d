//! Documents over keys and values: what the application's writes come to on
//! the wire, and what it reads of others' records.

use super::{sync_patiently, time};
use crate::client::context::pushed;
use crate::client::documents::{Address, Shown};
use crate::client::{Cx, Outcome, Replica};
use crate::oracle::{Record, compare_versions, document_key};
use crate::peer::Seen;
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use prost::Message;
use serde_json::{Value, json};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "documents/put",
        profile: Profile::Documents,
        needs: &[Need::Documents],
        about: "The application puts a whole document, and later another one in its place.",
        checks: &[
            positive(
                "existence-first",
                &["DOC-013", "DOC-001"],
                "the existence record and the fields are pushed together, with `atomic`, and the fields' versions are above its own",
            ),
            positive("empty", &["DOC-008"], "the existence record has no value"),
            positive(
                "json",
                &["DOC-006"],
                "each field's value is the JSON text of what was put",
            ),
            positive("compact", &["DOC-007"], "without white space"),
            positive(
                "replaced",
                &["DOC-012", "DOC-013"],
                "after the second put, the first one's other fields are not shown",
            ),
        ],
        run: |cx| Box::pin(put(cx)),
    },
    Case {
        name: "documents/patch",
        profile: Profile::Documents,
        needs: &[Need::Documents],
        about: "The application sets one field of a document and removes another; then it tries the same with documents that are not there.",
        checks: &[
            positive(
                "only-these",
                &["DOC-014"],
                "nothing but the records of these two fields is pushed",
            ),
            positive(
                "tombstone",
                &["DOC-016"],
                "the removed field's record is a tombstone",
            ),
            positive("shown", &["DOC-012"], "the document is shown as changed"),
            negative(
                "not-there",
                "shown",
                &["DOC-015"],
                "a document that was deleted, and one that never was, are refused, and nothing is written",
            ),
        ],
        run: |cx| Box::pin(patch(cx)),
    },
    Case {
        name: "documents/delete",
        profile: Profile::Documents,
        needs: &[Need::Documents],
        about: "A document is deleted that holds a field of its former life beside those that are shown.",
        checks: &[
            positive(
                "tombstones",
                &["DOC-017"],
                "tombstones of the existence record and of every field, hidden ones too, are pushed together, with `atomic`",
            ),
            positive("hidden", &["DOC-011"], "the document is not shown"),
        ],
        run: |cx| Box::pin(delete(cx)),
    },
    Case {
        name: "documents/read",
        profile: Profile::Documents,
        needs: &[Need::Documents],
        about: "Records of others: documents in every state of their existence record, and keys that are no document's.",
        checks: &[
            positive(
                "documents",
                &["DOC-011", "DOC-009", "DOC-005"],
                "those are shown whose existence record is a put, whatever its value",
            ),
            positive(
                "fields",
                &["DOC-012"],
                "of their fields, those that are not below it",
            ),
            positive(
                "unreadable",
                &["DOC-010"],
                "a value that is no JSON is shown as unreadable, and its bytes stay",
            ),
        ],
        run: |cx| Box::pin(read(cx)),
    },
    Case {
        name: "documents/names",
        profile: Profile::Documents,
        needs: &[Need::Documents],
        about: "Names at the limits of what a key can hold, and beyond.",
        checks: &[
            positive(
                "longest",
                &["DOC-001", "DOC-004"],
                "a document with a key of 512 bytes is taken",
            ),
            negative(
                "too-long",
                "longest",
                &["DOC-004"],
                "one with a key of 513 bytes is refused, and nothing is written",
            ),
            negative(
                "empty",
                "longest",
                &["DOC-003"],
                "an empty collection, id or field name is refused, and nothing is written",
            ),
            negative(
                "zero",
                "longest",
                &["DOC-002"],
                "U+0000 in any of them is refused, and nothing is written",
            ),
        ],
        run: |cx| Box::pin(names(cx)),
    },
    Case {
        name: "documents/horizon",
        profile: Profile::Documents,
        needs: &[Need::Documents, Need::ClientClock],
        about: "A document is put while the client is away; meanwhile it was deleted and the tombstones compacted, but for one field.",
        checks: &[
            positive(
                "same-version",
                &["DOC-018"],
                "the existence record and all fields are pushed with the horizon as their time",
            ),
            positive("shown", &["DOC-018"], "and the whole document is shown"),
        ],
        run: |cx| Box::pin(horizon(cx)),
    },
];

const TODO: Address<'static> = Address {
    collection: "todos",
    id: "é1",
};

fn key(field: &str) -> Vec<u8> {
    document_key(
        TODO.collection.as_bytes(),
        TODO.id.as_bytes(),
        field.as_bytes(),
    )
}

fn pushes(seen: &[Seen]) -> Vec<v1::PushRequest> {
    let pushes = seen.iter().filter(|s| s.method == "Push");
    pushes
        .filter_map(|s| v1::PushRequest::decode(s.message.as_slice()).ok())
        .collect()
}

/// Whether one atomic Push holds exactly these keys.
fn together(pushes: &[v1::PushRequest], keys: &[Vec<u8>]) -> bool {
    pushes.iter().any(|p| {
        p.atomic
            && p.records.len() == keys.len()
            && keys.iter().all(|k| p.records.iter().any(|r| r.key == *k))
    })
}

/// Records for people.
fn told(records: &[&Record]) -> String {
    let one = |r: &&Record| {
        let what = match r.is_tombstone() {
            true => "tombstone".to_owned(),
            false => format!("{:?}", r.value.escape_ascii().to_string()),
        };
        format!("{} {what} at {:#x}", r.key.escape_ascii(), r.time)
    };
    let lines: Vec<String> = records.iter().map(one).collect();
    lines.join("; ")
}

fn fields(value: Value) -> Option<Shown> {
    let Value::Object(fields) = value else {
        return None;
    };
    Some(Shown {
        fields,
        unreadable: Vec::new(),
    })
}

fn refused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::WriteError(_))
}

/// Whether nothing at all waits for the server.
async fn nothing_pending(replica: &Replica) -> Result<bool, Stop> {
    Ok(replica.contents().await?.pending.is_empty())
}

async fn put(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let document = json!({"title": "Milk", "done": false, "tags": [{"a": 1, "b": null}, "x y"]});
    replica.put_document(TODO, &document).await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let keys = ["", "done", "tags", "title"].map(key);
    let sent: Vec<Record> = pushed(&seen).into_iter().map(|(_, r)| r).collect();
    let all: Vec<&Record> = sent.iter().collect();
    let existence = sent.iter().find(|r| r.key == keys[0]);
    let of_fields: Vec<&Record> = sent.iter().filter(|r| keys[1..].contains(&r.key)).collect();
    let above = existence.is_some_and(|e| {
        let version = |r: &Record| (r.time, r.replica);
        of_fields
            .iter()
            .all(|f| compare_versions(version(f), version(e)).is_gt())
    });
    cx.check(
        "existence-first",
        together(&pushes(&seen), &keys) && above,
        "one atomic Push of the four records, the existence record's version the lowest",
        told(&all),
    );
    cx.check(
        "empty",
        existence.is_some_and(|e| !e.is_tombstone() && e.value.is_empty()),
        "a put with an empty value",
        told(&existence.into_iter().collect::<Vec<_>>()),
    );
    let parsed: serde_json::Map<String, Value> = of_fields
        .iter()
        .filter_map(|r| {
            let name = std::str::from_utf8(&r.key[keys[0].len()..]).ok()?;
            Some((name.to_owned(), serde_json::from_slice(&r.value).ok()?))
        })
        .collect();
    cx.check(
        "json",
        Value::Object(parsed) == document,
        &document,
        told(&of_fields),
    );
    let length = of_fields.iter().map(|r| r.value.len()).sum::<usize>();
    let least = document["title"].to_string().len()
        + document["done"].to_string().len()
        + document["tags"].to_string().len();
    cx.check(
        "compact",
        length == least,
        format!("{least} bytes of JSON"),
        format!("{length}: {}", told(&of_fields)),
    );
    let second = json!({"title": "Oat milk"});
    replica.put_document(TODO, &second).await?;
    sync_patiently(&replica, &cx).await?;
    cx.equal("replaced", fields(second), replica.document(TODO).await?);
    Ok(())
}

async fn patch(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    let document = json!({"title": "Milk", "done": false, "due": "today"});
    replica.put_document(TODO, &document).await?;
    sync_patiently(&replica, &cx).await?;
    let before = cx.seen().await.len();
    let outcome = replica
        .try_patch_document(TODO, &json!({"done": true}), &["due"])
        .await?;
    sync_patiently(&replica, &cx).await?;
    let sent: Vec<Record> = pushed(&cx.seen().await[before..])
        .into_iter()
        .map(|(_, r)| r)
        .collect();
    let all: Vec<&Record> = sent.iter().collect();
    let mut keys: Vec<&[u8]> = sent.iter().map(|r| r.key.as_slice()).collect();
    keys.sort_unstable();
    cx.check(
        "only-these",
        keys == [key("done"), key("due")],
        "a Push of `done` and `due`",
        told(&all),
    );
    let removed = sent.iter().find(|r| r.key == key("due"));
    cx.check(
        "tombstone",
        removed.is_some_and(Record::is_tombstone),
        "a tombstone of `due`",
        told(&all),
    );
    let changed = replica.document(TODO).await?;
    cx.check(
        "shown",
        matches!(outcome, Outcome::Done(_))
            && changed == fields(json!({"title": "Milk", "done": true})),
        "done, and `done` is true and `due` gone",
        format!("{outcome:?}, {changed:?}"),
    );
    replica.delete_document(TODO).await?;
    sync_patiently(&replica, &cx).await?;
    let never = Address {
        id: "never",
        ..TODO
    };
    for at in [TODO, never] {
        let outcome = replica
            .try_patch_document(at, &json!({"done": true}), &[])
            .await?;
        let nothing = nothing_pending(&replica).await?;
        cx.check(
            "not-there",
            refused(&outcome) && nothing,
            "refused, and nothing pending",
            format!("{outcome:?}, nothing pending: {nothing}"),
        );
    }
    Ok(())
}

async fn delete(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    replica
        .put_document(TODO, &json!({"title": "Milk", "former": 1}))
        .await?;
    sync_patiently(&replica, &cx).await?;
    replica
        .put_document(TODO, &json!({"title": "Milk", "done": true}))
        .await?;
    sync_patiently(&replica, &cx).await?;
    let before = cx.seen().await.len();
    replica.delete_document(TODO).await?;
    let shown = replica.documents(TODO.collection).await?;
    cx.check(
        "hidden",
        shown.is_empty(),
        "no document",
        format!("{shown:?}"),
    );
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let sent: Vec<Record> = pushed(&seen[before..])
        .into_iter()
        .map(|(_, r)| r)
        .collect();
    let keys = ["", "title", "former", "done"].map(key);
    cx.check(
        "tombstones",
        together(&pushes(&seen[before..]), &keys) && sent.iter().all(Record::is_tombstone),
        "one atomic Push of four tombstones",
        told(&sent.iter().collect::<Vec<_>>()),
    );
    Ok(())
}

/// What others wrote, for [`read`].
fn theirs() -> Vec<Record> {
    let at = |id: &str, field: &str| document_key(b"notes", id.as_bytes(), field.as_bytes());
    let put = |id: &str, field: &str, ms: u64, value: &str| {
        Record::put(at(id, field), time(ms), 77, value)
    };
    vec![
        put("there", "", 50, ""),
        put("there", "at-once", 50, "1"),
        put("there", "later", 60, r#"{"deep":[null]}"#),
        put("there", "before", 40, "2"),
        Record::tombstone(at("there", "removed"), time(60), 77),
        put("odd", "", 50, "a value that means nothing"),
        put("odd", "fine", 60, "true"),
        put("odd", "broken", 60, "{not JSON"),
        Record::tombstone(at("deleted", ""), time(50), 77),
        put("deleted", "late", 60, "3"),
        put("fields-only", "a", 60, "4"),
        Record::put(b"notes\0no-field".as_slice(), time(50), 77, ""),
        Record::put(b"notes\0\0".as_slice(), time(50), 77, ""),
        Record::put(b"notes\0\xff\0".as_slice(), time(50), 77, ""),
        Record::put(b"\0there\0".as_slice(), time(50), 77, ""),
    ]
}

async fn read(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&theirs()).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let shown = replica.documents("notes").await?;
    cx.equal(
        "documents",
        vec!["odd", "there"],
        shown.keys().map(String::as_str).collect(),
    );
    cx.equal(
        "fields",
        fields(json!({"at-once": 1, "later": {"deep": [null]}})).as_ref(),
        shown.get("there"),
    );
    let odd = shown.get("odd");
    let bytes = replica
        .contents()
        .await?
        .entries
        .into_iter()
        .any(|e| e.key == document_key(b"notes", b"odd", b"broken") && e.value == b"{not JSON");
    cx.check(
        "unreadable",
        bytes && odd.is_some_and(|d| d.unreadable == ["broken"] && d.fields.len() == 1),
        "`fine` readable, `broken` not, and its bytes among the records",
        format!("{odd:?}, the bytes are there: {bytes}"),
    );
    Ok(())
}

async fn names(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    // a two-byte letter, so that characters counted instead of bytes show
    let field = "é".repeat((512 - key("").len()) / 2);
    let pad = "x".repeat(512 - key(&field).len());
    let longest = json!({ format!("{field}{pad}"): 1 });
    let outcome = replica.try_put_document(TODO, &longest).await?;
    sync_patiently(&replica, &cx).await?;
    let arrived = cx.server_records().await.iter().any(|r| r.key.len() == 512);
    cx.check(
        "longest",
        matches!(outcome, Outcome::Done(_)) && arrived,
        "done, and the record at the server",
        format!("{outcome:?}, at the server: {arrived}"),
    );
    let too_long = json!({ format!("{field}{pad}x"): 1 });
    let fine = json!({"f": 1});
    let at = |collection, id| Address { collection, id };
    let tries = [
        ("too-long", TODO, too_long),
        ("empty", at("", "a"), fine.clone()),
        ("empty", at("a", ""), fine.clone()),
        ("empty", at("a", "b"), json!({"": 1})),
        ("zero", at("a\0b", "c"), fine.clone()),
        ("zero", at("a", "b\0c"), fine),
        ("zero", at("a", "b"), json!({"c\0d": 1})),
    ];
    for (check, at, document) in tries {
        let outcome = replica.try_put_document(at, &document).await?;
        let nothing = nothing_pending(&replica).await?;
        cx.check(
            check,
            refused(&outcome) && nothing,
            format!("{at:?} with {document} refused, and nothing pending"),
            format!("{outcome:?}, nothing pending: {nothing}"),
        );
    }
    Ok(())
}

async fn horizon(cx: Cx) -> Result<(), Stop> {
    let theirs = |field: &str, ms: u64| Record::put(key(field), time(ms), 77, "0");
    cx.server_writes(&[
        Record::put(key(""), time(0), 77, ""),
        theirs("title", 1),
        theirs("done", 2),
    ])
    .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    // the same day as the records, long ago
    cx.set_clock(time(500) >> 16).await?;
    let document = json!({"title": "Milk", "done": true});
    replica.put_document(TODO, &document).await?;
    cx.server_writes(&[
        Record::tombstone(key(""), time(60_000), 77),
        Record::tombstone(key("title"), time(60_000), 77),
    ])
    .await;
    cx.server_writes(&[Record::put("later", time(200_000), 77, "v")])
        .await;
    let space = cx.space().to_owned();
    let horizon = cx
        .server(|p| {
            p.service.with_space(&space, |s| {
                s.compact(time(100_000));
                s.horizon
            })
        })
        .await;
    cx.set_clock(0).await?;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let sent: Vec<Record> = pushed(&cx.seen().await)
        .into_iter()
        .map(|(_, r)| r)
        .collect();
    let last = |field| sent.iter().rev().find(|r| r.key == key(field));
    let three = ["", "title", "done"].map(last);
    cx.check(
        "same-version",
        three.iter().all(|r| r.is_some_and(|r| r.time == horizon)),
        format!("all three at {horizon:#x}"),
        told(&three.into_iter().flatten().collect::<Vec<_>>()),
    );
    cx.equal("shown", fields(document), replica.document(TODO).await?);
    Ok(())
}
