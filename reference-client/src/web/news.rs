//! What a client tells, as text: for the tabs that share its store, and for
//! the TypeScript surface.

use crate::client::{Event, Status};
use crate::engine::{Healed, Phase, Report};
use crate::replica::{Fate, Settled};
use crate::store::WriteId;
use gosync_proto::{Key, KeyRange, Reason};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// An event as the other openings of the store get it; `None` where it is of
/// this opening only.
pub fn share(event: &Event) -> Option<String> {
    let keys = |keys: &[Key]| keys.iter().map(|k| hex(k.as_bytes())).collect::<Vec<_>>();
    let ids = |ids: &[WriteId]| ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>();
    let news = match event {
        Event::Wrote { ids: i, keys: k } => json!({"wrote": ids(i), "keys": keys(k)}),
        Event::Changed(k) => json!({"changed": keys(k)}),
        Event::Settled(s) => {
            let mut news = fate(&s.fate);
            news["settled"] = json!(s.id.0.to_string());
            news["key"] = json!(hex(s.key.as_bytes()));
            news
        }
        Event::Missed => json!({"missed": true}),
        _ => return None,
    };
    Some(news.to_string())
}

/// The inverse of [`share`]. What a tab of another version says and this one
/// does not understand may be anything: [`Event::Missed`].
pub fn hear(text: &str) -> Event {
    let news: Value = serde_json::from_str(text).unwrap_or_default();
    understand(&news).unwrap_or(Event::Missed)
}

fn understand(news: &Value) -> Option<Event> {
    let key = |v: &Value| Key::new(unhex(v.as_str()?)?).ok();
    let keys = |v: &Value| v.as_array()?.iter().map(key).collect::<Option<Vec<_>>>();
    let id = |v: &Value| v.as_str()?.parse().ok().map(WriteId);
    if let Some(ids) = news["wrote"].as_array() {
        return Some(Event::Wrote {
            ids: ids.iter().map(id).collect::<Option<_>>()?,
            keys: keys(&news["keys"])?,
        });
    }
    if !news["changed"].is_null() {
        return keys(&news["changed"]).map(Event::Changed);
    }
    let fate = match news["status"].as_str()? {
        "applied" => Fate::Applied,
        "superseded" => Fate::Superseded,
        "discarded" => Fate::Discarded,
        "rejected" => Fate::Rejected {
            reason: news["reason"].as_str().and_then(Reason::from_name),
            detail: news["detail"].as_str().unwrap_or_default().to_owned(),
        },
        _ => return None,
    };
    Some(Event::Settled(Settled {
        id: id(&news["settled"])?,
        key: key(&news["key"])?,
        fate,
    }))
}

/// A fate as `WriteResult` of the TypeScript surface.
pub fn fate(fate: &Fate) -> Value {
    match fate {
        Fate::Applied => json!({"status": "applied"}),
        Fate::Superseded => json!({"status": "superseded"}),
        Fate::Discarded => json!({"status": "discarded"}),
        Fate::Rejected { reason, detail } => json!({
            "status": "rejected",
            "reason": reason_name(*reason),
            "detail": detail,
        }),
    }
}

/// The name of a reason that this version knows.
pub fn reason_name(reason: Option<Reason>) -> &'static str {
    reason.map_or("UNKNOWN", Reason::as_str)
}

/// What only the client's events tell of repairs, for the status.
#[derive(Clone, Debug, Default)]
pub struct Repairs {
    latest: Option<(u64, Healed)>,
    damaged: BTreeSet<Key>,
}

impl Repairs {
    /// Follows the events; says whether the status now reads otherwise.
    pub fn follow(&mut self, event: &Event, now_ms: u64) -> bool {
        match event {
            Event::Healed(healed) => self.latest = Some((now_ms, healed.clone())),
            Event::Damaged(keys) => self.damaged.extend(keys.iter().cloned()),
            Event::Status(status) if status.verified => {
                self.damaged.clear();
                return true;
            }
            Event::Status(_) => return true,
            _ => return false,
        }
        true
    }
}

