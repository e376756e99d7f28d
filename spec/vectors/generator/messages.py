"""Files about messages: messages, and malformed ones."""

from .protobuf import cursor_message, field, held_message, position_message, range_message, record_message
from .rules import MILK, record


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
