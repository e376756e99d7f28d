"""What every GoSync implementation computes alike: order, digest, fingerprint, clock, the columns of Reconcile.

Knows no network, no storage, no time. Written from spec/ chapters 1, 3 and 7.
"""

import functools
import hashlib
import operator
import struct
import sys
from pathlib import Path
from typing import NamedTuple, Optional

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "proto"))
pb, rpc = grpc.protos_and_services("gosync/v1/sync.proto")
types = grpc.protos("gosync/v1/types.proto")

MAX_TIME = 2**64 - 1
NO_HASH = bytes(32)


class Malformed(Exception):
    """The peer sent what the specification forbids."""


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Record(NamedTuple):
    """One key's state (section 1.3)."""

    key: bytes
    time: int
    replica: int
    tombstone: bool
    value: bytes

    @property
    def value_hash(self) -> bytes:
        return NO_HASH if self.tombstone else sha256(self.value)

    @property
    def order(self):
        """The merge keeps the greater (MODEL-018)."""
        return (self.time, self.replica, self.tombstone, self.value_hash)

    def digest(self) -> bytes:
        """Section 1.6."""
        return sha256(
            b"gosync.v1.record"
            + int(self.tombstone).to_bytes(4, "big")
            + self.time.to_bytes(8, "big")
            + self.replica.to_bytes(8, "big")
            + len(self.key).to_bytes(4, "big")
            + self.key
            + self.value_hash
        )

    def message(self):
        return types.Record(
            key=self.key,
            version=types.Version(time=self.time, replica=self.replica),
            flags=int(self.tombstone),
            value=self.value,
        )


def parse(message) -> Record:
    """A record from the wire, or Malformed (MODEL-004, -005, -013 to -015)."""
    if not message.HasField("version"):
        raise Malformed("a record without version")
    if message.flags not in (0, 1):
        raise Malformed(f"unknown flags {message.flags:#x}")
    if message.flags and message.value:
        raise Malformed("a tombstone with a value")
    if not 1 <= len(message.key) <= 512:
        raise Malformed(f"a key of {len(message.key)} bytes")
    return Record(message.key, message.version.time, message.version.replica, bool(message.flags), message.value)


def issue_time(wall_ms: int, floor: int, replaced: Optional[int]) -> int:
    """The time of a new version (CLOCK-002)."""
    wall = min(max(wall_ms, 0), 2**48 - 1) << 16
    time = max(wall, floor + 1, 0 if replaced is None else replaced + 1)
    if time > MAX_TIME:
        raise OverflowError("no time is left for a write to this key")
    return time


def clock_bound(reading_ms: int, skew_ms: int) -> int:
    """The greatest time that is not too far ahead (CLOCK-005, CLOCK-011)."""
    return (reading_ms + skew_ms) << 16 | 65535


# ------------------------------------------------------------- fingerprints


def critical_bit(a: bytes, b: bytes) -> int:
    """The first bit in which two keys differ, a < b (section 3.3)."""
    i = 0
    while i < len(a) and a[i] == b[i]:
        i += 1
    if i == len(a):
        return 9 * i
    return 9 * i + 1 + (8 - (a[i] ^ b[i]).bit_length())


def fingerprint(leaves) -> bytes:
    """Of (key, digest) pairs in key order: one pass with a stack (section 3.3)."""
    stack, current, last = [], None, None

    def branch(left, right):
        return sha256(b"gosync.v1.branch" + left + right)

    for key, digest in leaves:
        if current is not None:
            bit = critical_bit(last, key)
            while stack and stack[-1][0] > bit:
                current = branch(stack.pop()[1], current)
            stack.append((bit, current))
        current, last = digest, key
    while stack:
        current = branch(stack.pop()[1], current)
    return current or NO_HASH


def short(salt: int, digest: bytes, length: int) -> bytes:
    """Section 7.2."""
    if length == 32:
        return digest
    first, *keys = short_keys(salt)
    words = struct.unpack(">4Q", digest)
    return ((first + sum(map(operator.mul, keys, words))) % (1 << 128)).to_bytes(16, "big")[:length]


@functools.lru_cache
def short_keys(salt: int) -> list[int]:
    stem = b"gosync.v1.shorts" + salt.to_bytes(8, "big")
    stream = b"".join(sha256(stem + bytes([i])) for i in range(3))
    return [int.from_bytes(stream[i : i + 16], "big") for i in range(0, 80, 16)]


# ------------------------------------------------------------------- ranges


def inside(key: bytes, low: bytes, high: Optional[bytes]) -> bool:
    return low <= key and (high is None or key < high)


def prefix_range(prefix: bytes):
    """All keys with a prefix (section 1.2)."""
    stem = prefix.rstrip(b"\xff")
    return prefix, (stem[:-1] + bytes([stem[-1] + 1])) if stem else None


def separator(below: bytes, above: bytes) -> bytes:
    """The shortest bound between two neighbouring keys (section 7.8)."""
    i = 0
    while i < len(below) and below[i] == above[i]:
        i += 1
    return above[: i + 1]


def range_message(low: bytes, high: Optional[bytes]):
    message = types.Range(start=low)
    if high is not None:
        message.end = high
    return message


# ------------------------------------------------------------------ columns


def put_varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


class Column:
    """Reads a packed column of Reconcile (section 7.2)."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def done(self) -> bool:
        return self.at == len(self.data)

    def take(self, n: int) -> bytes:
        if self.at + n > len(self.data):
            raise Malformed("a column ends too early")
        self.at += n
        return self.data[self.at - n : self.at]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                if (byte == 0 and shift > 7) or value > MAX_TIME:
                    raise Malformed("a varint that is not in shortest form, or too large")
                return value
            if shift > 63:
                raise Malformed("a varint that is too long")

    def bound(self, lower: bytes) -> bytes:
        head = self.take(1)[0]
        drop, add = head >> 4, head & 15
        if drop == 15:
            drop += self.varint()
        if add == 15:
            add += self.varint()
        if drop > len(lower) or len(lower) - drop + add > 513:
            raise Malformed("a bound that drops too much or is too long")
        bound = lower[: len(lower) - drop] + self.take(add)
        if bound <= lower:
            raise Malformed("a bound that is not above the one before")
        return bound


def put_bound(lower: bytes, bound: bytes) -> bytes:
    i = 0
    while i < min(len(lower), len(bound)) and lower[i] == bound[i]:
        i += 1
    drop, add = len(lower) - i, len(bound) - i
    out = bytes([min(drop, 15) << 4 | min(add, 15)])
    if drop >= 15:
        out += put_varint(drop - 15)
    if add >= 15:
        out += put_varint(add - 15)
    return out + bound[i:]
