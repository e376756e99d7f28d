//! Clocks: one reading, what happens to a clock over time, and the bound on the future.

use super::form::{Number, at};
use super::{Case, Kind};
use crate::oracle::{self, Issue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const SKEW_MS: u64 = 300_000;

/// One reading: the time that it issues, or whether a time is within the bound.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Clock {
    /// What is issued next.
    Issue {
        now_ms: Number,
        floor: Number,
        replaces: Option<Number>,
        #[serde(skip_serializing_if = "Option::is_none")]
        time: Option<Number>,
    },
    /// What is too far in the future.
    Bound {
        now_ms: Number,
        skew_ms: Number,
        time: Number,
    },
}

impl Kind for Clock {
    const NAME: &'static str = "clock";
    const ABOUT: &'static str = "Issuing versions, and the bound on the future.";

    fn cases() -> Vec<Case<Clock>> {
        let issue = |(name, now_ms, floor, replaces): (&str, u64, u64, Option<u64>)| {
            let of = Clock::Issue {
                now_ms: Number(now_ms),
                floor: Number(floor),
                replaces: replaces.map(Number),
                time: None,
            };
            Case::new(name, of)
        };
        let bound = |(name, time): (&str, u64)| {
            let of = Clock::Bound {
                now_ms: Number(1_000_000),
                skew_ms: Number(SKEW_MS),
                time: Number(time),
            };
            Case::new(format!("bound: {name}"), of)
        };
        let issued = [
            ("a new clock", 1000, 0, None),
            ("twice in one millisecond", 1000, at(1000, 0), None),
            ("the wall clock went back", 999, at(1000, 1), None),
            ("a full counter carries", 3, at(5, 0xffff), None),
            ("above what it replaces", 1000, 0, Some(at(2000, 5))),
            ("the wall clock is beyond 48 bits", 1 << 50, 0, None),
            ("the last time that there is", 1, u64::MAX - 1, None),
            ("no time is left above the floor", 1, u64::MAX, None),
            (
                "no time is left above what it replaces",
                1,
                0,
                Some(u64::MAX),
            ),
        ];
        let bounds = [
            ("at the clock", at(1_000_000, 0)),
            ("the last of the bound's millisecond", at(1_300_000, 0xffff)),
            ("the first beyond", at(1_300_001, 0)),
            ("the greatest time", u64::MAX),
            ("time zero", 0),
        ];
        let issued = issued.into_iter().map(issue);
        issued.chain(bounds.into_iter().map(bound)).collect()
    }

    fn compute(&mut self) -> Result<Option<&'static str>, String> {
        match self {
            Clock::Issue {
                now_ms,
                floor,
                replaces,
                time,
            } => {
                *time = match oracle::issue(now_ms.0, floor.0, replaces.map(|r| r.0)) {
                    Issue::Time(time) => Some(Number(time)),
                    Issue::Exhausted => None,
                };
                Ok(time.is_none().then_some("exhausted"))
            }
            Clock::Bound {
                now_ms,
                skew_ms,
                time,
            } => Ok(beyond(now_ms.0, skew_ms.0, time.0)),
        }
    }
}

fn beyond(reading: u64, skew_ms: u64, time: u64) -> Option<&'static str> {
    (time > oracle::skew_bound(reading, skew_ms)).then_some("CLOCK_SKEW")
}

/// A clock over time, or a bound taken from several readings (CLOCK-006 for a server, CLOCK-011 for a replica).
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Update {
    /// What happens to one store.
    Steps {
        floor: Number,
        steps: Vec<Step>,
        floor_after: Number,
    },
    /// A server knows what it stored.
    Server {
        wall_ms: Number,
        stored_ms: Number,
        skew_ms: Number,
        time: Number,
    },
    /// A replica knows what it was told, and when.
    Replica {
        wall_ms: Number,
        told_ms: Number,
        passed_ms: Number,
        skew_ms: Number,
        time: Number,
    },
}

/// Something that happens to a store.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Step {
    Write {
        key: String,
        now_ms: Number,
        time: Option<Number>,
    },
    Receive {
        key: String,
        time: Number,
    },
    Reopen,
    Restamp {
        keys: Vec<String>,
        server_ms: Number,
        floor: Number,
        times: Vec<Number>,
    },
}

fn write(key: &str, now_ms: u64) -> Step {
    Step::Write {
        key: key.to_owned(),
        now_ms: Number(now_ms),
        time: None,
    }
}

fn receive(key: &str, time: u64) -> Step {
    Step::Receive {
        key: key.to_owned(),
        time: Number(time),
    }
}

/// By a server whose clock reads 1,000 ms, to which the floor was lowered.
fn restamp(keys: &[&str]) -> Step {
    Step::Restamp {
        keys: keys.iter().map(|&k| k.to_owned()).collect(),
        server_ms: Number(1000),
        floor: Number(at(1000, 0)),
        times: Vec::new(),
    }
}

impl Kind for Update {
    const NAME: &'static str = "clock_update";
    const ABOUT: &'static str =
        "A clock over time, and the readings that the bound on the future is taken from.";

