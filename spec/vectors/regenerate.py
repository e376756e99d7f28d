#!/usr/bin/env python3
"""Makes every vector file of this folder, from the specification's text alone.

Standard library only, and no code in common with any other implementation of
the protocol: the rules are written here a second time, so that a mistake in
one place shows. `regenerate.py` writes the files; `regenerate.py --check`
compares them with what it would write, and exits with 1 when they differ.
`regenerate.py --search` looks for the set of the additive collision again
(about two minutes); its result is otherwise taken from ADDITIVE below, and
verified.
"""

import hashlib
import json
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
U64 = (1 << 64) - 1


# ---------------------------------------------------------------- rules ----


def sha256(data):
    return hashlib.sha256(data).digest()


def record(key, time=65536, replica=1, value=b"", tombstone=False, flags=None):
    return {
        "key": key if isinstance(key, bytes) else key.encode(),
        "time": time,
        "replica": replica,
        "flags": (1 if tombstone else 0) if flags is None else flags,
        "value": value if isinstance(value, bytes) else value.encode(),
    }


def is_tombstone(r):
    return r["flags"] & 1 == 1


def value_hash(r):
    return bytes(32) if is_tombstone(r) else sha256(r["value"])


def preimage(r):
    return (
        b"gosync.v1.record"
        + struct.pack(">IQQI", r["flags"], r["time"], r["replica"], len(r["key"]))
        + r["key"]
        + value_hash(r)
    )


def digest(r):
    return sha256(preimage(r))


def defect(r):
    if not r["key"]:
        return "empty_key"
    if len(r["key"]) > 512:
        return "long_key"
    if r["flags"] & ~1:
        return "unknown_flag"
    if is_tombstone(r) and r["value"]:
        return "tombstone_with_value"
    return None


def rank(r):
    return (r["time"], r["replica"], is_tombstone(r), value_hash(r))


def winner(a, b):
    """'a', 'b' or 'same'."""
    if rank(a) == rank(b):
        return "same"
    return "a" if rank(a) > rank(b) else "b"


def key_bits(key):
    """For every byte a 1 and its bits, most significant first."""
    return "".join("1" + format(byte, "08b") for byte in key)


def bit(bits, i):
    """After the end, zeros."""
    return bits[i] if i < len(bits) else "0"


def fingerprint(records):
    """Of records in key order, each key once."""
    if not records:
        return bytes(32)
    if len(records) == 1:
        return digest(records[0])
    bits = [key_bits(r["key"]) for r in records]
    i = 0
    while len({bit(b, i) for b in bits}) == 1:
        i += 1
    zeros = [r for r, b in zip(records, bits) if bit(b, i) == "0"]
    ones = [r for r, b in zip(records, bits) if bit(b, i) == "1"]
    return sha256(b"gosync.v1.branch" + fingerprint(zeros) + fingerprint(ones))


def in_range(key, start, end):
    return start <= key and (end is None or key < end)


def range_state(records, start, end, horizon):
    inside = sorted(
        (
            r
            for r in records
            if in_range(r["key"], start, end)
            and not (is_tombstone(r) and r["time"] < horizon)
        ),
        key=lambda r: r["key"],
    )
    return len(inside), fingerprint(inside)


def issue(now_ms, floor, replaces):
    """The next time of a clock, or None when there is none left."""
    candidates = [min(now_ms, (1 << 48) - 1) << 16, floor + 1]
    if replaces is not None:
        candidates.append(replaces + 1)
    return None if max(candidates) > U64 else max(candidates)


def skew_bound(now_ms, skew_ms):
    return (min(now_ms + skew_ms, (1 << 48) - 1) << 16) | 0xFFFF


