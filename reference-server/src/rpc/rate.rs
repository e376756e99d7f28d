//! How many calls a caller may make: a bucket per token and space. Knows no
//! clock; the time comes in.

use crate::auth::TokenId;
use gosync_proto::SpaceId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Calls per second, sustained; twice as many at once after a pause.
pub struct RateLimit {
    per_second: u64,
    /// For each caller, when its bucket is full again.
    full_at: Mutex<HashMap<(TokenId, SpaceId), Instant>>,
}

const BURST_SECONDS: u32 = 2;
/// Above this many callers, those with a full bucket are forgotten.
const TIDY_ABOVE: usize = 10_000;

impl RateLimit {
    /// 0 is no limit.
    pub fn new(per_second: u64) -> RateLimit {
        RateLimit {
            per_second,
            full_at: Mutex::default(),
        }
    }

    /// Takes one call out of the bucket.
    ///
    /// # Errors
    /// How long to wait until there is one.
    pub fn take(&self, caller: TokenId, space: &SpaceId, now: Instant) -> Result<(), Duration> {
        if self.per_second == 0 {
            return Ok(());
        }
        let one = Duration::from_secs(1) / u32::try_from(self.per_second).unwrap_or(u32::MAX);
        let burst = Duration::from_secs(1) * BURST_SECONDS;
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() > TIDY_ABOVE {
            full_at.retain(|_, at| *at > now);
        }
        let at = full_at.entry((caller, space.clone())).or_insert(now);
        let next = (*at).max(now) + one;
        match (next - now).checked_sub(burst) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                *at = next;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TokenId = [1; 32];
    const B: TokenId = [2; 32];

    fn space(id: &str) -> SpaceId {
        SpaceId::new(id).unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let rate = RateLimit::new(10);
        let start = Instant::now();
        let (s, t) = (space("s"), space("t"));
        for _ in 0..20 {
            rate.take(A, &s, start).unwrap();
        }
        let wait = rate.take(A, &s, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        rate.take(B, &s, start).unwrap();
        rate.take(A, &t, start).unwrap();
        rate.take(A, &s, start + wait).unwrap();
        rate.take(A, &s, start + wait).unwrap_err();
    }

    #[test]
    fn no_limit_is_no_limit() {
        let rate = RateLimit::new(0);
        let now = Instant::now();
        assert!((0..1_000).all(|_| rate.take(A, &space("s"), now).is_ok()));
    }
}
