//! Versions and the hybrid logical clock that issues them. Knows no wall
//! clock: the reading comes in as an argument.

use crate::mutant;
use std::fmt;

/// A hybrid logical clock reading: Unix milliseconds in the upper 48 bits, a
/// counter in the lower 16.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// Before every version; the horizon of a space that was never compacted.
    pub const ZERO: Time = Time(0);

    /// The first reading within a millisecond. Milliseconds beyond 48 bits
    /// (the year 10889) are clamped.
    pub fn from_millis(ms: u64) -> Time {
        Time(ms.min((1 << 48) - 1) << 16)
    }

    /// The wall-clock part, Unix milliseconds.
    pub fn millis(self) -> u64 {
        self.0 >> 16
    }

    /// The counter within the millisecond.
    pub fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms+{}", self.millis(), self.counter())
    }
}

/// 64 random bits that name one opening of a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What orders two states of one key: by time, then by replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version {
    /// When it was written.
    pub time: Time,
    /// Who wrote it.
    pub replica: ReplicaId,
}

/// The clock of one opening of a store. Every version that it issues is above
/// all that it issued before and above the record that is replaced.
#[derive(Clone, Debug)]
pub struct Clock {
    replica: ReplicaId,
    floor: Time,
}

/// The clock has no reading left above what it must exceed. Only a record with
/// a version at the very end of time can cause this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the clock is exhausted: no version is left above the record to be replaced")]
pub struct ClockExhausted;

impl Clock {
    /// `replica` is fresh randomness; `floor` is the last time that the store
    /// remembers having issued ([`Time::ZERO`] for a new store).
    pub fn new(replica: ReplicaId, floor: Time) -> Clock {
        Clock { replica, floor }
    }

    /// The identity this clock signs with.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The last issued time. A store keeps it in the same transaction as the
    /// record, so that the clock survives restarts.
    pub fn floor(&self) -> Time {
        self.floor
    }

    /// The clock never again issues a time at or below `time`. For stores that
    /// several openings (tabs) write to.
    pub fn raise_floor(&mut self, time: Time) {
        self.floor = self.floor.max(time);
    }

    /// Issues the version of a write at wall-clock time `now_ms` (Unix
    /// milliseconds) that replaces a record of version `replaces`: the
    /// greatest of the wall clock, the floor + 1 and the replaced time + 1.
    ///
    /// # Errors
    /// [`ClockExhausted`] when 64 bits do not suffice.
    pub fn issue(
        &mut self,
        now_ms: u64,
        replaces: Option<Version>,
    ) -> Result<Version, ClockExhausted> {
        let next = |t: Time| match mutant!(TimeWraps) {
            true => Ok(Time(t.0.wrapping_add(1))),
            false => t.0.checked_add(1).map(Time).ok_or(ClockExhausted),
        };
        let mut time = Time::from_millis(now_ms).max(next(self.floor)?);
        if let Some(old) = replaces {
            time = time.max(next(old.time)?);
        }
        self.floor = time;
        Ok(Version {
            time,
            replica: self.replica,
        })
    }
}

/// The highest version time that is acceptable at clock reading `now_ms`,
/// given the greatest allowed skew. A time is refused when it is above this.
pub fn skew_bound(now_ms: u64, max_clock_skew_ms: u64) -> Time {
    let ms = now_ms.saturating_add(max_clock_skew_ms);
    Time(Time::from_millis(ms).0 | 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clock(floor: u64) -> Clock {
        Clock::new(ReplicaId(7), Time(floor))
    }

    #[test]
    fn a_version_is_the_wall_clock_when_that_is_ahead() {
        let v = clock(0).issue(1000, None).unwrap();
        assert_eq!((v.time.millis(), v.time.counter()), (1000, 0));
    }

    #[test]
    fn within_one_millisecond_the_counter_counts() {
        let mut c = clock(0);
        c.issue(1000, None).unwrap();
        assert_eq!(c.issue(1000, None).unwrap().time.counter(), 1);
        assert_eq!(c.issue(999, None).unwrap().time.counter(), 2);
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let v = clock((5 << 16) | 0xffff).issue(3, None).unwrap();
        assert_eq!((v.time.millis(), v.time.counter()), (6, 0));
    }

    #[test]
    fn the_end_of_time_is_an_error_and_leaves_the_floor() {
        let mut c = clock(9);
        let last = Version {
            time: Time(u64::MAX),
            replica: ReplicaId(0),
        };
        assert_eq!(c.issue(1, Some(last)), Err(ClockExhausted));
        assert_eq!(c.floor(), Time(9));
    }

    #[test]
    fn the_skew_bound_includes_every_counter_of_its_millisecond() {
        let bound = skew_bound(1000, 300);
        assert!(Time((1300 << 16) | 0xffff) <= bound);
        assert!(Time(1301 << 16) > bound);
        assert_eq!(skew_bound(u64::MAX, u64::MAX).0, u64::MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Also where the clock goes back, and where its user opens it again with the floor that was kept.
        #[test]
        fn versions_rise_and_exceed_what_they_replace(steps in prop::collection::vec((0u64..1 << 48, prop::option::of(0u64..u64::MAX - 1_000), any::<bool>()), 1..50)) {
            let mut c = clock(0);
            let mut last = Time::ZERO;
            for (now, old, reopened) in steps {
                if reopened {
                    c = Clock::new(ReplicaId(now), c.floor());
                }
                let old = old.map(|t| Version { time: Time(t), replica: ReplicaId(u64::MAX) });
                let Ok(v) = c.issue(now, old) else { break };
                prop_assert!(v.time > last);
                prop_assert!(old.is_none_or(|o| v > o));
                last = v.time;
            }
        }
    }
}