def documents(records, collection):
    """Which documents and fields a reader shows."""
    parts = {}
    for r in records:
        pieces = r["key"].split(b"\0", 2)
        if len(pieces) == 3 and pieces[0] == collection and pieces[1]:
            parts.setdefault(pieces[1], {})[pieces[2]] = r
    shown = {}
    for id_, fields in parts.items():
        existence = fields.get(b"")
        if existence is None or is_tombstone(existence):
            continue
        since = (existence["time"], existence["replica"])
        shown[id_] = {
            name: r["value"]
            for name, r in fields.items()
            if name and not is_tombstone(r) and (r["time"], r["replica"]) >= since
        }
    return shown


# ----------------------------------------------------------- protobuf ----


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, kind, value):
    """One field; zero and empty are left out, as proto3 does."""
    if kind == "fixed64":
        return varint(number << 3 | 1) + struct.pack("<Q", value) if value else b""
    if kind == "varint":
        return varint(number << 3) + varint(int(value)) if value else b""
    if kind == "bytes":
        data = value if isinstance(value, bytes) else value.encode()
        return varint(number << 3 | 2) + varint(len(data)) + data if data else b""
    if kind == "message":  # also when it is empty
        return varint(number << 3 | 2) + varint(len(value)) + value
    raise ValueError(kind)


def version_message(time, replica):
    return field(1, "fixed64", time) + field(2, "fixed64", replica)


def record_message(r):
    return (
        field(1, "bytes", r["key"])
        + field(2, "message", version_message(r["time"], r["replica"]))
        + field(3, "varint", r["flags"])
        + field(4, "bytes", r["value"])
    )


def range_message(start, end):
    return field(1, "bytes", start) + (b"" if end is None else field(2, "message", end))


def cursor_message(epoch, sequence, tag):
    return field(1, "fixed64", epoch) + field(2, "varint", sequence) + field(3, "fixed64", tag)


def held_message(ranges, cursor=None):
    out = b"".join(field(1, "message", range_message(*r)) for r in ranges)
    return out + (b"" if cursor is None else field(2, "message", cursor_message(*cursor)))


def position_message(cursor, horizon):
    return field(1, "message", cursor_message(*cursor)) + field(2, "fixed64", horizon)


# ------------------------------------------------------------- helpers ----


def plain(r):
    return {
        "key": r["key"].hex(),
        "time": str(r["time"]),
        "replica": str(r["replica"]),
        "flags": r["flags"],
        "value": r["value"].hex(),
    }


def ms(n, counter=0):
    return n << 16 | counter


MILK = record("milk", ms(1_700_000_000_000), 0x0123456789ABCDEF, "2 litres")


# --------------------------------------------------------------- files ----


def digest_vectors():
    cases = [
        ("a put", MILK),
        ("a tombstone of the same version", record("milk", MILK["time"], MILK["replica"], tombstone=True)),
        ("an empty value is no tombstone", record("milk", MILK["time"], MILK["replica"])),
        ("the shortest key", record(b"\0", 1, 1, "v")),
        ("the longest key", record(b"\xff" * 512, 1, 1, "v")),
        ("a key of which another is a prefix", record("milk\0", MILK["time"], MILK["replica"], "2 litres")),
        ("all numbers zero", record("k", 0, 0, "")),
        ("all numbers at their maximum", record("k", U64, U64, "v")),
        ("a value of 1,000 bytes", record("k", 1, 1, b"\xa5" * 1000)),
        ("a key that is no UTF-8", record(b"\xc3\x28\x80", 1, 1, "v")),
    ]
    out = [
        {"name": n, "valid": True, "record": plain(r), "preimage": preimage(r).hex(), "digest": digest(r).hex()}
        for n, r in cases
    ]
    bad = [
        ("an empty key", record(b"", 1, 1, "v")),
        ("a key of 513 bytes", record(b"k" * 513, 1, 1, "v")),
        ("an unknown flag", record("k", 1, 1, "v", flags=2)),
        ("an unknown flag beside the tombstone's", record("k", 1, 1, flags=0x80000001)),
        ("a tombstone with a value", record("k", 1, 1, "v", flags=1)),
    ]
    out += [{"name": n, "valid": False, "record": plain(r), "failure": defect(r)} for n, r in bad]
    return "digest", "The digest of a record, and records that may not exist.", out