    fn cases() -> Vec<Case<Update>> {
        const AHEAD: u64 = 9_000_000;
        let steps = |name: &str, floor: u64, steps: Vec<Step>| {
            let of = Update::Steps {
                floor: Number(floor),
                steps,
                floor_after: Number(0),
            };
            Case::new(name, of)
        };
        let server = |name: &str, wall: u64, stored: u64, time: u64| {
            let of = Update::Server {
                wall_ms: Number(wall),
                stored_ms: Number(stored),
                skew_ms: Number(SKEW_MS),
                time: Number(time),
            };
            Case::new(format!("server: {name}"), of)
        };
        let replica = |name: &str, wall: u64, told: u64, passed: u64, time: u64| {
            let of = Update::Replica {
                wall_ms: Number(wall),
                told_ms: Number(told),
                passed_ms: Number(passed),
                skew_ms: Number(SKEW_MS),
                time: Number(time),
            };
            Case::new(format!("replica: {name}"), of)
        };
        vec![
            steps(
                "three writes in one millisecond",
                0,
                vec![write("a", 1000), write("a", 1000), write("b", 1000)],
            ),
            steps(
                "the wall clock goes back, and catches up",
                0,
                vec![write("a", 1000), write("b", 400), write("b", 1001)],
            ),
            steps(
                "the floor survives the opening",
                0,
                vec![write("a", 1000), Step::Reopen, write("a", 900)],
            ),
            steps(
                "a received record is exceeded by what replaces it, and by whatever comes after that",
                0,
                vec![
                    receive("a", at(5000, 7)),
                    write("a", 1000),
                    write("b", 1000),
                ],
            ),
            steps(
                "a received record does not move the clock by itself",
                0,
                vec![receive("a", at(5000, 7)), write("b", 1000)],
            ),
            steps(
                "an older record changes nothing",
                0,
                vec![write("a", 1000), receive("a", at(900, 0)), write("a", 1000)],
            ),
            steps(
                "a winner is what is replaced from then on",
                0,
                vec![
                    write("a", 1000),
                    receive("a", at(2000, 0)),
                    write("a", 1000),
                ],
            ),
            steps(
                "the counter carries into the milliseconds",
                at(5, 0xfffe),
                vec![write("a", 3), write("a", 3), write("a", 3)],
            ),
            steps(
                "no time is left: refused, and the floor stays",
                u64::MAX - 1,
                vec![write("a", 1), write("a", 1), write("b", 1)],
            ),
            steps(
                "one key at the end of time does not stop others",
                0,
                vec![receive("a", u64::MAX), write("a", 1), write("b", 1)],
            ),
            steps(
                "writes of a clock that ran ahead, in the order in which they were made",
                0,
                vec![
                    write("a", AHEAD),
                    write("b", AHEAD),
                    restamp(&["a", "b"]),
                    write("c", 1000),
                ],
            ),
            steps(
                "two of one key",
                0,
                vec![write("a", AHEAD), write("a", AHEAD), restamp(&["a", "a"])],
            ),
            steps(
                "above what it replaces, although that is ahead of the server's clock",
                0,
                vec![
                    receive("a", at(2000, 0)),
                    write("a", AHEAD),
                    restamp(&["a"]),
                ],
            ),
            server(
                "the wall clock counts where it is ahead of the stored reading",
                2_000_000,
                1_000_000,
                at(2_300_000, 0xffff),
            ),
            server(
                "a wall clock that was set back does not count",
                1_000,
                2_000_000,
                at(2_300_000, 0xffff),
            ),
            server("beyond both", 1_000, 2_000_000, at(2_300_001, 0)),
            replica(
                "its own clock is ahead",
                2_000_000,
                1_000_000,
                0,
                at(2_300_000, 0xffff),
            ),
            replica(
                "the server's is ahead",
                1_000_000,
                2_000_000,
                0,
                at(2_300_000, 0xffff),
            ),
            replica(
                "the server's time goes on after it was told",
                1_000_000,
                2_000_000,
                5_000,
                at(2_305_000, 0),
            ),
            replica("beyond both", 1_000_000, 2_000_000, 5_000, at(2_305_001, 0)),
        ]
    }

    fn compute(&mut self) -> Result<Option<&'static str>, String> {
        match self {
            Update::Steps {
                floor,
                steps,
                floor_after,
            } => {
                let mut store = Store {
                    floor: floor.0,
                    ..Store::default()
                };
                for step in steps {
                    store.step(step)?;
                }
                *floor_after = Number(store.floor);
                Ok(None)
            }
            Update::Server {
                wall_ms,
                stored_ms,
                skew_ms,
                time,
            } => Ok(beyond(wall_ms.0.max(stored_ms.0), skew_ms.0, time.0)),
            Update::Replica {
                wall_ms,
                told_ms,
                passed_ms,
                skew_ms,
                time,
            } => {
                let server = told_ms.0.saturating_add(passed_ms.0);
                Ok(beyond(wall_ms.0.max(server), skew_ms.0, time.0))
            }
        }
    }
}

/// A store's floor, and the times that stand under its keys.
#[derive(Default)]
struct Store {
    floor: u64,
    received: BTreeMap<String, u64>,
    unsent: BTreeMap<String, Vec<u64>>,
}

impl Store {
    fn step(&mut self, step: &mut Step) -> Result<(), String> {
        match step {
            Step::Write { key, now_ms, time } => *time = self.write(key, now_ms.0).map(Number),
            Step::Receive { key, time } => {
                self.received.insert(key.clone(), time.0);
                let unsent = self.unsent.entry(key.clone()).or_default();
                unsent.retain(|t| *t > time.0);
            }
            Step::Reopen => {}
            Step::Restamp {
                keys,
                server_ms,
                floor,
                times,
            } => {
                *times = self
                    .restamp(keys, server_ms.0, floor.0)
                    .ok_or("there is no time to re-stamp with")?;
            }
        }
        Ok(())
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
    fn restamp(&mut self, keys: &[String], server_ms: u64, floor: u64) -> Option<Vec<Number>> {
        self.floor = floor;
        for key in keys {
            self.unsent.remove(key);
        }
        let times = keys.iter().map(|key| self.write(key, server_ms));
        times.map(|time| time.map(Number)).collect()
    }
}
