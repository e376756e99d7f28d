"""Files about one record or one version: digest, order, merge."""

from .rules import MILK, U64, defect, digest, ms, plain, preimage, record, winner


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