def order_vectors():
    pairs = [
        ("equal", (5, 5), (5, 5)),
        ("by time", (1, 9), (2, 0)),
        ("by replica at equal times", (5, 1), (5, 2)),
        ("replicas compare as unsigned", (5, (1 << 63) - 1), (5, 1 << 63)),
        ("times compare as unsigned", ((1 << 63) - 1, 0), (1 << 63, 0)),
        ("the counter is part of the time", (ms(7, 1), 0), (ms(7, 2), 0)),
        ("a millisecond is above every counter", (ms(7, 0xFFFF), U64), (ms(8), 0)),
    ]
    out = []
    for name, a, b in pairs:
        for title, x, y in [(name, a, b), (name + ", exchanged", b, a)]:
            out.append(
                {
                    "name": title,
                    "valid": True,
                    "a": {"time": str(x[0]), "replica": str(x[1])},
                    "b": {"time": str(y[0]), "replica": str(y[1])},
                    "order": "equal" if x == y else ("less" if x < y else "greater"),
                }
            )
    return "order", "The order of versions.", out


def clock_vectors():
    out = []
    for name, now, floor, replaces in [
        ("a new clock", 1000, 0, None),
        ("twice in one millisecond", 1000, ms(1000), None),
        ("the wall clock went back", 999, ms(1000, 1), None),
        ("a full counter carries", 3, ms(5, 0xFFFF), None),
        ("above what it replaces", 1000, 0, ms(2000, 5)),
        ("the wall clock is beyond 48 bits", 1 << 50, 0, None),
        ("the last time that there is", 1, U64 - 1, None),
        ("no time is left above the floor", 1, U64, None),
        ("no time is left above what it replaces", 1, 0, U64),
    ]:
        time = issue(now, floor, replaces)
        case = {
            "name": name,
            "valid": time is not None,
            "now_ms": str(now),
            "floor": str(floor),
            "replaces": None if replaces is None else str(replaces),
        }
        case.update({"failure": "exhausted"} if time is None else {"time": str(time)})
        out.append(case)
    for name, now, skew, time in [
        ("at the clock", 1_000_000, 300_000, ms(1_000_000)),
        ("the last of the bound's millisecond", 1_000_000, 300_000, ms(1_300_000, 0xFFFF)),
        ("the first beyond", 1_000_000, 300_000, ms(1_300_001)),
        ("the greatest time", 1_000_000, 300_000, U64),
        ("time zero", 1_000_000, 300_000, 0),
    ]:
        good = time <= skew_bound(now, skew)
        case = {"name": "bound: " + name, "valid": good, "now_ms": str(now), "skew_ms": str(skew), "time": str(time)}
        if not good:
            case["failure"] = "CLOCK_SKEW"
        out.append(case)
    return "clock", "Issuing versions, and the bound on the future.", out


def merge_vectors():
    base = record("k", ms(5), 5, "value")
    others = [
        ("newer time", record("k", ms(6), 1, "other")),
        ("newer by one tick", record("k", ms(5, 1), 1, "other")),
        ("greater replica", record("k", ms(5), 6, "other")),
        ("the same record", dict(base)),
        ("same version, other value", record("k", ms(5), 5, "other")),
        ("same version, empty value", record("k", ms(5), 5, "")),
        ("same version, tombstone", record("k", ms(5), 5, tombstone=True)),
        ("older tombstone", record("k", ms(4), 9, tombstone=True)),
        ("newer tombstone", record("k", ms(6), 0, tombstone=True)),
    ]
    out = []
    for name, other in others:
        for title, a, b in [(name, base, other), (name + ", exchanged", other, base)]:
            out.append({"name": title, "valid": True, "a": plain(a), "b": plain(b), "winner": winner(a, b)})
    return "merge", "Which of two records under one key is kept.", out


