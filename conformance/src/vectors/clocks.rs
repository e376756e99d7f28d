//! Clocks: one reading, what happens to a clock over time, and the bound on the future.

use super::{failure, list, number, same, text};
use crate::oracle::{self, Issue};
use serde_json::Value;
use std::collections::BTreeMap;

/// One reading.
pub fn one(case: &Value) -> Result<(), String> {
    let now = number(case, "now_ms")?;
    if case["skew_ms"].is_string() {
        let bound = oracle::skew_bound(now, number(case, "skew_ms")?);
        let refused = (number(case, "time")? > bound).then_some("CLOCK_SKEW");
        return same("failure", refused, failure(case)?);
    }
    let replaces = match &case["replaces"] {
        Value::Null => None,
        _ => Some(number(case, "replaces")?),
    };
    match oracle::issue(now, number(case, "floor")?, replaces) {
        Issue::Time(time) => {
            same("failure", None, failure(case)?)?;
            same("time", time, number(case, "time")?)
        }
        Issue::Exhausted => same("failure", Some("exhausted"), failure(case)?),
    }
}

/// A clock over time, or a bound taken from several readings.
pub fn update(case: &Value) -> Result<(), String> {
    if case["skew_ms"].is_string() {
        return bound(case);
    }
    let mut clock = Clock {
        floor: number(case, "floor")?,
        ..Clock::default()
    };
    for step in list(case, "steps")? {
        clock.step(step)?;
    }
    same("floor_after", clock.floor, number(case, "floor_after")?)
}

/// CLOCK-006 for a server, CLOCK-011 for a replica.
fn bound(case: &Value) -> Result<(), String> {
    let wall = number(case, "wall_ms")?;
    let other = match case["stored_ms"].is_string() {
        true => number(case, "stored_ms")?,
        false => number(case, "told_ms")? + number(case, "passed_ms")?,
    };
    let bound = oracle::skew_bound(wall.max(other), number(case, "skew_ms")?);
    let refused = (number(case, "time")? > bound).then_some("CLOCK_SKEW");
    same("failure", refused, failure(case)?)
}

/// A store's floor, and the times that stand under its keys.
#[derive(Default)]
struct Clock {
    floor: u64,
    received: BTreeMap<String, u64>,
    unsent: BTreeMap<String, Vec<u64>>,
}

impl Clock {
    fn step(&mut self, step: &Value) -> Result<(), String> {
        match text(step, "event")? {
            "write" => {
                let issued = self.write(text(step, "key")?, number(step, "now_ms")?);
                let file = match &step["time"] {
                    Value::Null => None,
                    _ => Some(number(step, "time")?),
                };
                same("time", issued, file)
            }
            "receive" => {
                let (key, time) = (text(step, "key")?, number(step, "time")?);
                self.received.insert(key.to_owned(), time);
                let unsent = self.unsent.entry(key.to_owned()).or_default();
                unsent.retain(|t| *t > time);
                Ok(())
            }
            "reopen" => Ok(()),
            "restamp" => self.restamp(step),
            other => Err(format!("{other:?} is no event")),
        }
    }

    /// The time that a write gets; it replaces what is seen under its key.
    fn write(&mut self, key: &str, now_ms: u64) -> Option<u64> {
        let unsent = self.unsent.entry(key.to_owned()).or_default();
        let replaced = unsent.last().or_else(|| self.received.get(key)).copied();
        match oracle::issue(now_ms, self.floor, replaced) {
            Issue::Time(time) => {
                self.floor = time;
                unsent.push(time);
                Some(time)
            }
            Issue::Exhausted => None,
        }
    }

    /// The writes of `keys`, in the order in which they were made, after the floor was lowered (CLIENT-018, -019).
    fn restamp(&mut self, step: &Value) -> Result<(), String> {
        self.floor = number(step, "floor")?;
        let server = number(step, "server_ms")?;
        let keys: Vec<&str> = list(step, "keys")?
            .iter()
            .filter_map(Value::as_str)
            .collect();
        for key in &keys {
            self.unsent.remove(*key);
        }
        let times = keys.iter().map(|key| {
            let time = self.write(key, server);
            Value::String(time.map(|t| t.to_string()).unwrap_or_default())
        });
        let times: Vec<Value> = times.collect();
        same("times", times.as_slice(), list(step, "times")?)
    }
}
