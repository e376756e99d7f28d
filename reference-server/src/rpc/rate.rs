//! How often something may happen: a bucket for each of those who do it. Knows
//! no clock; the time comes in.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So often in so long, sustained; twice as often after a pause.
pub struct RateLimit<K> {
    /// The share of one; zero: there is no limit.
    one: Duration,
    burst: Duration,
    /// For each of them, when its bucket is full again.
    full_at: Mutex<HashMap<K, Instant>>,
}

/// A pause of so many times the period makes a full bucket.
const BURST_PERIODS: u32 = 2;
/// Above this many buckets, full ones are forgotten.
const TIDY_ABOVE: usize = 10_000;

impl<K: Eq + Hash> RateLimit<K> {
    /// 0 times is no limit.
    pub fn new(times: u64, period: Duration) -> RateLimit<K> {
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        RateLimit {
            one: period.checked_div(times).unwrap_or_default(),
            burst: period * BURST_PERIODS,
            full_at: Mutex::default(),
        }
    }

    /// That there is one left in the bucket.
    ///
    /// # Errors
    /// How long to wait until there is.
    pub fn look(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.after(full_at.get(key).copied(), now).map(drop)
    }

    /// Takes one out of the bucket.
    ///
    /// # Errors
    /// How long to wait until there is one.
    pub fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() > TIDY_ABOVE {
            full_at.retain(|_, at| *at > now);
        }
        let next = self.after(full_at.get(&key).copied(), now)?;
        if !self.one.is_zero() {
            full_at.insert(key, next);
        }
        Ok(())
    }

    /// When a bucket is full again after one more.
    fn after(&self, full_at: Option<Instant>, now: Instant) -> Result<Instant, Duration> {
        let next = full_at.map_or(now, |at| at.max(now)) + self.one;
        match (next - now).checked_sub(self.burst) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let rate = RateLimit::new(10, SECOND);
        let start = Instant::now();
        for _ in 0..20 {
            rate.take("s", start).unwrap();
        }
        let wait = rate.take("s", start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        rate.take("t", start).unwrap();
        rate.take("s", start + wait).unwrap();
        rate.take("s", start + wait).unwrap_err();
    }

    #[test]
    fn looking_takes_nothing() {
        let rate = RateLimit::new(1, SECOND);
        let start = Instant::now();
        for _ in 0..2 {
            rate.look(&1, start).unwrap();
            rate.take(1, start).unwrap();
        }
        rate.look(&1, start).unwrap_err();
        rate.look(&1, start + SECOND).unwrap();
        rate.look(&2, start).unwrap();
    }

    #[test]
    fn no_limit_is_no_limit() {
        let rate = RateLimit::new(0, SECOND);
        let now = Instant::now();
        assert!((0..1_000).all(|_| rate.take("s", now).is_ok()));
    }
}