def fingerprint_vectors():
    def keys(*names):
        return [record(n, ms(1), 1, b"value of " + (n if isinstance(n, bytes) else n.encode())) for n in names]

    sets = [
        ("no records", [], 0),
        ("one record", keys("a"), 0),
        ("two records", keys("a", "b"), 0),
        ("three records", keys("a", "b", "c"), 0),
        ("a key and its extension", keys("a", "a\0"), 0),
        ("prefixes of each other", keys("a", "ab", "abc", "b", "ba"), 0),
        ("zero and 0xff bytes", keys(b"\0", b"\0\0", b"\xff", b"\xff\0", b"\xff\xff"), 0),
        ("above and below the surrogates", keys("\uffff", "\U00010000"), 0),
        ("a tombstone counts", keys("a") + [record("b", ms(9), 1, tombstone=True)], ms(9)),
        ("a tombstone below the horizon does not", keys("a") + [record("b", ms(8), 1, tombstone=True)], ms(9)),
        ("a put below the horizon does", keys("a", "b"), ms(9)),
        ("a chain: each key extends the one before", keys(*["k" * n for n in range(1, 20)]), 0),
        ("a hundred counters", keys(*["item-%03d" % n for n in range(100)]), 0),
    ]
    out = []
    for name, records, horizon in sets:
        count, fp = range_state(records, b"", None, horizon)
        out.append(
            {
                "name": name,
                "valid": True,
                "records": [plain(r) for r in records],
                "horizon": str(horizon),
                "count": count,
                "fingerprint": fp.hex(),
            }
        )
    return "fingerprint", "The fingerprint of a set of records.", out


def range_vectors():
    records = [
        record(n, ms(i), 1, "v")
        for i, n in enumerate(["a", "ab", "b", "b\0", "ba", "c", b"\xff", b"\xff\xff"])
    ] + [record("bb", ms(3), 1, tombstone=True)]
    out = []
    for name, start, end in [
        ("all keys", b"", None),
        ("the end is not in the range", b"a", b"b"),
        ("the start is", b"b", b"c"),
        ("one key", b"b", b"b\0"),
        ("a prefix", b"a", b"b"),
        ("nothing between", b"bc", b"c"),
        ("no upper end", b"c", None),
        ("from the lowest", b"", b"ab"),
        ("an end that is no key", b"a", b"aa\xff\xff"),
    ]:
        count, fp = range_state(records, start, end, 0)
        out.append(
            {
                "name": name,
                "valid": True,
                "records": [plain(r) for r in records],
                "horizon": "0",
                "start": start.hex(),
                "end": None if end is None else end.hex(),
                "count": count,
                "fingerprint": fp.hex(),
            }
        )
    for name, start, end in [("inverted", b"b", b"a"), ("empty", b"a", b"a"), ("empty at the beginning", b"", b"")]:
        out.append(
            {
                "name": name,
                "valid": False,
                "records": [],
                "horizon": "0",
                "start": start.hex(),
                "end": end.hex(),
                "failure": "MALFORMED",
            }
        )
    return "range", "The fingerprint of a key range.", out


