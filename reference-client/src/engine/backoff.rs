//! How long to wait before the next try: doubling, with jitter, so that many
//! replicas do not return at once. Knows no clock.

use gosync_proto::mutant;

/// The first wait, milliseconds.
const FIRST_MS: u64 = 250;
/// The longest wait, milliseconds.
pub const CAP_MS: u64 = 30_000;

/// The wait where the server named one: whoever else was told it comes back
/// too, so it is the lower end of an interval.
pub fn named(entropy: u64, at_least: u64) -> u64 {
    at_least.saturating_add(entropy % at_least.saturating_add(1))
}

/// Counts failures in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure: between half of the full wait and all
    /// of it, chosen by `entropy`; or [`named`], where that is longer.
    pub fn next(&mut self, entropy: u64, at_least: u64) -> u64 {
        let first = if mutant!(FirstPauseLong) {
            8_000
        } else {
            FIRST_MS
        };
        let full = first.saturating_mul(1 << self.failures.min(16)).min(CAP_MS);
        if !mutant!(NoBackoff) {
            self.failures = self.failures.saturating_add(1);
        }
        let entropy = if mutant!(NoJitter) { 0 } else { entropy };
        let own = full / 2 + entropy % (full / 2 + 1);
        own.max(named(entropy, at_least))
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_never_fall_below_half() {
        let mut least = Backoff::default();
        let mut most = Backoff::default();
        for n in 0..40u32 {
            let full = (250u64 << n.min(16)).min(CAP_MS);
            assert_eq!(least.next(0, 0), full / 2);
            assert_eq!(most.next(full / 2, 0), full);
        }
        most.reset();
        assert!(most.next(u64::MAX, 0) <= 250);
    }

    #[test]
    fn the_server_may_ask_for_a_longer_wait() {
        assert_eq!(Backoff::default().next(0, 5_000), 5_000);
        assert_eq!(Backoff::default().next(5_000, 5_000), 10_000);
        assert!(Backoff::default().next(u64::MAX, u64::MAX) == u64::MAX);
    }
}
