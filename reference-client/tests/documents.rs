//! Documents are what the specification's vectors say. Knows the file's form, and no rule.
#![cfg(not(target_arch = "wasm32"))]

use gosync_client::client::{Pending, Row};
use gosync_client::documents::{DocumentId, assemble, collection_range};
use gosync_proto::version::ReplicaId;
use gosync_proto::{Key, Time, Version};
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

fn cases() -> Vec<Value> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../spec/vectors/documents.json"
    );
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    vectors["cases"].as_array().unwrap().clone()
}

#[test]
fn fields_have_the_keys_of_the_vectors_and_bad_names_are_refused() {
    let cases: Vec<Value> = cases()
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
    let cases: Vec<Value> = cases().into_iter().filter(with_view).collect();
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