def document_vectors():
    def key(field_name, id_="t1", collection="todos"):
        return b"\0".join([collection.encode(), id_.encode(), field_name.encode()])

    out = []
    for name, collection, id_, field_name in [
        ("the existence record", "todos", "t1", ""),
        ("a field", "todos", "t1", "title"),
        ("names beyond ASCII", "Städte", "zürich", "größe"),
        ("an id that looks like a path", "files", "a/b.c", "size"),
    ]:
        k = key(field_name, id_, collection)
        out.append(
            {
                "name": "key: " + name,
                "valid": True,
                "collection": collection,
                "id": id_,
                "field": field_name,
                "key": k.hex(),
            }
        )
    views = [
        ("two fields", [record(key(""), 5), record(key("title"), 6, 1, '"Milk"'), record(key("done"), 7, 1, "false")]),
        ("no existence record", [record(key("title"), 6, 1, '"Milk"')]),
        ("deleted, then a late patch", [record(key(""), 9, tombstone=True), record(key("title"), 10, 1, '"late"')]),
        ("created again: old fields do not show", [record(key(""), 9), record(key("title"), 8, 1, '"old"')]),
        ("a field of the same version shows", [record(key(""), 9, 4), record(key("title"), 9, 4, '"same"')]),
        ("a field of the same time and a lower replica does not", [record(key(""), 9, 4), record(key("title"), 9, 3, '"low"')]),
        ("a removed field", [record(key(""), 5), record(key("title"), 6, tombstone=True)]),
        ("an id that extends another", [record(key(""), 5), record(key("", "t10"), 5), record(key("x", "t10"), 6, 1, "1")]),
        ("keys that are no documents", [record("todos", 5, 1, "v"), record(b"todos\0", 5, 1, "v"), record(b"todos\0\0f", 5, 1, "v")]),
        ("another collection", [record(key("", "t1", "todo"), 5), record(key("", "t1", "todos2"), 5)]),
        ("a field name with a zero byte", [record(key(""), 5), record(key("") + b"a\0b", 6, 1, "1")]),
    ]
    for name, records in views:
        shown = documents(records, b"todos")
        out.append(
            {
                "name": "view: " + name,
                "valid": True,
                "collection": "todos",
                "records": [plain(r) for r in records],
                "documents": {
                    i.hex(): {n.hex(): v.hex() for n, v in sorted(f.items())} for i, f in sorted(shown.items())
                },
            }
        )
    return "documents", "Keys of documents and fields, and what a reader shows.", out


def message_vectors():
    cursor = (0x1122334455667788, 42, 0x99AABBCCDDEEFF00)
    cursor_text = "epoch: %d sequence: 42 tag: %d" % (cursor[0], cursor[2])
    tomb = record("eggs", MILK["time"] + 1, 1, tombstone=True)
    milk_text = 'key: "milk" version { time: %d replica: %d } value: "2 litres"' % (MILK["time"], MILK["replica"])
    tomb_text = 'key: "eggs" version { time: %d replica: 1 } flags: 1' % tomb["time"]
    all_held = held_message([(b"", None)], cursor)
    all_text = "held { ranges { } cursor { %s } }" % cursor_text
    items = [
        ("Record, a put", "Record", milk_text, record_message(MILK)),
        ("Record, a tombstone", "Record", tomb_text, record_message(tomb)),
        ("Range, all keys", "Range", "", range_message(b"", None)),
        ("Range, one key", "Range", 'start: "b" end: "b\\000"', range_message(b"b", b"b\0")),
        ("Cursor", "Cursor", cursor_text, cursor_message(*cursor)),
        (
            "HeldRanges, two ranges",
            "HeldRanges",
            'ranges { start: "a" end: "b" } ranges { start: "c" } cursor { %s }' % cursor_text,
            held_message([(b"a", b"b"), (b"c", None)], cursor),
        ),
        (
            "HelloRequest",
            "HelloRequest",
            'versions: 1 features: FEATURE_RECONCILE features: FEATURE_LIVE space: "home" %s client: "example 1.0"' % all_text,
            field(1, "message", b"\x01")
            + field(2, "message", b"\x01\x02")
            + field(3, "bytes", "home")
            + field(4, "message", all_held)
            + field(8, "bytes", "example 1.0"),
        ),
        (
            "PushRequest",
            "PushRequest",
            'space: "home" records { %s } records { %s } atomic: true %s' % (milk_text, tomb_text, all_text),
            field(1, "bytes", "home")
            + field(2, "message", record_message(MILK))
            + field(2, "message", record_message(tomb))
            + field(3, "varint", 1)
            + field(4, "message", all_held),
        ),
        (
            "PushResponse",
            "PushResponse",
            "verdicts { outcome: OUTCOME_APPLIED sequence: 43 } verdicts { outcome: OUTCOME_REJECTED reason: REASON_CLOCK_SKEW }"
            " position { head { epoch: %d sequence: 43 tag: 7 } } server_time_ms: 1700000000500" % cursor[0],
            field(1, "message", field(1, "varint", 1) + field(2, "varint", 43))
            + field(1, "message", field(1, "varint", 4) + field(4, "varint", 7))
            + field(2, "message", position_message((cursor[0], 43, 7), 0))
            + field(3, "varint", 1_700_000_000_500),
        ),
        (
            "WatchRequest",
            "WatchRequest",
            'space: "home" %s until_caught_up: true' % all_text,
            field(1, "bytes", "home") + field(2, "message", all_held) + field(5, "varint", 1),
        ),
        (
            "WatchResponse, Changes",
            "WatchResponse",
            "changes { records { %s } cursor { %s } }" % (milk_text, cursor_text),
            field(
                1,
                "message",
                field(1, "message", record_message(MILK)) + field(2, "message", cursor_message(*cursor)),
            ),
        ),
        (
            "WatchResponse, Heartbeat",
            "WatchResponse",
            "heartbeat { server_time_ms: 1700000000500 }",
            field(3, "message", field(1, "varint", 1_700_000_000_500)),
        ),
        ("WatchResponse, the end of a stream", "WatchResponse", "end { }", field(4, "message", b"")),
        (
            "SnapshotRequest, resumed",
            "SnapshotRequest",
            'space: "home" held { ranges { } } after_key: "milk"',
            field(1, "bytes", "home") + field(2, "message", held_message([(b"", None)])) + field(4, "message", b"milk"),
        ),
    ]
    out = [{"name": n, "valid": True, "type": "gosync.v1." + t, "text": x, "hex": b.hex()} for n, t, x, b in items]
    return "messages", "Messages in text and as bytes (fields in the order of their numbers).", out


