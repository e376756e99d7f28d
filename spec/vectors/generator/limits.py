"""The file of limits (chapter 13): what an advertised value means, and what is over a limit."""

from .protobuf import field, varint

FLOORS = {
    "max_message_bytes": 1 << 20,
    "max_value_bytes": 1 << 16,
    "max_push_records": 100,
    "max_ranges": 16,
    "max_reconcile_entries": 1_000,
    "max_response_bytes": 1 << 16,
    "max_clock_skew_ms": 1_000,
    "max_streams_per_connection": 8,
    "max_space_records": 0,
    "max_space_bytes": 0,
    "heartbeat_interval_ms": 100,
    "watchdog_ms": 300,
    "max_stream_lifetime_ms": 0,
    "max_calls_per_second": 0,
}
FIXED = {"max_key_bytes": 512, "max_bound_bytes": 513}
REASONS = {"max_space_records": "QUOTA_EXCEEDED", "max_space_bytes": "QUOTA_EXCEEDED", "max_calls_per_second": "RATE_LIMITED"}


def means(name, advertised):
    """LIMIT-007; 0 means that there is no such limit where the floor is 0."""
    floor = FLOORS[name]
    return "none" if floor == 0 and advertised == 0 else str(max(advertised, floor))


def detail(limit, allowed, actual):
    """gosync.v1.LimitDetail; `actual` is optional, so it is there also when it is 0."""
    return field(1, "bytes", limit) + field(2, "varint", allowed) + varint(3 << 3) + varint(actual)


def refusal(limit, allowed, actual):
    if limit == "space_id":
        return None if 1 <= actual <= 128 else "MALFORMED"
    if limit == "digest_len":
        return None if actual in (0, 4, 5, 6, 7, 8, 32) else "MALFORMED"
    if limit == "max_key_bytes" and actual == 0:
        return "MALFORMED"
    if allowed == 0 and FLOORS.get(limit) == 0:
        return None
    return None if actual <= allowed else REASONS.get(limit, "LIMIT_EXCEEDED")


def limit_vectors():
    out = []
    for name, floor in FLOORS.items():
        values = {"0": 0, "below the floor": floor - 1, "the floor": floor, "above the floor": floor + 1}
        for title, value in values.items():
            if value >= 0 and (floor or title in ("0", "above the floor")):
                out.append(
                    {
                        "name": "read: %s, %s" % (name, title),
                        "valid": True,
                        "field": name,
                        "advertised": str(value),
                        "means": means(name, value),
                    }
                )
    sizes = [
        *[("max_key_bytes", FIXED["max_key_bytes"], n) for n in (0, 1, 512, 513)],
        *[("max_bound_bytes", FIXED["max_bound_bytes"], n) for n in (0, 513, 514)],
        *[("space_id", 128, n) for n in (0, 1, 128, 129)],
        *[("digest_len", 32, n) for n in (0, 1, 3, 4, 5, 8, 9, 31, 32, 33)],
        *[("max_value_bytes", 1 << 20, n) for n in (0, 1 << 20, (1 << 20) + 1)],
        *[("max_push_records", 5_000, n) for n in (0, 5_000, 5_001)],
        *[("max_ranges", 256, n) for n in (256, 257)],
        *[("max_reconcile_entries", 400_000, n) for n in (400_000, 400_001)],
        *[("max_message_bytes", 4 << 20, n) for n in (4 << 20, (4 << 20) + 1)],
        *[("max_space_records", 1_000, n) for n in (1_000, 1_001)],
        *[("max_space_bytes", 1_000, n) for n in (1_000, 1_001)],
        ("max_space_records", 0, 1 << 40),
        *[("max_calls_per_second", 10, n) for n in (10, 11)],
        ("max_calls_per_second", 0, 1 << 20),
    ]
    for limit, allowed, actual in sizes:
        failure = refusal(limit, allowed, actual)
        case = {
            "name": "size: %s of %d is %d" % (limit, allowed, actual),
            "valid": failure is None,
            "limit": limit,
            "allowed": str(allowed),
            "actual": str(actual),
        }
        if failure:
            case["failure"] = failure
        if failure in ("LIMIT_EXCEEDED", "QUOTA_EXCEEDED"):
            case["detail"] = detail(limit, allowed, actual).hex()
        out.append(case)
    return "limits", "What an advertised limit means, and what is over a limit.", out
