//! What must hold in every case of client mode, whatever it tries. Looks at the
//! calls that the server has seen, and at what the application wrote and sees.
//! Knows no case.

use crate::oracle::{Record, contains};
use crate::peer::Seen;
use crate::schema::driver::StoreContents;
use crate::schema::v1;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What no client may do, in the calls of a case. A session that follows one of
/// `beginnings` knows nothing of what came before: a client was started anew, or
/// opened a store.
pub fn look(seen: &[Seen], beginnings: &[usize], replicas: usize) -> Vec<String> {
    let mut wrong: Vec<String> = seen.iter().flat_map(call).collect();
    let mut from = 0;
    for to in beginnings.iter().copied().chain([seen.len()]) {
        let part = &seen[from..to];
        wrong.extend(retry_budget(part));
        // calls do not say whose they are
        if replicas == 1 {
            wrong.extend(cursors_that_went_back(part));
        }
        from = to;
    }
    wrong
}

/// Wire validity of one call; tokens nowhere but in metadata.
fn call(call: &Seen) -> Vec<String> {
    let method = &call.method;
    let problems = call.problems.iter();
    let mut wrong: Vec<String> = problems.map(|p| format!("{method}: {p}")).collect();
    let version = call.header("gosync-version");
    if method != "Hello" && version != Some("1") {
        wrong.push(format!(
            "[HELLO-006] {method} carries gosync-version {version:?}"
        ));
    }
    if let Some(token) = call
        .header("authorization")
        .and_then(|a| a.strip_prefix("Bearer "))
        .filter(|t| t.len() >= 8)
    {
        let needle = token.as_bytes();
        let told = call.message.windows(needle.len()).any(|w| w == needle);
        let mut headers = call.headers.iter();
        if told || headers.any(|(n, v)| n != "authorization" && v.contains(token)) {
            wrong.push(format!("[TRANS-032] {method} carries the token elsewhere"));
        }
    }
    if method == "Push" {
        match v1::PushRequest::decode(call.message.as_slice()) {
            Err(e) => wrong.push(format!("Push cannot be decoded: {e}")),
            Ok(push) => wrong.extend(records(&push.records)),
        }
    }
    wrong
}

fn records(pushed: &[v1::Record]) -> Vec<String> {
    let mut keys = BTreeSet::new();
    let mut wrong = Vec::new();
    for record in pushed {
        if let Err(defect) = Record::from_wire(record) {
            wrong.push(format!("Push of a record: {}", defect.name()));
        }
        if !keys.insert(&record.key) {
            wrong.push("[PUSH-006] one key twice in a Push".into());
        }
    }
    wrong
}

/// No client hammers: more than 60 calls within any second are too many,
/// whatever the case does. A Push or a Reconcile that was answered is no try
/// that failed: what follows it at once is the rest of the work.
fn retry_budget(seen: &[Seen]) -> Option<String> {
    let goes_on = |s: &Seen| {
        let answered = s.end.starts_with("OK") && !s.answers.is_empty();
        answered && matches!(s.method.as_str(), "Push" | "Reconcile")
    };
    let times: Vec<Duration> = seen.iter().filter(|s| !goes_on(s)).map(|s| s.at).collect();
    let busiest = times
        .iter()
        .map(|t| {
            times
                .iter()
                .filter(|u| **u >= *t && **u < *t + Duration::from_secs(1))
                .count()
        })
        .max()
        .unwrap_or(0);
    (busiest > 60).then(|| format!("[CLIENT-032] {busiest} calls within one second"))
}