def malformed_vectors():
    push = field(1, "bytes", "home") + field(2, "message", record_message(MILK))

    def hello(held):
        return field(1, "message", b"\x01") + field(3, "bytes", "home") + b"".join(field(4, "message", h) for h in held)

    def bad(r):
        return field(1, "bytes", "home") + field(2, "message", record_message(r))

    items = [
        # class, name, type, bytes
        ("truncated", "cut within the last field", "PushRequest", push[:-3]),
        ("truncated", "cut within a varint", "PushRequest", push + b"\x80"),
        ("length_beyond_end", "a length beyond the end", "PushRequest", push + b"\x12\x7f\x01"),
        ("length_beyond_end", "a nested length beyond its message", "PushRequest", push + b"\x12\x02\x0a\x05"),
        ("varint_too_long", "a varint of eleven bytes", "PushRequest", push + b"\xc0\x3e" + b"\xff" * 10 + b"\x01"),
        ("wrong_wire_type", "records as a varint", "PushRequest", push + b"\x10\x01"),
        ("wrong_wire_type", "a version's time as a varint", "Version", b"\x08\x01"),
        ("invalid_wire_type", "wire type 6", "PushRequest", push + b"\x0e"),
        ("unclosed_group", "a group without end", "PushRequest", push + b"\xc3\x3e\x08\x01"),
        ("field_zero", "field number 0", "PushRequest", push + b"\x00\x00"),
        ("invalid_utf8", "a space that is no UTF-8", "PushRequest", b"\x0a\x02\xc3\x28"),
        ("space_id", "an empty space id", "PushRequest", field(2, "message", record_message(MILK))),
        ("space_id", "a slash in the space id", "PushRequest", field(1, "bytes", "a/b")),
        ("space_id", "a space id of 129 bytes", "PushRequest", field(1, "bytes", "x" * 129)),
        ("inverted_range", "an end below the start", "HelloRequest", hello([held_message([(b"b", b"a")])])),
        ("inverted_range", "an end equal to the start", "HelloRequest", hello([held_message([(b"b", b"b")])])),
        ("unsorted_ranges", "ranges out of order", "HelloRequest", hello([held_message([(b"c", b"d"), (b"a", b"b")])])),
        ("overlapping_ranges", "two entries that overlap", "HelloRequest", hello([held_message([(b"", None)]), held_message([(b"b", b"c")])])),
        ("no_ranges", "an entry without ranges", "HelloRequest", hello([b""])),
        ("long_bound", "a bound of 514 bytes", "HelloRequest", hello([held_message([(b"", b"k" * 514)])])),
        ("duplicate_key", "one key twice in a push", "PushRequest", push + field(2, "message", record_message(MILK))),
        ("empty_key", "a record without key", "PushRequest", bad(record(b"", 1, 1, "v"))),
        ("long_key", "a key of 513 bytes", "PushRequest", bad(record(b"k" * 513, 1, 1, "v"))),
        ("unknown_flag", "an unknown flag", "PushRequest", bad(record("k", 1, 1, "v", flags=2))),
        ("tombstone_with_value", "a tombstone with a value", "PushRequest", bad(record("k", 1, 1, "v", flags=1))),
        ("no_version", "a record without version", "PushRequest", field(1, "bytes", "home") + field(2, "message", field(1, "bytes", "k"))),
    ]
    out = [
        {"name": n, "valid": False, "type": "gosync.v1." + t, "hex": b.hex(), "failure": c} for c, n, t, b in items
    ]
    return "malformed", "Requests that are refused, and why. The first classes are no messages at all; the others break a rule of the specification.", out


