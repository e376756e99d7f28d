//! The hybrid logical clock.

/// What issuing a version comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issue {
    /// The new time, which is also the new floor.
    Time(u64),
    /// No time is left above what must be exceeded.
    Exhausted,
}

/// The time of a write at wall clock `now_ms` by a clock that last issued
/// `floor`, replacing a record whose time is `replaces`.
pub fn issue(now_ms: u64, floor: u64, replaces: Option<u64>) -> Issue {
    let wall = now_ms.min((1 << 48) - 1) << 16;
    let mut candidates = vec![Some(wall), floor.checked_add(1)];
    if let Some(old) = replaces {
        candidates.push(old.checked_add(1));
    }
    match candidates.into_iter().collect::<Option<Vec<u64>>>() {
        Some(times) => Issue::Time(times.into_iter().max().unwrap_or(wall)),
        None => Issue::Exhausted,
    }
}

/// The highest time that a server whose clock reads `now_ms` accepts.
pub fn skew_bound(now_ms: u64, max_clock_skew_ms: u64) -> u64 {
    let ms = now_ms.saturating_add(max_clock_skew_ms).min((1 << 48) - 1);
    (ms << 16) | 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_of_wall_floor_and_replaced_decides() {
        assert_eq!(issue(5, 0, None), Issue::Time(5 << 16));
        assert_eq!(issue(5, 9 << 16, None), Issue::Time((9 << 16) + 1));
        assert_eq!(issue(5, 0, Some(9 << 16)), Issue::Time((9 << 16) + 1));
        assert_eq!(issue(5, 0, Some(u64::MAX)), Issue::Exhausted);
    }
}
