"""The rules, written from the specification's text and from nothing else: what every implementation computes alike."""

import hashlib
import struct

U64 = (1 << 64) - 1


def sha256(data):
    return hashlib.sha256(data).digest()


def record(key, time, replica, flags=0, value=b""):
    return {"key": key, "time": time, "replica": replica, "flags": flags, "value": value}


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


def name_failure(collection, id_, field_name):
    """Why a replica refuses to name a document or field so (DOC-002 to DOC-004); None when it does not."""
    if "\0" in collection + id_ + field_name:
        return "zero_in_name"
    if not collection or not id_:
        return "empty_name"
    size = sum(len(part.encode()) for part in (collection, id_, field_name)) + 2
    return "long_key" if size > 512 else None


def is_utf8(data):
    try:
        return data.decode() is not None
    except UnicodeDecodeError:
        return False


def documents(records, collection):
    """Which documents and fields a reader shows."""
    parts = {}
    for r in records:
        pieces = r["key"].split(b"\0", 2)
        if len(pieces) == 3 and pieces[0] == collection and pieces[1] and all(map(is_utf8, pieces)):
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