/// Of the same ranges in the same epoch, a session that goes on never relies on
/// an older cursor than before: nothing takes it back but a lost store, or a
/// server that stands further back itself.
fn cursors_that_went_back(seen: &[Seen]) -> Vec<String> {
    let mut highest: BTreeMap<(Vec<Vec<u8>>, u64), u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for call in seen {
        // a Push bears the cursors of when its records were chosen
        let held = match call.method.as_str() {
            "Hello" | "Watch" => call.held(),
            _ => Vec::new(),
        };
        for entry in held {
            let Some(cursor) = entry.cursor else { continue };
            let ranges = entry.ranges.iter().map(|r| r.encode_to_vec()).collect();
            let before = highest.entry((ranges, cursor.epoch)).or_default();
            if cursor.sequence < *before {
                wrong.push(format!(
                    "[WATCH-011] {} names sequence {} of epoch {:016x} for ranges whose cursor was at {before}",
                    call.method, cursor.sequence, cursor.epoch
                ));
            }
            *before = cursor.sequence.max(*before);
        }
        let answers = call.answers.iter();
        let heads = answers.filter_map(|a| position(&call.method, a)?.head);
        for head in heads {
            let of_epoch = highest.iter_mut().filter(|(of, _)| of.1 == head.epoch);
            of_epoch.for_each(|(_, highest)| *highest = head.sequence.min(*highest));
        }
    }
    wrong
}

/// Where the server says that it stands.
fn position(method: &str, answer: &[u8]) -> Option<v1::Position> {
    use v1::{snapshot_response as snapshot, watch_response as watch};
    match method {
        "Hello" => v1::HelloResponse::decode(answer).ok()?.position,
        "Push" => v1::PushResponse::decode(answer).ok()?.position,
        "Reconcile" => v1::ReconcileResponse::decode(answer).ok()?.position,
        "Watch" => match v1::WatchResponse::decode(answer).ok()?.event? {
            watch::Event::Checkpoint(checkpoint) => checkpoint.position,
            watch::Event::End(end) => end.history?.position,
            watch::Event::Changes(_) | watch::Event::Heartbeat(_) => None,
        },
        "Snapshot" => match v1::SnapshotResponse::decode(answer).ok()?.event? {
            snapshot::Event::Start(start) => start.position,
            snapshot::Event::End(end) => end.history?.position,
            snapshot::Event::Chunk(_) | snapshot::Event::Complete(_) => None,
        },
        _ => None,
    }
}

/// What the application wrote, so that nothing of it disappears unseen.
#[derive(Default)]
pub struct Written {
    /// Of each replica, the store that it opened and the prefixes that it holds.
    openings: BTreeMap<String, (String, Vec<Vec<u8>>)>,
    /// Of each store, the last value that was put under a key, and not deleted,
    /// discarded or damaged since.
    values: BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Written {
    /// A replica opens a store; without prefixes it holds every key.
    pub fn open(&mut self, replica: &str, store: &str, prefixes: &[Vec<u8>]) {
        let opening = (store.to_owned(), prefixes.to_vec());
        self.openings.insert(replica.to_owned(), opening);
    }

    /// How many openings there were under different names.
    pub fn replicas(&self) -> usize {
        self.openings.len()
    }

    /// The client said that it is written.
    pub fn put(&mut self, replica: &str, key: &[u8], value: &[u8]) {
        if let Some((store, _)) = self.openings.get(replica) {
            let values = self.values.entry(store.clone()).or_default();
            values.insert(key.to_vec(), value.to_vec());
        }
    }

    /// What stands under the key from now on is not the last put's value.
    pub fn forget(&mut self, replica: &str, key: &[u8]) {
        if let Some((store, _)) = self.openings.get(replica)
            && let Some(values) = self.values.get_mut(store)
        {
            values.remove(key);
        }
    }

    /// What should be among `contents`, and is not. Only what the server sent
    /// may stand in the place of a put: a record of the key, or a horizon, below
    /// which nothing is left of it.
    pub fn missing(&self, replica: &str, contents: &StoreContents, seen: &[Seen]) -> Vec<String> {
        let Some((store, prefixes)) = self.openings.get(replica) else {
            return Vec::new();
        };
        let entries: BTreeMap<&[u8], &[u8]> = contents
            .entries
            .iter()
            .map(|e| (e.key.as_slice(), e.value.as_slice()))
            .collect();
        let held = |key: &[u8]| prefixes.is_empty() || prefixes.iter().any(|p| key.starts_with(p));
        let gone: Vec<_> = self
            .values
            .get(store)
            .into_iter()
            .flatten()
            .filter(|(key, value)| {
                held(key) && entries.get(key.as_slice()) != Some(&value.as_slice())
            })
            .collect();
        if gone.is_empty() {
            return Vec::new();
        }
        let told = Told::by(seen);
        gone.into_iter()
            .filter(|(key, _)| !told.explains(key))
            .map(|(key, _)| {
                format!(
                    "{:?} was written, and is not seen any more, although the server sent nothing that takes its place",
                    key.escape_ascii().to_string()
                )
            })
            .collect()
    }
}

/// What the server's answers say that may take the place of a write.
#[derive(Default)]
struct Told {
    keys: BTreeSet<Vec<u8>>,
    wanted: Vec<v1::Range>,
    horizon: bool,
}

impl Told {
    fn by(seen: &[Seen]) -> Told {
        let mut told = Told::default();
        for call in seen {
            for answer in &call.answers {
                told.answer(&call.method, answer);
            }
        }
        told
    }

