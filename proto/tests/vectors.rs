//! The rules compute what the specification's vectors say, which the suite's oracle wrote and a script in another
//! language computed again. Knows the files' form, and no rule.

use gosync_proto::limits::Limits;
use gosync_proto::merkle::{Stream, Summary, Tree};
use gosync_proto::version::{Clock, skew_bound};
use gosync_proto::{KeyRange, Merge, Record, ReplicaId, Time, Version, wire};
use serde_json::Value;
use std::cmp::Ordering;

/// Hands each case of a file on, with its name; there must be so many at least.
fn cases(file: &str, least: usize, judge: impl Fn(&Value, &str)) {
    let path = format!("{}/../spec/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() >= least, "{file} has {} cases", cases.len());
    for case in cases {
        judge(case, &format!("{file}: {}", case["name"]));
    }
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    let hex = value.as_str().unwrap();
    let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn version(value: &Value) -> Version {
    Version {
        time: Time(number(&value["time"])),
        replica: ReplicaId(number(&value["replica"])),
    }
}

fn record(value: &Value) -> Result<Record, gosync_proto::Invalid> {
    let version = version(value);
    Record::try_from(wire::Record {
        key: bytes(&value["key"]),
        version: Some(wire::Version {
            time: version.time.0,
            replica: version.replica.0,
        }),
        flags: value["flags"].as_u64().unwrap() as u32,
        value: bytes(&value["value"]).into(),
    })
}

#[test]
fn records_have_the_digests_of_the_vectors_or_may_not_exist() {
    cases("digest", 15, |case, name| match record(&case["record"]) {
        Ok(record) => assert_eq!(record.digest().to_hex(), case["digest"], "{name}"),
        Err(_) => assert_eq!(case["valid"], false, "{name}"),
    });
}

#[test]
fn versions_and_records_are_ordered_as_in_the_vectors() {
    cases("order", 14, |case, name| {
        let order = match version(&case["a"]).cmp(&version(&case["b"])) {
            Ordering::Less => "less",
            Ordering::Equal => "equal",
            Ordering::Greater => "greater",
        };
        assert_eq!(case["order"], order, "{name}");
    });
    cases("merge", 18, |case, name| {
        let [a, b] = ["a", "b"].map(|side| record(&case[side]).unwrap());
        let winner = match a.merge_against(&b) {
            Merge::Wins => "a",
            Merge::Same => "same",
            Merge::Loses => "b",
        };
        assert_eq!(case["winner"], winner, "{name}");
    });
}

#[test]
fn clocks_issue_the_times_of_the_vectors_and_bound_the_future_alike() {
    cases("clock", 14, |case, name| {
        let now_ms = number(&case["now_ms"]);
        if case["skew_ms"].is_string() {
            let within =
                Time(number(&case["time"])) <= skew_bound(now_ms, number(&case["skew_ms"]));
            return assert_eq!(case["valid"], within, "{name}");
        }
        let replica = ReplicaId(1);
        let mut clock = Clock::new(replica, Time(number(&case["floor"])));
        let replaces = case["replaces"].is_string().then(|| Version {
            time: Time(number(&case["replaces"])),
            replica: ReplicaId(2),
        });
        match clock.issue(now_ms, replaces) {
            Ok(issued) => assert_eq!(case["time"], issued.time.0.to_string(), "{name}"),
            Err(_) => assert_eq!(case["valid"], false, "{name}"),
        }
    });
}

/// By the tree and by the definition.
fn summaries(records: &[Record], range: &KeyRange, horizon: Time) -> [Summary; 2] {
    let mut records: Vec<&Record> = records.iter().collect();
    records.sort_by_key(|r| &r.key);
    records.retain(|r| r.in_fingerprints(horizon));
    let digest = |r: &&Record| (r.key.clone(), r.digest());
    let mut stream = Stream::new();
    for record in records.iter().filter(|r| range.contains(r.key.as_bytes())) {
        stream.push(record.key.as_bytes(), record.digest()).unwrap();
    }
    let of_all = records.iter().map(digest);
    let mut tree = Tree::from_sorted(of_all.map(|(key, digest)| (key.as_bytes().to_vec(), digest)));
    tree.settle();
    [stream.finish(), tree.summary(range)]
}

#[test]
fn sets_and_ranges_have_the_fingerprints_of_the_vectors() {
    let judge = |case: &Value, name: &str, range: &KeyRange| {
        let records = case["records"].as_array().unwrap().iter();
        let records: Vec<Record> = records.map(|r| record(r).unwrap()).collect();
        for summary in summaries(&records, range, Time(number(&case["horizon"]))) {
            assert_eq!(case["count"], summary.count, "{name}");
            assert_eq!(case["fingerprint"], summary.fingerprint.to_hex(), "{name}");
        }
    };
    cases("fingerprint", 13, |case, name| {
        judge(case, name, &KeyRange::all());
    });
    cases("range", 12, |case, name| {
        let end = case["end"].is_string().then(|| bytes(&case["end"]));
        match KeyRange::new(&bytes(&case["start"]), end.as_deref()) {
            Ok(range) => judge(case, name, &range),
            Err(e) => {
                assert_eq!(case["valid"], false, "{name}");
                assert_eq!(case["failure"], e.reason.as_str(), "{name}");
            }
        }
    });
}

#[test]
fn sets_that_weaker_fingerprints_confuse_have_different_ones() {
    cases("collisions", 2, |case, name| {
        let [a, b] = ["a", "b"].map(|side| {
            let keys = case[side].as_array().unwrap().iter();
            let records: Vec<Record> = keys
                .map(|key| {
                    let of_zeroes = serde_json::json!({
                        "key": key, "time": "65536", "replica": "1", "flags": 0, "value": "",
                    });
                    record(&of_zeroes).unwrap()
                })
                .collect();
            summaries(&records, &KeyRange::all(), Time(0))
        });
        assert_eq!(a[0].count, b[0].count, "{name}");
        assert_ne!(a[0].fingerprint, b[0].fingerprint, "{name}");
        assert_eq!([a[0], b[0]], [a[1], b[1]], "{name}");
    });
}

#[test]
fn advertised_limits_mean_what_the_vectors_say() {
    cases("limits", 95, |case, name| {
        let Some(field) = case["field"].as_str() else {
            return;
        };
        let mut limits = Limits::default();
        assert!(limits.set(field, number(&case["advertised"])), "{name}");
        let read = Limits::from_wire(&limits.to_wire()).entries();
        let means = match read.iter().find(|(name, _)| *name == field).unwrap().1 {
            0 => "none".to_owned(),
            means => means.to_string(),
        };
        assert_eq!(case["means"], means, "{name}");
    });
}
