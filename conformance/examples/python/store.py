"""The local store (section 9.1): all of it in memory, and one file that each transaction replaces as a whole.

That makes a transaction as simple as can be, at the price of writing everything; a larger store takes a database."""
import fcntl
import os
import pickle
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

from rules import TOMBSTONE, Failure, History, Record, issue_time

SCHEMA = 1


@dataclass
class Kept:
    """A record as it was stored, with the digest from before that (MODEL-021)."""
    record: Record
    digest: bytes
    point: tuple = ()  # of a clean record: epoch and sequence at which the server held it (HIST-033)
    offer: bool = False  # of a clean record: the server lost it, and gets it again
    batch: int = 0  # of a write: the batch that it belongs to
    attempted: bool = False
    rejected: str = ""  # of a write: why; of a quarantined record likewise
    in_doubt: bool = False

    @property
    def whole(self) -> bool:
        return self.record.digest == self.digest  # otherwise it is damaged (section 1.7)


class Store:
    def __init__(self, path: str = ""):
        """Opens the store in this file, or one in memory."""
        # `dirty`: to be reconciled in the next session, whatever the status is.
        state = SimpleNamespace(floor=0, horizon=0, cursor=None, newest=None, dirty=False, limits={})
        self.path, self.saved = path, pickle.dumps((SCHEMA, {}, {}, [], state))
        self.lock = open(path + ".lock" if path else os.devnull, "w")
        if path:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # one opening at a time (CLIENT-005)
            if os.path.exists(path):
                self.saved = Path(path).read_bytes()
        self.load()

    def load(self):
        # By key the clean and the quarantined records; the writes in the order in which they were made.
        schema, self.clean, self.quarantine, self.outbox, self.state = pickle.loads(self.saved)
        if schema > SCHEMA:
            raise Failure("the store is of a later version")  # CLIENT-002

    @contextmanager
    def tx(self):
        """One transaction: all or nothing, durable at its end (CLIENT-001)."""
        try:
            yield
            saved = pickle.dumps((SCHEMA, self.clean, self.quarantine, self.outbox, self.state))
            if self.path:
                with open(self.path + ".new", "wb") as file:
                    file.write(saved)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(self.path + ".new", self.path)
            self.saved = saved
        except BaseException:
            self.load()
            raise

    def writes_to(self, key: bytes) -> list[Kept]:
        return [kept for kept in self.outbox if kept.record.key == key]

    def seen(self) -> dict:
        """What the application sees: the newest unsent write, or else the clean or the quarantined record."""
        shown = self.quarantine | self.clean | {kept.record.key: kept for kept in self.outbox}
        return {key: shown[key].record for key in sorted(shown) if shown[key].whole and not shown[key].record.dead}

    def issue(self, now_ms: int, replaced: list[Kept]) -> int:
        newest = max((kept.record.time for kept in replaced), default=-1)
        self.state.floor = issue_time(now_ms, self.state.floor, newest)  # CLOCK-003
        return self.state.floor

    def write(self, entries: dict, now_ms: int, replica: int, batch: bool):
        """Writes of the application, key -> value, or None for a tombstone: all or none."""
        with self.tx():
            number = 1 + max((kept.batch for kept in self.outbox), default=0) if batch else 0
            for key, value in entries.items():
                kept = [table[key] for table in (self.clean, self.quarantine) if key in table]
                time = self.issue(now_ms, (self.writes_to(key) or kept)[-1:])
                record = Record(key, time, replica, TOMBSTONE if value is None else 0, value or b"")
                self.outbox = [old for old in self.outbox if batch or old.record.key != key  # PUSH-005
                               or old.batch or old.attempted or old.rejected]
                self.outbox.append(Kept(record, record.digest, batch=number))

    def retry(self, key: bytes):
        """Lets rejected writes of the key, and of its batch, be sent again (CLIENT-051)."""
        with self.tx():
            batches = {kept.batch for kept in self.writes_to(key)} - {0}
            for kept in self.outbox:
                kept.rejected = "" if kept.record.key == key or kept.batch in batches else kept.rejected

    def discard(self, key: bytes):
        """Gives up the unsent writes of the key; what the server applied of them comes back."""
        with self.tx():
            self.outbox = [kept for kept in self.outbox if kept.record.key != key]

    def is_old(self, kept: Kept) -> bool:
        return kept.record.dead and kept.record.time < self.state.horizon

    def covered(self) -> list:
        """(key, digest) of the clean records that fingerprints cover, in key order (MERKLE-003)."""
        return sorted((key, kept.digest) for key, kept in self.clean.items() if not self.is_old(kept))

    def merge(self, record: Record, point: tuple, confirm: bool = True) -> bool:
        """Keeps the greater of the server's record and the clean one. `confirm`: the server still holds it now."""
        clean = self.clean.get(record.key)
        changed = not clean or clean.record.rank < record.rank
        if changed or (confirm and clean.digest == record.digest):
            self.clean[record.key] = Kept(record, record.digest, point)
        self.outbox = [kept for kept in self.outbox if kept.record.key != record.key
                       or kept.record.rank > record.rank]  # CLIENT-015
        aside = self.quarantine.get(record.key)
        if aside and aside.record.rank <= record.rank:
            del self.quarantine[record.key]  # HIST-041
        return changed

    def scrub(self) -> list[bytes]:
        """Hashes all clean records again; damaged ones become absent, and are fetched (CLIENT-047)."""
        damaged = [key for key, kept in self.clean.items() if not kept.whole]
        if damaged:
            with self.tx():
                self.clean = {key: kept for key, kept in self.clean.items() if kept.whole}
                self.state.dirty = True
        return damaged

    def learn(self, history: History) -> set:
        """Forgets the tombstones below the horizon that the server held (HIST-031); keys of the others (HIST-032)."""
        self.state.horizon = history.horizon
        old = {key for key, kept in self.clean.items() if self.is_old(kept)}
        known = {key for key in old if history.holds(self.clean[key].point)}
        self.clean = {key: kept for key, kept in self.clean.items() if key not in known}
        return old - known

    def next_push(self, skip: set) -> list[Kept]:
        """What is pushed next: a batch; or single writes and offers, one for each key, in order (CLIENT-013).

        Keys in `skip` wait for a later session. What is collected is within the floors of all limits (LIMIT-006)."""
        waiting = [kept for kept in self.outbox if not kept.rejected] + [k for k in self.clean.values() if k.offer]
        group, taken, size = [], set(skip), 0
        for kept in filter(lambda kept: kept.whole, waiting):
            unit = [other for other in waiting if other.batch == kept.batch] if kept.batch else [kept]
            keys = {other.record.key for other in unit}
            free, taken = taken.isdisjoint(keys), taken | keys
            if free and kept.batch and not group:
                return unit
            size += len(kept.record.key) + len(kept.record.value) + 64
            if group and (size > 500_000 or len(group) == 100):
                break
            group += [kept] if free and not kept.batch else []
        return group

    def reject(self, kept: Kept, reason: str):
        """Rejects a write; a clean record, as an offer is, goes into quarantine (CLIENT-048)."""
        kept.rejected = reason
        if self.clean.get(kept.record.key) is kept:
            del self.clean[kept.record.key]
            aside = self.quarantine.get(kept.record.key)
            if not aside or aside.record.rank < kept.record.rank:  # HIST-046
                self.quarantine[kept.record.key] = replace(kept, offer=False)

    def stamp(self, kept: Kept, time: int, replica: int):
        """Gives an unsent write another version."""
        kept.record = replace(kept.record, time=time, replica=replica)
        kept.digest, kept.attempted = kept.record.digest, False

    def restamp(self, writes: list[Kept], server_ms: int, replica: int):
        """After CLOCK_SKEW: new versions by the server's time, in order (CLIENT-018, CLIENT-019)."""
        self.state.floor = min(self.state.floor, server_ms << 16) if writes else self.state.floor
        for kept in writes:
            below, clean = self.writes_to(kept.record.key), self.clean.get(kept.record.key)
            replaced = below[:below.index(kept)] + ([clean] if clean else [])
            self.stamp(kept, self.issue(server_ms, replaced), replica)

    def rescue(self, replica: int):
        """Unsent writes below the horizon, after a reconciliation: section 9.5."""
        horizon = self.state.horizon
        for kept in list(self.outbox):
            key = kept.record.key
            if kept.rejected or kept.record.time >= horizon or key in self.clean:
                continue  # where a clean record stands, merging has decided
            if kept.record.dead or kept is not [other for other in self.writes_to(key) if not other.rejected][-1]:
                self.outbox.remove(kept)
                continue
            kept.in_doubt = kept.in_doubt or kept.attempted  # CLIENT-024
            self.stamp(kept, horizon, replica)
            self.state.floor = max(self.state.floor, horizon)