    fn explains(&self, key: &[u8]) -> bool {
        self.horizon || self.keys.contains(key) || self.wanted.iter().any(|r| contains(r, key))
    }

    fn records(&mut self, records: impl IntoIterator<Item = v1::Record>) {
        self.keys.extend(records.into_iter().map(|r| r.key));
    }

    fn answer(&mut self, method: &str, answer: &[u8]) {
        use v1::{snapshot_response as snapshot, watch_response as watch};
        self.horizon |= position(method, answer).is_some_and(|p| p.horizon > 0);
        match method {
            "Push" => {
                let push = v1::PushResponse::decode(answer).unwrap_or_default();
                self.records(push.verdicts.into_iter().filter_map(|v| v.winner));
            }
            "Reconcile" => {
                let reconcile = v1::ReconcileResponse::decode(answer).unwrap_or_default();
                self.records(reconcile.records);
                self.wanted.extend(reconcile.wanted);
            }
            "Watch" => {
                let watch = v1::WatchResponse::decode(answer).unwrap_or_default();
                if let Some(watch::Event::Changes(changes)) = watch.event {
                    self.records(changes.records);
                }
            }
            "Snapshot" => match v1::SnapshotResponse::decode(answer)
                .unwrap_or_default()
                .event
            {
                Some(snapshot::Event::Start(start)) => self.wanted.extend(start.wanted),
                Some(snapshot::Event::Chunk(chunk)) => self.records(chunk.records),
                _ => {}
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::driver::Entry;

    fn seen(method: &str, message: Vec<u8>, answers: Vec<Vec<u8>>) -> Seen {
        Seen {
            method: method.into(),
            headers: Vec::new(),
            message,
            problems: Vec::new(),
            answers,
            end: "OK after 1 messages".into(),
            at: Duration::ZERO,
        }
    }

    fn calls(method: &str, end: &str) -> Vec<Seen> {
        let one = |i: u64| Seen {
            end: end.into(),
            at: Duration::from_millis(i * 5),
            ..seen(method, Vec::new(), vec![Vec::new()])
        };
        (0..100).map(one).collect()
    }

    #[test]
    fn answers_that_lead_on_are_no_hammering_and_failures_and_new_sessions_are() {
        let fine = "OK after 1 messages";
        assert_eq!(retry_budget(&calls("Reconcile", fine)), None);
        assert_eq!(retry_budget(&calls("Push", fine)), None);
        assert!(retry_budget(&calls("Reconcile", "14 UNAVAILABLE")).is_some());
        assert!(retry_budget(&calls("Hello", fine)).is_some());
        assert!(retry_budget(&calls("Watch", fine)).is_some());
    }

    fn watch(epoch: u64, sequence: u64) -> Seen {
        let request = v1::WatchRequest {
            held: vec![v1::HeldRanges {
                ranges: vec![v1::Range::default()],
                cursor: Some(v1::Cursor {
                    epoch,
                    sequence,
                    tag: 0,
                }),
            }],
            ..v1::WatchRequest::default()
        };
        seen("Watch", request.encode_to_vec(), Vec::new())
    }

    #[test]
    fn a_cursor_may_go_back_in_another_epoch_or_after_a_crash_and_not_else() {
        assert!(cursors_that_went_back(&[watch(1, 5), watch(1, 5), watch(2, 3)]).is_empty());
        let back = [watch(1, 5), watch(1, 4)];
        assert_eq!(cursors_that_went_back(&back).len(), 1);
        // a server that lost the end of its history stands further back
        let answer = v1::ReconcileResponse {
            position: Some(v1::Position {
                head: Some(v1::Cursor {
                    epoch: 1,
                    sequence: 4,
                    tag: 0,
                }),
                ..v1::Position::default()
            }),
            ..v1::ReconcileResponse::default()
        };
        let healed = seen("Reconcile", Vec::new(), vec![answer.encode_to_vec()]);
        assert!(cursors_that_went_back(&[watch(1, 5), healed, watch(1, 4)]).is_empty());
        let of_cursors = |beginnings: &[usize], replicas| {
            let wrong = look(&back, beginnings, replicas);
            wrong
                .iter()
                .filter(|w| w.starts_with("[WATCH-011]"))
                .count()
        };
        assert_eq!(of_cursors(&[], 1), 1);
        assert_eq!(of_cursors(&[1], 1), 0, "it was started anew");
        assert_eq!(of_cursors(&[], 2), 0, "whose it is nobody knows");
    }

    fn contents(entries: &[(&str, &str)]) -> StoreContents {
        let entry = |(key, value): &(&str, &str)| Entry {
            key: (*key).into(),
            value: (*value).into(),
            ..Entry::default()
        };
        StoreContents {
            entries: entries.iter().map(entry).collect(),
            ..StoreContents::default()
        }
    }

    #[test]
    fn a_write_disappears_only_for_what_the_server_sent() {
        let mut written = Written::default();
        written.open("a", "store", &[]);
        written.put("a", b"k", b"1");
        let missing = |written: &Written, now: &[(&str, &str)], seen: &[Seen]| {
            written.missing("a", &contents(now), seen).len()
        };
        assert_eq!(missing(&written, &[("k", "1"), ("l", "0")], &[]), 0);
        assert_eq!(missing(&written, &[], &[]), 1);
        assert_eq!(missing(&written, &[("k", "2")], &[]), 1);
        let changes = |key: &str| {
            let record = v1::Record {
                key: key.into(),
                ..v1::Record::default()
            };
            let message = v1::WatchResponse {
                event: Some(v1::watch_response::Event::Changes(v1::Changes {
                    records: vec![record],
                    cursor: None,
                })),
            };
            seen("Watch", Vec::new(), vec![message.encode_to_vec()])
        };
        assert_eq!(missing(&written, &[("k", "2")], &[changes("k")]), 0);
        assert_eq!(missing(&written, &[("k", "2")], &[changes("l")]), 1);
        let hello = v1::HelloResponse {
            position: Some(v1::Position {
                head: None,
                horizon: 7,
            }),
            ..v1::HelloResponse::default()
        };
        let horizon = seen("Hello", Vec::new(), vec![hello.encode_to_vec()]);
        assert_eq!(missing(&written, &[], &[horizon]), 0);
        written.open("a", "store", &[b"l".to_vec()]);
        assert_eq!(missing(&written, &[], &[]), 0, "it is not held");
        written.open("a", "store", &[]);
        written.forget("a", b"k");
        assert_eq!(missing(&written, &[], &[]), 0);
    }
}
