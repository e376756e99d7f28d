"""Which rule a request breaks (chapters 1, 4 and 5), and what limits mean (chapter 13)."""

import re

from .protobuf import PACKAGE, Refused, decode, encode
from .records import defect, record

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
CEILINGS = {"max_value_bytes": 1 << 24, "max_response_bytes": 1 << 24}
REASONS = {"max_space_records": "QUOTA_EXCEEDED", "max_space_bytes": "QUOTA_EXCEEDED", "max_calls_per_second": "RATE_LIMITED"}


def one(values, otherwise=b""):
    """Of several values of a field that is not repeated, the last counts."""
    return values[-1] if values else otherwise


def refusal(kind, data):
    """The class of what is wrong with a request's bytes; None when nothing is."""
    try:
        request = decode(kind.removeprefix(PACKAGE), data)
    except Refused as refused:
        return str(refused)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", one(request["space"], "")):
        return "space_id"
    return held_refusal(request["held"]) or records_refusal(request.get("records", []))


def held_refusal(entries):
    every = []
    for entry in entries:
        ranges = [(one(r["start"]), one(r["end"], None)) for r in entry["ranges"]]
        if not ranges:
            return "no_ranges"
        if any(len(bound) > 513 for pair in ranges for bound in pair if bound is not None):
            return "long_bound"
        if any(end is not None and end <= start for start, end in ranges):
            return "inverted_range"
        if ranges != sorted(ranges, key=lambda pair: pair[0]):
            return "unsorted_ranges"
        every += ranges
    every.sort(key=lambda pair: pair[0])
    overlap = any(end is None or end > start for (_, end), (start, _) in zip(every, every[1:]))
    return "overlapping_ranges" if overlap else None


def records_refusal(records):
    keys = set()
    for r in records:
        if not r["version"]:
            return "no_version"
        version = one(r["version"])
        numbers = [one(version[n], 0) for n in ("time", "replica")]
        found = record(one(r["key"]), *numbers, one(r["flags"], 0), one(r["value"]))
        if defect(found):
            return defect(found)
        if found["key"] in keys:
            return "duplicate_key"
        keys.add(found["key"])
    return None


def means(field, advertised):
    """LIMIT-007; 0 means that there is no such limit where the floor is 0."""
    if FLOORS[field] == 0 and advertised == 0:
        return "none"
    return str(min(max(advertised, FLOORS[field]), CEILINGS.get(field, 1 << 64)))


def over(limit, allowed, actual):
    """The reason for which something is refused that measures `actual`; None when it is not."""
    if limit == "space_id":
        return None if 1 <= actual <= 128 else "MALFORMED"
    if limit == "digest_len":
        return None if actual in (0, 4, 5, 6, 7, 8, 32) else "MALFORMED"
    if limit == "max_key_bytes" and actual == 0:
        return "MALFORMED"
    if allowed == 0 and FLOORS.get(limit) == 0:
        return None
    return None if actual <= allowed else REASONS.get(limit, "LIMIT_EXCEEDED")


def detail(limit, allowed, actual):
    return encode("LimitDetail", 'limit: "%s" allowed: %d actual: %d' % (limit, allowed, actual))
