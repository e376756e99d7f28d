"""The rules that all implementations compute alike (chapters 1, 2 and 3): no input, no output, no state."""
import hashlib
import struct
from dataclasses import dataclass
from typing import NamedTuple

TOMBSTONE, MAX_KEY, MAX_BOUND, MAX_U64 = 1, 512, 513, 2**64 - 1
SAME, REWOUND, UNKNOWN = 1, 2, 3  # the lineages, from good to bad


class Failure(Exception):
    """What a rule forbids, or a call or session that did not succeed; with what follows from it (section 12.3)."""

    def __init__(self, detail: str, action: str = "Retry", reason: str = "", delay: float = 0.0):
        super().__init__(detail)
        self.action, self.reason, self.delay = action, reason, delay


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@dataclass(frozen=True)
class Record:
    key: bytes
    time: int
    replica: int
    flags: int
    value: bytes

    def __post_init__(self):
        if not self.key or self.flags & ~TOMBSTONE or (self.dead and self.value):
            raise Failure("no key, an unknown flag, or a tombstone with a value", reason="MALFORMED")  # MODEL-014, 015
        if len(self.key) > MAX_KEY:
            raise Failure(f"the key has {len(self.key)} bytes", reason="LIMIT_EXCEEDED")  # MODEL-005

    @property
    def dead(self) -> bool:
        return bool(self.flags & TOMBSTONE)

    @property
    def value_hash(self) -> bytes:
        return bytes(32) if self.dead else sha256(self.value)

    @property
    def digest(self) -> bytes:
        head = struct.pack(">IQQI", self.flags, self.time, self.replica, len(self.key))
        return sha256(b"gosync.v1.record" + head + self.key + self.value_hash)  # section 1.6

    @property
    def rank(self) -> tuple:
        """Of two records under one key the one of the greater rank is kept (MODEL-018)."""
        return self.time, self.replica, self.dead, self.value_hash


def issue_time(now_ms: int, floor: int, replaced: int) -> int:
    """The time of a write (CLOCK-002); `replaced` is -1 where it replaces nothing."""
    time = max(min(max(now_ms, 0), 2**48 - 1) << 16, floor + 1, replaced + 1)
    if time > MAX_U64:
        raise Failure("no time is left for this write", reason="CLOCK_SKEW")  # CLOCK-004
    return time


def clock_bound(clock_ms: int, skew_ms: int) -> int:
    """The highest time that a record may have: CLOCK-005, CLOCK-011."""
    return (clock_ms + skew_ms) << 16 | 65535


def inside(key: bytes, start: bytes, end: bytes | None) -> bool:
    return start <= key and (end is None or key < end)


def common_prefix(a: bytes, b: bytes) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def fingerprint(pairs) -> bytes:
    """Of (key, digest) pairs in key order: one pass, with a stack (section 3.3)."""
    stack, current, last = [], None, None
    for key, digest in pairs:
        if current is not None:
            i = common_prefix(last, key)  # the critical bit: a byte is a 1 and its eight bits
            bit = 9 * i if i == len(last) else 9 * i + 9 - (last[i] ^ key[i]).bit_length()
            while stack and stack[-1][0] > bit:
                current = sha256(b"gosync.v1.branch" + stack.pop()[1] + current)
            stack.append((bit, current))
        current, last = digest, key
    while stack:
        current = sha256(b"gosync.v1.branch" + stack.pop()[1] + current)
    return current or bytes(32)


class Cursor(NamedTuple):
    epoch: int
    sequence: int
    tag: int


class History(NamedTuple):
    """What an answer tells of the server's history, and where the replica stands in it (chapter 2)."""
    head: Cursor
    horizon: int
    restored: list  # (epoch, sequence) of the restore points, oldest first
    lineage: int
    mapped: int
    behind: bool

    @property
    def in_order(self) -> bool:
        return self.lineage == SAME and not self.behind

    def differs(self, other: "History") -> bool:
        """Another epoch, horizon or status (RECON-034, SNAP-016)."""
        mine, theirs = ((h.head.epoch, h.horizon, h.lineage, h.behind) for h in (self, other))
        return mine != theirs

    def holds(self, point: tuple) -> bool:
        """Whether a point (epoch, sequence) lies in the present history (section 2.2)."""
        epochs = [epoch for epoch, _ in self.restored]
        if self.lineage == UNKNOWN or point[0] == self.head.epoch or point[0] not in epochs:
            return self.lineage != UNKNOWN and point[0] == self.head.epoch
        return point[1] <= min(sequence for _, sequence in self.restored[epochs.index(point[0]):])