# ----------------------------------------------------------- collisions ----


def numbered(n):
    """The n-th record of the collision sets."""
    return record("n%07d" % n, 65536, 1)


def xor_sets():
    """Two sets of equal size with the same XOR of digests, by elimination."""
    basis = {}  # highest bit -> (value, set of indexes as a bit mask)
    n = 0
    while True:
        value, used = int.from_bytes(digest(numbered(n)), "big"), 1 << n
        n += 1
        while value:
            top = value.bit_length()
            if top not in basis:
                basis[top] = (value, used)
                break
            other, other_used = basis[top]
            value ^= other
            used ^= other_used
        else:
            members = [i for i in range(n) if used >> i & 1]
            if len(members) % 2 == 0:
                half = len(members) // 2
                return members[:half], members[half:]


def additive_sets(bits=128, lists=128, size=1 << 16):
    """Two sets of equal size with the same sum of digests mod 2^bits.

    Wagner's tree algorithm: half of the lists count with a minus.
    """
    modulus = 1 << bits
    per_level = bits // (lists.bit_length())

    def leaf(number):
        base = number * size
        sign = 1 if number % 2 == 0 else -1
        return {
            sign * int.from_bytes(digest(numbered(base + i)), "big") % modulus: (base + i,) for i in range(size)
        }

    def combine(left, right, known):
        mask = (1 << known) - 1
        buckets = {}
        for value, members in right.items():
            buckets.setdefault(value & mask, []).append((value, members))
        out = {}
        for value, members in left.items():
            for other, others in buckets.get(-value & mask, ()):
                out[(value + other) % modulus] = members + others
                if len(out) >= size * 2:
                    return out
        return out

    def tree(first, count):
        if count == 1:
            return leaf(first)
        half = count // 2
        level = count.bit_length() - 1
        known = bits if count == lists else per_level * level
        return combine(tree(first, half), tree(first + half, half), known)

    for value, members in tree(0, lists).items():
        if value == 0:
            plus = sorted(m for m in members if (m // size) % 2 == 0)
            minus = sorted(m for m in members if (m // size) % 2 == 1)
            return plus, minus
    raise SystemExit("no collision was found; enlarge `size`")


# Found by additive_sets(), verified at every run.
ADDITIVE = (
    [
        61342, 170101, 312484, 404437, 546281, 660986, 788537, 959495, 1087638, 1206787, 1332726,
        1490924, 1596851, 1746335, 1878852, 1968595, 2141548, 2263552, 2379367, 2531543, 2678656,
        2816665, 2892700, 3037494, 3200022, 3289553, 3453224, 3570248, 3672289, 3862349, 3932902,
        4071804, 4246231, 4374778, 4495433, 4611895, 4773337, 4884034, 5027326, 5126586, 5263016,
        5434026, 5556719, 5639690, 5812846, 5953973, 6058794, 6196811, 6319099, 6438674, 6580525,
        6703077, 6868316, 6991810, 7092710, 7242172, 7369074, 7494806, 7657202, 7795605, 7865568,
        8001462, 8187110, 8288984,
    ],
    [
        119198, 247132, 381966, 506040, 623423, 762478, 906975, 988257, 1134985, 1300131, 1440616,
        1572374, 1651399, 1782375, 1908960, 2080280, 2210869, 2327035, 2435972, 2589012, 2704524,
        2823001, 2961522, 3089678, 3246883, 3402136, 3480913, 3637924, 3791842, 3925189, 4010176,
        4150718, 4262096, 4449258, 4569328, 4690154, 4831396, 4957381, 5092956, 5216290, 5329478,
        5461722, 5587304, 5746743, 5862200, 6014970, 6133586, 6247879, 6369272, 6539453, 6632604,
        6758561, 6902484, 7073467, 7200156, 7282078, 7412137, 7591099, 7732065, 7820673, 7944868,
        8114399, 8218927, 8362240,
    ],
)


def collision_vectors():
    out = []
    for name, combine, (a, b) in [
        ("xor", "xor", xor_sets()),
        ("sum modulo 2^128", "sum128", ADDITIVE),
    ]:
        sets = [sorted((numbered(i) for i in s), key=lambda r: r["key"]) for s in (a, b)]
        numbers = [[int.from_bytes(digest(r), "big") for r in s] for s in sets]
        weak = []
        for values in numbers:
            total = 0
            for v in values:
                total = total ^ v if combine == "xor" else (total + v) % (1 << 128)
            weak.append(total)
        assert weak[0] == weak[1] and a != b and len(a) == len(b), name
        fps = [fingerprint(s) for s in sets]
        assert fps[0] != fps[1]
        out.append(
            {
                "name": "two sets of equal size with the same " + name + " of digests",
                "valid": True,
                "combine": combine,
                "weak": format(weak[0], "x"),
                "a": [r["key"].hex() for r in sets[0]],
                "b": [r["key"].hex() for r in sets[1]],
                "fingerprint_a": fps[0].hex(),
                "fingerprint_b": fps[1].hex(),
            }
        )
    return (
        "collisions",
        "Sets that fingerprints by XOR or addition cannot tell apart. Each record has time 65536, replica 1, no flags and an empty value.",
        out,
    )


FILES = [
    digest_vectors,
    order_vectors,
    clock_vectors,
    merge_vectors,
    fingerprint_vectors,
    range_vectors,
    document_vectors,
    message_vectors,
    malformed_vectors,
    collision_vectors,
]


def render(kind, about, cases):
    document = {"$schema": "vectors.schema.json", "kind": kind, "version": 1, "about": about, "cases": cases}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main():
    if "--search" in sys.argv:
        print("ADDITIVE =", additive_sets())
        return 0
    stale = []
    for make in FILES:
        kind, about, cases = make()
        path, text = HERE / (kind + ".json"), render(kind, about, cases)
        if "--check" in sys.argv:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(path.name)
        else:
            path.write_text(text, encoding="utf-8")
    for name in stale:
        print("differs from what the specification gives:", name, file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