/// `Status` of the TypeScript surface.
pub fn status(status: &Status, repairs: &Repairs) -> String {
    let healed = repairs.latest.as_ref().map(|(at, h)| {
        json!({
            "at": at,
            "ranges": ranges(&h.ranges),
            "records": h.received + h.offered + h.dropped,
            "rounds": h.rounds,
        })
    });
    json!({
        "state": status.connection.as_str(),
        "switchedOff": status.phase == Phase::Offline,
        "stopped": status.phase == Phase::Stopped,
        "pending": status.pending,
        "rejected": status.rejected,
        "inDoubt": status.in_doubt,
        "quarantined": status.quarantined,
        "progress": status.progress.map(|p| json!({
            "phase": match status.phase {
                Phase::Bootstrapping => "bootstrapping",
                _ => "catching-up",
            },
            "done": p.done,
            "total": p.total,
        })),
        "lastSyncedAt": status.last_synced_ms,
        "verified": status.verified,
        "healed": healed,
        "damaged": repairs.damaged.len(),
        "reason": status.problem.as_ref().and_then(|p| p.reason).map(Reason::as_str),
        "detail": status.problem.as_ref().map(|p| &p.message),
    })
    .to_string()
}

/// `Verification` of the TypeScript surface.
pub fn verification(report: &Report) -> String {
    json!({
        "equal": report.equal,
        "healedRanges": ranges(&report.healed_ranges),
        "rounds": report.rounds,
        "checked": report.records,
        "damaged": report.damaged.len(),
    })
    .to_string()
}

/// The collections that keys belong to, for subscriptions.
pub fn collections(keys: &[Key]) -> String {
    let names: BTreeSet<_> = keys
        .iter()
        .map(|k| k.as_bytes().split(|b| *b == 0).next().unwrap_or_default())
        .map(String::from_utf8_lossy)
        .collect();
    json!(names).to_string()
}

fn ranges(ranges: &[KeyRange]) -> Vec<String> {
    ranges.iter().map(readable).collect()
}

/// A range for people: `todos/t1/title`, `todos/t1 … todos/t7`.
fn readable(range: &KeyRange) -> String {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).replace('\0', "/");
        text.trim_end_matches('/').to_owned()
    };
    let start = text(range.start());
    match range.end() {
        None if start.is_empty() => "everything".into(),
        None => format!("{start} …"),
        Some(end) => match text(end) {
            end if end == start => start,
            end => format!("{start} … {end}"),
        },
    }
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [a, b] => Some((digit(*a)? << 4) | digit(*b)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reason that the types did not name could be handled by nobody.
    #[test]
    fn the_typescript_surface_names_the_reasons_of_the_closed_list() {
        let source = include_str!("../../js/src/reasons.ts");
        let named = source
            .lines()
            .filter_map(|line| line.trim().strip_prefix("| \"")?.split('"').next());
        let known = Reason::ALL.iter().map(|r| r.as_str());
        let known: Vec<_> = known.chain([reason_name(None)]).collect();
        assert_eq!(named.collect::<Vec<_>>(), known);
    }

    fn key(text: &str) -> Key {
        Key::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_one_tab_shares_another_hears() {
        let settled = |fate| {
            Event::Settled(Settled {
                id: WriteId(u64::MAX),
                key: key("a\0b"),
                fate,
            })
        };
        let rejected = Fate::Rejected {
            reason: Some(Reason::QuotaExceeded),
            detail: "\"full\"".into(),
        };
        for event in [
            Event::Wrote {
                ids: vec![WriteId(1), WriteId(2)],
                keys: vec![key("\0\u{fe}"), key("x")],
            },
            Event::Changed(vec![key("k")]),
            settled(Fate::Applied),
            settled(Fate::Superseded),
            settled(Fate::Discarded),
            settled(rejected),
            Event::Missed,
        ] {
            assert_eq!(hear(&share(&event).unwrap()), event);
        }
    }

    #[test]
    fn news_that_is_not_understood_may_be_anything() {
        for text in [
            "",
            "{}",
            "[1]",
            r#"{"changed":["zz"]}"#,
            r#"{"wrote":[1],"keys":[]}"#,
        ] {
            assert_eq!(hear(text), Event::Missed, "{text}");
        }
    }

    #[test]
    fn ranges_read_like_paths() {
        let range = |a: &str, b: Option<&str>| {
            readable(&KeyRange::new(a.as_bytes(), b.map(str::as_bytes)).unwrap())
        };
        assert_eq!(range("", None), "everything");
        assert_eq!(
            range("todos\0t1\0title", Some("todos\0t1\0title\0")),
            "todos/t1/title"
        );
        assert_eq!(range("todos\0a", Some("todos\0k")), "todos/a … todos/k");
        assert_eq!(range("todos\0a", None), "todos/a …");
    }

    #[test]
    fn changes_name_each_collection_once() {
        let keys = [key("b\0x\0"), key("a\0y\0f"), key("b\0z\0g"), key("plain")];
        assert_eq!(collections(&keys), r#"["a","b","plain"]"#);
    }
}
