//! Documents, and the clock over a store's life, are what the specification's vectors say. Knows the files' form, and
//! no rule.
#![cfg(not(target_arch = "wasm32"))]

use futures::executor::block_on;
use gosync_client::client::{Pending, Row};
use gosync_client::documents::{DocumentId, assemble, collection_range};
use gosync_client::replica::edit::{self, Author, Edit};
use gosync_client::replica::merge::{self, Incoming};
use gosync_client::store::{Changes, MemoryStore, Reads, Store, View, WriteId};
use gosync_proto::history::{Cursor, Epoch};
use gosync_proto::version::ReplicaId;
use gosync_proto::{Content, Key, Record, Time, Version};
use serde_json::{Map, Value};

fn bytes(value: &Value) -> Vec<u8> {
    let hex = value.as_str().unwrap();
    let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn hex(text: &str) -> String {
    text.bytes().map(|b| format!("{b:02x}")).collect()
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/../spec/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    vectors["cases"].as_array().unwrap().clone()
}

#[test]
fn fields_have_the_keys_of_the_vectors_and_bad_names_are_refused() {
    let cases: Vec<Value> = cases("documents")
        .into_iter()
        .filter(|c| c["id"].is_string())
        .collect();
    assert!(cases.len() >= 10);
    for case in cases {
        let text = |name: &str| case[name].as_str().unwrap();
        let key = DocumentId::new(text("collection"), text("id")).and_then(|document| {
            match text("field") {
                "" => document.existence(),
                field => document.field(field),
            }
        });
        match key {
            Ok(key) => assert_eq!(bytes(&case["key"]), key.as_bytes(), "{}", case["name"]),
            Err(_) => assert_eq!(case["valid"], false, "{}", case["name"]),
        }
    }
}

#[test]
fn a_reader_sees_the_documents_of_the_vectors() {
    let with_view = |c: &Value| c["documents"].is_object();
    let cases: Vec<Value> = cases("documents").into_iter().filter(with_view).collect();
    assert!(cases.len() >= 13);
    for case in cases {
        let range = collection_range(case["collection"].as_str().unwrap(), "").unwrap();
        let puts = case["records"].as_array().unwrap().iter();
        let mut rows: Vec<Row> = puts
            .filter(|r| r["flags"] == 0)
            .map(|r| Row {
                key: Key::new(bytes(&r["key"])).unwrap(),
                value: bytes(&r["value"]).into(),
                version: Version {
                    time: Time(number(&r["time"])),
                    replica: ReplicaId(number(&r["replica"])),
                },
                pending: Pending::Synced,
            })
            .filter(|row| range.contains(row.key.as_bytes()))
            .collect();
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        let documents: Map<String, Value> = assemble(&rows)
            .into_iter()
            .map(|document| {
                let fields = document.fields.iter();
                let fields: Map<String, Value> = fields
                    .map(|(name, value)| (hex(name), hex(&value.to_string()).into()))
                    .collect();
                (hex(&document.id), fields.into())
            })
            .collect();
        assert_eq!(
            case["documents"],
            Value::from(documents),
            "{}",
            case["name"]
        );
    }
}

/// Decides on everything that the store holds.
fn decide<T: Send + 'static>(
    store: &MemoryStore,
    decide: impl FnOnce(&View) -> (Changes, T) + Send + 'static,
) -> T {
    let reads = Reads {
        ranges: vec![gosync_proto::KeyRange::all()],
        all_writes: true,
        ..Reads::default()
    };
    block_on(store.transact(reads, decide)).unwrap()
}

fn time(version: Version) -> Value {
    version.time.0.to_string().into()
}

#[test]
fn the_clock_of_a_store_issues_the_times_of_the_vectors() {
    let with_steps = |c: &Value| c["steps"].is_array();
    let cases: Vec<Value> = cases("clock_update")
        .into_iter()
        .filter(with_steps)
        .collect();
    assert!(cases.len() >= 10);
    for case in cases {
        let name = &case["name"];
        let store = MemoryStore::new();
        let mut author = Author {
            replica: ReplicaId(1),
            now_ms: 0,
        };
        let floor = Time(number(&case["floor"]));
        decide(&store, move |view| {
            let mut meta = view.meta.clone();
            meta.floor = floor;
            let meta = Some(meta);
            (
                Changes {
                    meta,
                    ..Changes::default()
                },
                (),
            )
        });
        for step in case["steps"].as_array().unwrap() {
            let key = |text: &Value| Key::new(text.as_str().unwrap().as_bytes()).unwrap();
            match step["event"].as_str().unwrap() {
                "write" => {
                    author.now_ms = number(&step["now_ms"]);
                    let edit = Edit::Put(key(&step["key"]), "value".into());
                    let issued = decide(&store, move |view| {
                        let (changes, written) = edit::decide(view, author, vec![edit]);
                        let issued = changes.put_writes.first().map(|w| w.record.version);
                        (changes, written.ok().and(issued))
                    });
                    let issued = issued.map_or(Value::Null, time);
                    assert_eq!(step["time"], issued, "{name}");
                }
                "receive" => {
                    let record = Record {
                        key: key(&step["key"]),
                        version: Version {
                            time: Time(number(&step["time"])),
                            replica: ReplicaId(2),
                        },
                        content: Content::Put("theirs".into()),
                    };
                    let incoming = Incoming {
                        records: vec![(record, Cursor::origin(Epoch(1)).point)],
                        cursors: Vec::new(),
                        snapshot: None,
                    };
                    decide(&store, |view| merge::decide(view, incoming));
                }
                "reopen" => author.replica.0 += 1,
                "restamp" => {
                    let keys = step["keys"].as_array().unwrap();
                    let keys: Vec<Key> = keys.iter().map(key).collect();
                    let server_ms = number(&step["server_ms"]);
                    let times = decide(&store, move |view| {
                        let of_keys = view
                            .writes
                            .values()
                            .filter(|w| keys.contains(&w.record.key));
                        let refused: Vec<WriteId> = of_keys.map(|w| w.id).collect();
                        let changes = edit::restamp(view, author, &refused, server_ms);
                        let times = changes.put_writes.iter().map(|w| time(w.record.version));
                        let times: Vec<Value> = times.collect();
                        (changes, times)
                    });
                    assert_eq!(step["times"], Value::from(times), "{name}");
                }
                event => panic!("{name}: {event}"),
            }
        }
        let floor = decide(&store, |view| (Changes::default(), view.meta.floor));
        assert_eq!(case["floor_after"], floor.0.to_string(), "{name}");
    }
}
