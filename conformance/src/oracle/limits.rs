//! Limits as the specification states them: floors that every server must
//! support, ceilings, and the fixed ones.

use crate::schema::v1;

/// The longest key.
pub const KEY_BYTES: usize = 512;

/// The least that a server may advertise, by the names of the fields of
/// `gosync.v1.Limits`. 0: may be unlimited.
pub const FLOOR: &[(&str, u64)] = &[
    ("max_message_bytes", 1 << 20),
    ("max_value_bytes", 64 << 10),
    ("max_push_records", 100),
    ("max_ranges", 16),
    ("max_reconcile_entries", 1_000),
    ("max_response_bytes", 64 << 10),
    ("max_clock_skew_ms", 1_000),
    ("max_streams_per_connection", 8),
    ("max_space_records", 0),
    ("max_space_bytes", 0),
    ("heartbeat_interval_ms", 100),
    ("watchdog_ms", 300),
    ("max_stream_lifetime_ms", 0),
    ("max_calls_per_second", 0),
];

/// The most that a server may advertise, where there is a bound.
pub const CEILING: &[(&str, u64)] = &[
    ("max_value_bytes", 16 << 20),
    ("max_response_bytes", 16 << 20),
];

/// The ceiling of a field; none is as good as infinity.
pub fn ceiling(name: &str) -> u64 {
    let known = CEILING.iter().find(|(field, _)| *field == name);
    known.map_or(u64::MAX, |(_, ceiling)| *ceiling)
}

/// A field of the message by its name.
pub fn field(limits: &v1::Limits, name: &str) -> Option<u64> {
    Some(match name {
        "max_message_bytes" => limits.max_message_bytes,
        "max_value_bytes" => limits.max_value_bytes,
        "max_push_records" => limits.max_push_records,
        "max_ranges" => limits.max_ranges,
        "max_reconcile_entries" => limits.max_reconcile_entries,
        "max_response_bytes" => limits.max_response_bytes,
        "max_clock_skew_ms" => limits.max_clock_skew_ms,
        "max_streams_per_connection" => limits.max_streams_per_connection,
        "max_space_records" => limits.max_space_records,
        "max_space_bytes" => limits.max_space_bytes,
        "heartbeat_interval_ms" => limits.heartbeat_interval_ms,
        "watchdog_ms" => limits.watchdog_ms,
        "max_stream_lifetime_ms" => limits.max_stream_lifetime_ms,
        "max_calls_per_second" => limits.max_calls_per_second,
        _ => return None,
    })
}

/// How a replica reads what a server advertises (LIMIT-007, LIMIT-016):
/// `Some(None)` for no limit at all, `None` for a field that does not exist.
pub fn limit_means(name: &str, advertised: u64) -> Option<Option<u64>> {
    let (_, floor) = FLOOR.iter().find(|(field, _)| *field == name)?;
    Some(match (advertised, floor) {
        (0, 0) => None,
        _ => Some(advertised.max(*floor).min(ceiling(name))),
    })
}

/// The reason for which something is refused that measures `actual` where
/// `allowed` is allowed; `None` when it is accepted.
pub fn over_limit(limit: &str, allowed: u64, actual: u64) -> Option<&'static str> {
    let within = actual <= allowed;
    match limit {
        "space_id" => (actual == 0 || !within).then_some("MALFORMED"),
        "digest_len" => (!matches!(actual, 0 | 4..=8 | 32)).then_some("MALFORMED"),
        "max_key_bytes" if actual == 0 => Some("MALFORMED"),
        _ if within || limit_means(limit, allowed) == Some(None) => None,
        "max_space_records" | "max_space_bytes" => Some("QUOTA_EXCEEDED"),
        "max_calls_per_second" => Some("RATE_LIMITED"),
        _ => Some("LIMIT_EXCEEDED"),
    }
}

/// Whether a text may be a space id.
pub fn check_space_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 128
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
}
