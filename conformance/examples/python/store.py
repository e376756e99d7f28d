"""A replica's store in SQLite: clean records, outbox, offers, quarantine, cursors (section 9.1).

Knows no network. Everything that belongs together happens inside `with store:` (CLIENT-001).
"""

import json
import sqlite3
import threading
from typing import NamedTuple, Optional

from rules import Record, inside

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE clean (key BLOB PRIMARY KEY, time BLOB, replica BLOB, tombstone INT, value BLOB,
                    digest BLOB, epoch BLOB, sequence INT) WITHOUT ROWID;
CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB, time BLOB, replica BLOB, tombstone INT,
                     value BLOB, attempted INT DEFAULT 0, rejected TEXT DEFAULT '', doubt INT DEFAULT 0);
CREATE INDEX outbox_key ON outbox (key, id);
CREATE TABLE offers (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE quarantine (key BLOB PRIMARY KEY, time BLOB, replica BLOB, tombstone INT, value BLOB,
                         reason TEXT) WITHOUT ROWID;
CREATE TABLE held (start BLOB PRIMARY KEY, end BLOB, epoch BLOB, sequence INT, tag BLOB) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""


def u64(n: int) -> bytes:
    return n.to_bytes(8, "big")


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


class Cursor(NamedTuple):
    """The end of a commit (section 2.1)."""

    epoch: int
    sequence: int
    tag: int


class Clean(NamedTuple):
    """A clean record and the point at which the server held it."""

    record: Record
    epoch: int
    sequence: int


class Write(NamedTuple):
    """An unsent write."""

    id: int
    record: Record
    attempted: bool
    rejected: str
    doubt: bool


class Held(NamedTuple):
    """A held range and its cursor."""

    low: bytes
    high: Optional[bytes]
    cursor: Optional[Cursor]


def to_record(row) -> Record:
    return Record(row[0], number(row[1]), number(row[2]), bool(row[3]), row[4])


class Store:
    """One store; an RLock makes it usable from the application's and the session's thread."""

    def __init__(self, path: Optional[str]):
        self.lock = threading.RLock()
        self.depth = 0
        self.db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        self.db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000;")
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise RuntimeError(f"the store has schema {version}, newer than {SCHEMA_VERSION}")  # CLIENT-002
        if version == 0:
            self.db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")

    def __enter__(self):
        self.lock.acquire()
        try:
            if self.depth == 0:
                self.db.execute("BEGIN IMMEDIATE")
        except BaseException:
            self.lock.release()
            raise
        self.depth += 1
        return self

    def __exit__(self, kind, *_):
        self.depth -= 1
        try:
            if self.depth == 0:
                self.db.execute("ROLLBACK" if kind else "COMMIT")
        finally:
            self.lock.release()

    def close(self):
        self.db.close()

    def run(self, sql: str, *args) -> list:
        with self.lock:
            return self.db.execute(sql, args).fetchall()

    # ------------------------------------------------------------- one row

    def get(self, name: str, default=None):
        rows = self.run("SELECT value FROM meta WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else default

    def set(self, name: str, value):
        self.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", name, json.dumps(value))

    def newest_commit(self) -> Optional[Cursor]:
        row = self.get("newest_commit")
        return Cursor(*row) if row else None

    # ------------------------------------------------------- clean records

    def clean(self, key: bytes) -> Optional[Clean]:
        """What is held under a key; damaged content counts as absent (MODEL-023)."""
        rows = self.run("SELECT * FROM clean WHERE key = ?", key)
        return self._intact(rows[0]) if rows else None

    def _intact(self, row) -> Optional[Clean]:
        record = to_record(row)
        if record.digest() != row[5]:
            return None
        return Clean(record, number(row[6]), row[7])

    def _rows(self, low=b"", high=None) -> list:
        return self.run("SELECT * FROM clean WHERE key >= ? AND (? IS NULL OR key < ?) ORDER BY key", low, high, high)

    def all_clean(self, low=b"", high=None) -> list:
        """Intact clean records of a range in key order."""
        return [c for c in map(self._intact, self._rows(low, high)) if c]

    def damaged(self, low=b"", high=None) -> int:
        return sum(self._intact(row) is None for row in self._rows(low, high))

    def put_clean(self, record: Record, epoch: int, sequence: int):
        self.run(
            "INSERT OR REPLACE INTO clean VALUES (?,?,?,?,?,?,?,?)",
            *(record.key, u64(record.time), u64(record.replica), int(record.tombstone), record.value),
            *(record.digest(), u64(epoch), sequence),
        )

    def set_point(self, key: bytes, point: Cursor):
        self.run("UPDATE clean SET epoch = ?, sequence = ? WHERE key = ?", u64(point.epoch), point.sequence, key)

    def drop_clean(self, key: bytes):
        self.run("DELETE FROM clean WHERE key = ?", key)
        self.run("DELETE FROM offers WHERE key = ?", key)

    def leaves(self, low: bytes, high: Optional[bytes], horizon: int) -> list:
        """(key, digest) of what fingerprints cover (MERKLE-003)."""
        return [
            (c.record.key, c.record.digest())
            for c in self.all_clean(low, high)
            if not (c.record.tombstone and c.record.time < horizon)
        ]

    def offer(self, key: bytes):
        self.run("INSERT OR IGNORE INTO offers VALUES (?)", key)

    def is_offered(self, key: bytes) -> bool:
        return bool(self.run("SELECT 1 FROM offers WHERE key = ?", key))

    def offers(self) -> list:
        return [row[0] for row in self.run("SELECT key FROM offers ORDER BY key")]

    def quarantine(self, record: Record, reason: str):
        self.run(
            "INSERT OR REPLACE INTO quarantine VALUES (?,?,?,?,?,?)",
            *(record.key, u64(record.time), u64(record.replica), int(record.tombstone), record.value, reason),
        )
        self.drop_clean(record.key)

    def aside(self) -> list:
        """Quarantined records."""
        return [to_record(row) for row in self.run("SELECT * FROM quarantine")]

    # -------------------------------------------------------------- outbox

    def writes(self, key: Optional[bytes] = None) -> list:
        """Unsent writes in the order in which they were made."""
        rows = self.run(
            "SELECT key, time, replica, tombstone, value, id, attempted, rejected, doubt FROM outbox"
            " WHERE ?1 IS NULL OR key = ?1 ORDER BY id",
            key,
        )
        return [Write(row[5], to_record(row), bool(row[6]), row[7], bool(row[8])) for row in rows]

    def add_write(self, record: Record):
        # what was never sent is replaced (section 5.1)
        self.run("DELETE FROM outbox WHERE key = ? AND attempted = 0 AND rejected = ''", record.key)
        self.run(
            "INSERT INTO outbox (key, time, replica, tombstone, value) VALUES (?,?,?,?,?)",
            *(record.key, u64(record.time), u64(record.replica), int(record.tombstone), record.value),
        )

    def restamp(self, id: int, time: int, replica: int, doubt: bool = False):
        self.run(
            "UPDATE outbox SET time = ?, replica = ?, attempted = 0, rejected = '', doubt = doubt OR ? WHERE id = ?",
            *(u64(time), u64(replica), int(doubt), id),
        )

    def mark(self, id: int, attempted: bool, rejected: str = ""):
        self.run("UPDATE outbox SET attempted = ?, rejected = ? WHERE id = ?", int(attempted), rejected, id)

    def drop_write(self, id: int):
        self.run("DELETE FROM outbox WHERE id = ?", id)

    def visible(self, key: bytes) -> Optional[Record]:
        """What the application sees: the newest unsent write, or else the clean record."""
        writes = self.writes(key)
        if writes:
            return writes[-1].record
        clean = self.clean(key)
        return clean.record if clean else None

    # --------------------------------------------------------------- merge

    def merge(self, record: Record, epoch: int, sequence: int) -> bool:
        """Merges a record of the server; whether the clean record changed."""
        clean = self.clean(record.key)
        changed = clean is None or record.order > clean.record.order
        if changed or record.order == clean.record.order:
            self.put_clean(record, epoch, sequence)
            self.run("DELETE FROM offers WHERE key = ?", record.key)
        for write in self.writes(record.key):
            if record.order >= write.record.order:  # CLIENT-015
                self.drop_write(write.id)
        for row in self.run("SELECT * FROM quarantine WHERE key = ?", record.key):
            if record.order >= to_record(row).order:
                self.run("DELETE FROM quarantine WHERE key = ?", record.key)
        return changed

    # -------------------------------------------------------------- ranges

    def held(self) -> list:
        rows = self.run("SELECT * FROM held ORDER BY start")
        return [
            Held(row[0], row[1], Cursor(number(row[2]), row[3], number(row[4])) if row[2] is not None else None)
            for row in rows
        ]

    def hold(self, ranges: list):
        """Holds exactly these ranges from now on; one keeps a cursor only where it had one (HIST-008, CLIENT-028)."""
        with self:
            before = self.held()
            self.run("DELETE FROM held")
            for low, high in ranges:
                cursor = next((h.cursor for h in before if covers(h, low, high)), None)
                self.run("INSERT INTO held (start, end) VALUES (?, ?)", low, high)
                if cursor:
                    self.set_cursor(low, cursor)

    def set_cursor(self, low: bytes, cursor: Cursor):
        self.run(
            "UPDATE held SET epoch = ?, sequence = ?, tag = ? WHERE start = ?",
            *(u64(cursor.epoch), cursor.sequence, u64(cursor.tag), low),
        )


def covers(held: Held, low: bytes, high: Optional[bytes]) -> bool:
    return held.low <= low and (held.high is None or (high is not None and high <= held.high))


def in_ranges(ranges, key: bytes) -> bool:
    return any(inside(key, r.start, r.end if r.HasField("end") else None) for r in ranges)
