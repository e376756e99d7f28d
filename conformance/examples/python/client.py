"""A GoSync replica: sessions of Hello, Reconcile or Snapshot, Push and Watch (chapters 4 to 9), profiles core and heal.

One thread runs the sessions; the application's calls only touch the store and the inbox. Written from spec/ alone.
"""

import queue
import random
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import wire
from reconcile import Part, question, understand
from rules import (Malformed, Record, clock_bound, fingerprint, inside, issue_time, parse, pb, prefix_range,
                   range_message, types)
from store import Cursor, Held, Store, in_ranges
from wire import Fail

SAME, REWOUND, UNKNOWN = types.LINEAGE_SAME, types.LINEAGE_REWOUND, types.LINEAGE_UNKNOWN
ENTRIES = 20_000
WOKEN = object()  # in the inbox: there may be something to push, or to stop for


class WriteRefused(Exception):
    """A write that the replica refuses to its application."""

    def __init__(self, reason, detail):
        super().__init__(detail)
        self.reason = reason


class Clock:
    """The wall clock, which a test may set."""

    def __init__(self):
        self.offset_ms = 0

    def set(self, unix_ms: int):
        self.offset_ms = unix_ms - int(time.time() * 1000) if unix_ms else 0

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self.offset_ms


class Standing:
    """Where an answer says that the replica stands: position, restore points, one status."""

    def __init__(self, position, restore_points, status):
        self.head = cursor_of(position.head)
        self.horizon = position.horizon
        lineage = status.lineage
        self.lineage = lineage if lineage in (SAME, REWOUND) else UNKNOWN  # HIST-014
        self.behind = status.behind_compaction
        self.mapped = status.mapped_sequence
        self.kept = {self.head.epoch: float("inf")}
        bound = float("inf")
        for point in reversed(restore_points):
            bound = min(bound, point.sequence)
            self.kept.setdefault(point.epoch, bound)

    def in_order(self) -> bool:
        return self.lineage == SAME and not self.behind

    def holds(self, epoch: int, sequence: int) -> bool:
        """Whether a point lies in the present history (section 2.2)."""
        return self.lineage != UNKNOWN and sequence <= self.kept.get(epoch, -1)

    def worse_than(self, other) -> bool:
        return self.lineage > other.lineage or self.behind > other.behind


def cursor_of(message) -> Cursor:
    return Cursor(message.epoch, message.sequence, message.tag)


def cursor_message(cursor):
    return types.Cursor(epoch=cursor.epoch, sequence=cursor.sequence, tag=cursor.tag) if cursor else None


class Replica:
    """One opening of a store."""

    def __init__(self, store_path, url, space, tokens=(), prefixes=(), clock=None):
        self.store = Store(store_path)
        self.store.hold(sorted(prefix_range(p) for p in prefixes) if prefixes else [(b"", None)])
        self.url, self.space, self.clock = url, space, clock or Clock()
        self.tokens, self.token_index = list(tokens), 0
        self.id = secrets.randbits(64)
        self.limits, self.server_time = None, None
        self.grants = []
        self.inbox = queue.Queue()
        self.server = None
        self.online, self.closed, self.live_wanted, self.live = True, False, False, False
        self.verified = False
        self.unequal = {}  # range start -> sessions that ended unequal in a row although nobody wrote
        self.keys_behind = set()  # keys outside the ranges that need a reconciliation (CLIENT-027)
        self.ranges_behind = set()  # starts of held ranges whose pushes were refused as behind
        self.standings = {}  # range start -> what Hello told
        self.snapshots = {}  # range start -> (first standing, last key, keys seen): to be resumed
        self.failure, self.reports = None, []
        self.changed = threading.Condition()
        self.session_lock = threading.Lock()

    # --------------------------------------------------------- application

    def write(self, key: bytes, value):
        """Puts a value, or a tombstone where it is None; durable on return (CLIENT-008)."""
        if not 1 <= len(key) <= 512:
            raise WriteRefused("LIMIT_EXCEEDED" if key else "MALFORMED", f"a key has 1 to 512 bytes, not {len(key)}")
        limit = self.limit("max_value_bytes", 1 << 20)
        if value is not None and len(value) > limit:
            raise WriteRefused("LIMIT_EXCEEDED", f"a value has at most {limit} bytes, not {len(value)}")
        with self.store:
            replaced = self.store.visible(key)
            floor = self.store.get("floor", 0)
            try:
                at = issue_time(self.clock.now_ms(), floor, replaced.time if replaced else None)
            except OverflowError as error:
                raise WriteRefused("CLOCK_SKEW", str(error)) from None
            self.store.set("floor", at)  # CLOCK-003
            self.store.add_write(Record(key, at, self.id, value is None, value or b""))
        self.inbox.put((None, WOKEN))

    def read_all(self) -> list:
        with self.store:
            shown = {record.key: record for record in self.store.aside()}
            shown.update((c.record.key, c.record) for c in self.store.all_clean())
            shown.update((w.record.key, w.record) for w in self.store.writes())
        return [shown[key] for key in sorted(shown) if not shown[key].tombstone]

    def discard(self, key: bytes) -> bool:
        with self.store:
            writes = self.store.writes(key)
            for write in writes:
                self.store.drop_write(write.id)
        return bool(writes)

    def idle(self) -> bool:
        return not self.store.offers() and all(w.rejected for w in self.store.writes())

    def set_online(self, online: bool):
        self.online = online
        if not online and self.server:
            self.server.close()
        self.inbox.put((None, WOKEN))

    def close(self):
        self.closed = True
        self.set_online(False)
        with self.session_lock:
            self.store.close()

    # ------------------------------------------------------------ sessions

    def sync(self, timeout: float):
        """Sessions until both sides hold the same and nothing waits; Fail when that cannot be, or not in time."""
        if self.live_wanted:
            return self.await_idle(timeout)
        return self.run(False, time.monotonic() + timeout)

    def watch(self):
        """Live synchronisation in the background, until `close`."""
        self.live_wanted = True
        threading.Thread(target=self.run, args=(True, float("inf")), daemon=True).start()

    def await_idle(self, timeout: float):
        deadline = time.monotonic() + timeout
        with self.changed:
            while not (self.live and self.idle()):
                if self.failure and self.failure.action in (wire.AUTHENTICATE, wire.STOP, wire.UPGRADE):
                    raise self.failure
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self.failure or Fail(wire.RETRY, detail="not idle in time")
                self.changed.wait(min(left, 0.2))

    def run(self, live: bool, deadline: float):
        delay, refreshed, resynced = 0.25, False, float("-inf")
        while not self.closed:
            if not self.online:
                if time.monotonic() > deadline:
                    raise Fail(wire.RETRY, detail="offline")
                time.sleep(0.02)
                continue
            reached = False
            try:
                with self.session_lock:
                    if self.closed:
                        return
                    token = self.tokens[self.token_index] if self.tokens else ""
                    self.server = wire.Server(self.url, token)
                    try:
                        self.hello()
                        reached, refreshed = True, False
                        self.session(live)
                    finally:
                        self.server.close()
                        self.set_live(False)
                if not live and self.idle():
                    return
                fail = Fail(wire.RETRY, detail="writes wait for an answer")
            except Malformed as error:
                self.reports.append(str(error))
                fail = Fail(wire.RETRY, detail=str(error))  # ERR-013
            except Fail as error:
                fail = error
            self.failure = fail
            if fail.action == wire.AUTHENTICATE and not refreshed and self.token_index + 1 < len(self.tokens):
                self.token_index += 1
                refreshed = True  # CLIENT-038
                continue
            if fail.reason == "NO_ACCESS":
                fail.action = wire.AUTHENTICATE
            if fail.action in (wire.AUTHENTICATE, wire.UPGRADE, wire.STOP):
                if live:
                    with self.changed:
                        self.changed.notify_all()
                    return
                raise fail
            now = time.monotonic()
            if fail.action == wire.RESYNC and now - resynced > 60:
                resynced = now
                continue
            if reached and fail.action != wire.RESYNC:
                delay = 0.25
            pause = max(delay / 2, fail.delay) * random.uniform(1, 2)  # CLIENT-032 to -034
            delay = min(delay * 2, 20)
            if now + pause > deadline:
                raise fail
            self.sleep(pause)

    def sleep(self, seconds: float):
        """Until the time is over, or the replica is closed or switched (CLIENT-037 where a delay was not named)."""
        end = time.monotonic() + seconds
        online = self.online
        while time.monotonic() < end and not self.closed and self.online == online:
            time.sleep(0.02)

    def session(self, live: bool):
        for key in sorted(self.keys_behind):
            self.reconcile(Held(key, key + b"\0", None), own=False)
            self.keys_behind.discard(key)
        self.push()
        while not self.watch_once(live):
            self.push()

    def limit(self, name: str, default: int) -> int:
        return getattr(self.limits, name) if self.limits else default

    def set_live(self, live: bool):
        with self.changed:
            self.live = live
            self.changed.notify_all()

    def held_messages(self, helds=None) -> list:
        return [
            types.HeldRanges(ranges=[range_message(h.low, h.high)], cursor=cursor_message(h.cursor))
            for h in (self.store.held() if helds is None else helds)
        ]

    def newest(self, helds):
        """The newest commit known, unless every cursor that is sent tells more (PUSH-039)."""
        newest = self.store.newest_commit()
        if newest and all(h.cursor and h.cursor.epoch == newest.epoch and h.cursor.sequence >= newest.sequence for h in helds):
            return None
        return cursor_message(newest)

    def note_time(self, server_ms: int):
        self.server_time = (server_ms, time.monotonic())

    def accept(self, messages) -> list:
        """The records of an answer; Malformed or Fail when one must be refused (CLOCK-011)."""
        told, at = self.server_time
        reading = max(self.clock.now_ms(), told + int((time.monotonic() - at) * 1000))
        bound = clock_bound(reading, self.limits.max_clock_skew_ms)
        records = [parse(m) for m in messages]
        for record in records:
            if record.time > bound:
                self.reports.append(f"a record of {record.key!r} is dated too far ahead")
                raise Fail(wire.RETRY, detail=self.reports[-1])
        return records

    def merge(self, records, epoch: int, sequence: int):
        """Inside a transaction; whether anything changed."""
        changed = sum(self.store.merge(record, epoch, sequence) for record in records)
        self.verified = self.verified and not changed
        return changed > 0

    # --------------------------------------------------------------- hello

    def hello(self):
        for _ in range(4):
            helds, horizon = self.store.held(), self.store.get("horizon", 0)
            prints = [fingerprint(self.store.leaves(h.low, h.high, horizon)) for h in helds]
            self.server.version = None
            answer = self.server.call("Hello", pb.HelloRequest(
                versions=[1], features=[pb.FEATURE_RECONCILE, pb.FEATURE_LIVE], space=self.space,
                held=self.held_messages(helds), newest_commit=self.newest(helds), horizon=horizon, fingerprints=prints,
                client="gosync-example-python/1"))  # fmt: skip
            if answer.version != 1 or len(answer.held) != len(helds):
                raise Malformed("Hello answered another version or another number of ranges")
            if not answer.HasField("position") or not answer.position.HasField("head"):
                raise Malformed("Hello answered no position")
            if len(answer.equal) not in (0, len(helds)):
                raise Malformed("Hello answered another number of equal ranges")
            self.server.version = answer.version
            self.features, self.grants = set(answer.features), list(answer.grants)
            self.limits = answer.limits
            for name, floor in FLOORS.items():  # LIMIT-007
                setattr(self.limits, name, max(getattr(self.limits, name), floor))
            self.note_time(answer.server_time_ms)
            standings = [Standing(answer.position, answer.restore_points, s) for s in answer.held]
            self.standings = {h.low: s for h, s in zip(helds, standings)}
            self.learn_horizon(standings)
            if answer.position.horizon == horizon:
                break
        equal = list(answer.equal) if self.heals() else []
        for held, standing, same in zip(helds, standings, equal or [False] * len(helds)):
            if same:
                self.finish(held, standing, set(), [], True)
                self.unequal.pop(held.low, None)
            elif (held.cursor is None or not standing.in_order() or held.low in self.ranges_behind
                  or self.store.damaged(held.low, held.high)):  # fmt: skip
                self.heal(held, standing)
            self.ranges_behind.discard(held.low)
        self.verified = bool(equal) and all(equal)
        newest = self.store.newest_commit()
        if newest and (newest.epoch != standings[0].head.epoch or any(s.lineage == UNKNOWN for s in standings)):
            self.store.set("newest_commit", None)  # all ranges stand in the present epoch now

    def heals(self) -> bool:
        return pb.FEATURE_RECONCILE in self.features

    def heal(self, held: Held, standing: Standing):
        begun = held.low in self.snapshots
        if not begun and self.heals() and self.store.all_clean(held.low, held.high):
            self.reconcile(held)
        else:
            self.snapshot(held)

    def learn_horizon(self, standings):
        """HIST-031; points are judged by the worst of the statuses."""
        standing = max(standings, key=lambda s: s.lineage)
        reading = max(self.clock.now_ms(), self.server_time[0])
        if standing.horizon > clock_bound(reading, self.limits.max_clock_skew_ms):
            raise Malformed("a horizon in the future")  # SEC-013
        with self.store:
            for clean in self.store.all_clean():
                if clean.record.tombstone and clean.record.time < standing.horizon:
                    if standing.holds(clean.epoch, clean.sequence):
                        self.store.drop_clean(clean.record.key)
                    elif self.may_write(clean.record.key):
                        self.store.offer(clean.record.key)
            self.store.set("horizon", standing.horizon)

    def may_write(self, key: bytes) -> bool:
        return any(g.access == pb.ACCESS_WRITE and key.startswith(g.key_prefix) for g in self.grants)

    def finish(self, held: Held, standing: Standing, lacking: set, wanted: list, own: bool):
        """The end of a reconciliation, in one transaction (sections 2.5, 7.7, 8.3, 9.5)."""
        with self.store:
            for clean in self.store.all_clean(held.low, held.high):
                key, record = clean.record.key, clean.record
                if key in lacking or in_ranges(wanted, key):
                    deleted = (key in lacking and not in_ranges(wanted, key) and standing.behind
                               and record.time < standing.horizon and standing.holds(clean.epoch, clean.sequence))
                    if deleted:
                        self.store.drop_clean(key)
                    elif self.may_write(key):
                        self.store.offer(key)
                    elif key in lacking:
                        self.store.quarantine(record, "NO_ACCESS")
                elif not self.store.is_offered(key):  # an offer is not confirmed (RECON-042)
                    self.store.set_point(key, standing.head)
            if standing.behind:
                self.restamp_below(held, standing.horizon)
            if own:
                self.store.set_cursor(held.low, standing.head)

    def restamp_below(self, held: Held, horizon: int):
        """The table of section 9.5."""
        writes = [w for w in self.store.writes() if inside(w.record.key, held.low, held.high)]
        last = {w.record.key: w.id for w in writes}
        for write in writes:
            key = write.record.key
            if write.record.time >= horizon or write.rejected or self.store.clean(key):
                continue
            if write.record.tombstone or last[key] != write.id:
                self.store.drop_write(write.id)
            else:
                self.store.restamp(write.id, horizon, self.id, doubt=write.attempted)

    def offer_winners(self, records, head: Cursor):
        """Clean records that win against what the server holds are offered (RECON-033, SNAP-032)."""
        for record in records:
            clean = self.store.clean(record.key)
            if clean and clean.record.order > record.order:
                if self.may_write(record.key):
                    self.store.offer(record.key)
                else:
                    self.store.quarantine(clean.record, "NO_ACCESS")
                    self.store.put_clean(record, head.epoch, head.sequence)

    # ------------------------------------------------------------ snapshot

    def snapshot(self, held: Held):
        first, after, seen = self.snapshots.get(held.low, (None, None, set()))
        resumed = after is not None
        request = pb.SnapshotRequest(space=self.space, held=self.held_messages([held]), newest_commit=self.newest([held]))
        if after is not None:
            request.after_key = after
        start, complete, received, wanted = None, None, [], []
        for message in self.messages("Snapshot", request):
            event = message.WhichOneof("event")
            if start is None and event not in ("start", "end"):
                raise Malformed("a Snapshot that does not begin with its start")
            if event == "start":
                if start or len(message.start.held) != 1:
                    raise Malformed("a second start, or another number of statuses")
                start = Standing(message.start.position, message.start.restore_points, message.start.held[0])
                wanted = list(message.start.wanted)
                if first and (start.head.epoch != first.head.epoch or start.horizon != first.horizon
                                or start.worse_than(first)):  # fmt: skip
                    self.snapshots[held.low] = (None, None, set())  # SNAP-016
                    raise Fail(wire.RETRY, detail="the history changed under a resumed Snapshot")
                first = first or start
                self.learn_horizon([start])
            elif event == "chunk":
                if complete:
                    raise Malformed("a chunk after the end of a Snapshot")
                records = self.accept(message.chunk.records)
                for record in records:
                    if not inside(record.key, held.low, held.high) or (after is not None and record.key <= after):
                        raise Malformed("a Snapshot whose keys do not ascend or lie outside")
                    after = record.key
                with self.store:
                    self.merge(records, start.head.epoch, start.head.sequence)
                    self.offer_winners(records, start.head)
                seen.update(r.key for r in records)
                received += [(r.key, r.digest()) for r in records]
                self.snapshots[held.low] = (first, after, seen)
            elif event == "complete":
                complete = message.complete
            elif event == "end":
                if message.end.reason:
                    raise wire.from_end(message.end)
                break
        if complete is None:
            raise Fail(wire.RETRY, detail="a Snapshot that ended early")
        self.snapshots.pop(held.low, None)
        if self.heals():
            if len(complete.ranges) != 1:
                raise Malformed("a Snapshot that speaks of another number of ranges")
            if not resumed and complete.ranges[0].fingerprint != fingerprint(received):
                raise Malformed("a Snapshot whose fingerprint is not that of its records")  # SNAP-022
        lacking = {c.record.key for c in self.store.all_clean(held.low, held.high)} - seen
        self.finish(held, first, lacking, wanted, True)

    def messages(self, name, request):
        """The messages of a stream up to its end, each within the watchdog's time."""
        inbox = queue.Queue()
        call = self.server.stream(name, request, inbox)
        try:
            while True:
                _, item = inbox.get(timeout=self.limits.watchdog_ms / 1000)
                if item is None:
                    return
                if isinstance(item, Fail):
                    raise item
                yield item
        except queue.Empty:
            raise Fail(wire.RETRY, detail="a silent stream") from None
        finally:
            call.cancel()

    # ----------------------------------------------------------- reconcile

    def reconcile(self, held: Held, own=True):
        """A session over one range, or over one key outside the held ranges (chapter 7)."""
        salt = secrets.randbits(64)  # RECON-004
        always_full = self.unequal.get(held.low, 0) > 0  # RECON-039
        todo = [Part(held.low, held.high, full=always_full)]
        lacking, wanted, lowest, idle = set(), [], None, 0
        worst = self.standings.get(held.low) if own else None  # as Hello told it (RECON-034)
        while todo:
            full = any(p.full for p in todo)
            now = [p for p in todo if p.full == full]
            later = [p for p in todo if p.full != full]
            horizon = self.store.get("horizon", 0)
            length, room = 32 if full else 5, min(self.limits.max_reconcile_entries, ENTRIES)
            columns, asked, unasked = question(now, partial(self.store.leaves, horizon=horizon), salt, length, room)
            answer = self.server.call("Reconcile", pb.ReconcileRequest(
                space=self.space, held=self.held_messages([held]), newest_commit=self.newest([held]), horizon=horizon,
                salt=salt, digest_len=length, turns_left=2, **columns))  # fmt: skip
            if len(answer.held) != 1:
                raise Malformed("Reconcile answered another number of ranges")
            standing = Standing(answer.position, answer.restore_points, answer.held[0])
            if held.cursor and standing.head.epoch == held.cursor.epoch and standing.head.sequence < standing.mapped:
                self.sleep(0.5)  # RECON-035
                continue
            if standing.horizon != horizon or (worst and (standing.head.epoch != worst.head.epoch
                                                          or standing.worse_than(worst))):  # fmt: skip
                raise Fail(wire.RESYNC, detail="the history changed within a session")  # RECON-034
            records, moved = self.accept(answer.records), worst is not None and worst.head != standing.head
            again, lacks, closed = understand(answer, records, asked, salt, length, moved)
            with self.store:
                self.merge(records, standing.head.epoch, standing.head.sequence)
                sent = {r.key for r in records}
                self.offer_winners(records, standing.head)
            lacking |= lacks - sent
            wanted += answer.wanted
            worst = standing
            lowest = min(lowest or standing, standing, key=lambda s: s.head.sequence)
            idle = 0 if closed or records else idle + 1
            if idle >= 64:
                self.snapshot(held)  # RECON-036
                return
            todo = sorted(again + unasked + later, key=lambda p: p.low)
        self.finish(held, lowest, lacking, wanted, own)

    # ---------------------------------------------------------------- push

    def push(self):
        """Everything that waits, in parcels within the server's limits."""
        skip, rounds = set(), {}
        while True:
            writes, offers, size = {}, {}, 0
            for write in self.store.writes():
                key = write.record.key
                cost = len(key) + len(write.record.value) + 64
                if write.rejected or key in writes:
                    continue
                if key in skip or (writes and (size + cost > FLOORS["max_message_bytes"] * 3 // 4
                                               or len(writes) >= self.limits.max_push_records)):  # fmt: skip
                    break  # the order of writing holds
                size += cost
                writes[key] = write
            if not writes:
                for key in self.store.offers():
                    clean = self.store.clean(key)
                    if clean is None:
                        self.store.run("DELETE FROM offers WHERE key = ?", key)
                    elif key not in skip and not (offers and (size > FLOORS["max_message_bytes"] // 2
                                                  or len(offers) >= self.limits.max_push_records)):  # fmt: skip
                        size += len(key) + len(clean.record.value) + 64
                        offers[key] = clean.record
            if not writes and not offers:
                return
            self.parcel(list(writes.values()), list(offers.values()), skip, rounds)

    def parcel(self, writes, offers, skip, rounds):
        with self.store:
            for write in writes:
                self.store.mark(write.id, True)  # CLIENT-012
        records = [w.record for w in writes] + offers
        helds = self.store.held()
        request = pb.PushRequest(space=self.space, records=[r.message() for r in records],
                                 held=self.held_messages(helds), newest_commit=self.newest(helds))  # fmt: skip
        try:
            answer = self.server.call("Push", request)
        except Fail as fail:
            if fail.reason not in ("MALFORMED", "LIMIT_EXCEEDED"):
                raise
            if len(records) > 1:  # "find the record at fault" (section 9.11)
                half = len(writes) // 2 or len(offers) // 2
                parts = ((writes[:half], []), (writes[half:], offers)) if len(writes) > 1 else (
                    ((writes, []), ([], offers)) if writes else (([], offers[:half]), ([], offers[half:])))  # fmt: skip
                for some in parts:
                    self.parcel(*some, skip, rounds)
            elif writes:
                self.store.mark(writes[0].id, False, fail.reason)
            else:
                self.store.quarantine(offers[0], fail.reason)
            return
        if len(answer.verdicts) != len(records):
            raise Malformed("another number of verdicts than records")  # PUSH-026
        if len(answer.held) != len(helds):
            raise Malformed("another number of statuses than ranges")
        self.note_time(answer.server_time_ms)
        head = cursor_of(answer.position.head)
        standings = [Standing(answer.position, [], s) for s in answer.held]
        resync = any(not s.in_order() for s in standings)
        refused = []
        with self.store:
            for i, (record, verdict) in enumerate(zip(records, answer.verdicts)):
                write = writes[i] if i < len(writes) else None
                outcome = verdict.outcome
                if outcome in (pb.OUTCOME_APPLIED, pb.OUTCOME_UNCHANGED):
                    if self.store.merge(record, head.epoch, verdict.sequence):
                        self.verified = False
                    if write:
                        self.store.drop_write(write.id)
                        self.unequal.clear()
                elif outcome == pb.OUTCOME_SUPERSEDED:
                    winner = self.winner(verdict, record)
                    if winner is None:
                        skip.add(record.key)
                        continue
                    self.merge([winner], head.epoch, verdict.sequence)
                    self.store.run("DELETE FROM offers WHERE key = ?", record.key)
                    if write:
                        self.store.drop_write(write.id)
                else:
                    reason = reason_name(verdict.reason) if outcome == pb.OUTCOME_REJECTED else "UNKNOWN"
                    resync |= self.rejected(write, record, reason, refused, skip)
            if head.epoch and any(v.outcome == pb.OUTCOME_APPLIED for v in answer.verdicts):
                self.store.set("newest_commit", list(head))  # PUSH-030
            self.restamp_refused(refused, answer.server_time_ms, rounds, skip)
        if resync:
            raise Fail(wire.RESYNC, detail="the server's history changed, or a write is behind the compaction")

    def winner(self, verdict, record):
        try:
            winner = self.accept([verdict.winner])[0]
        except (Malformed, Fail):
            return None
        return winner if winner.key == record.key and winner.order > record.order else None

    def rejected(self, write, record, reason, refused, skip) -> bool:
        """The table of section 5.5; whether a new session is called for."""
        if write is None:  # an offer (CLIENT-048)
            skip.add(record.key)
            if reason not in ("CLOCK_SKEW", "BEHIND_COMPACTION"):
                self.store.quarantine(record, reason)
                self.reports.append(f"{record.key!r} was refused for {reason} and is in quarantine")
            return reason == "BEHIND_COMPACTION"
        if reason == "CLOCK_SKEW":
            self.store.mark(write.id, False)
            refused.append(write)
            return False
        if reason == "BEHIND_COMPACTION":
            self.store.mark(write.id, False)
            home = next((h for h in self.store.held() if inside(record.key, h.low, h.high)), None)
            (self.ranges_behind.add(home.low) if home else self.keys_behind.add(record.key))
            return True
        self.store.mark(write.id, False, reason)
        return False

    def restamp_refused(self, refused, server_ms, rounds, skip):
        """Section 9.4: new versions in the order of writing, by the server's time."""
        if not refused:
            return
        floor = min(self.store.get("floor", 0), (server_ms << 16) | 65535)  # CLIENT-019
        for write in sorted(refused, key=lambda w: w.id):
            key = write.record.key
            rounds[key] = rounds.get(key, 0) + 1
            if rounds[key] > 3:
                skip.add(key)
            earlier = [w.record.time for w in self.store.writes(key) if w.id < write.id]
            clean = self.store.clean(key)
            replaced = earlier[-1] if earlier else clean.record.time if clean else None
            floor = issue_time(server_ms, floor, replaced)
            self.store.restamp(write.id, floor, self.id)
        self.store.set("floor", floor)

    # --------------------------------------------------------------- watch

    def watch_once(self, live: bool) -> bool:
        """One Watch; False when there is something to do before the next one."""
        helds = self.store.held()
        request = pb.WatchRequest(space=self.space, held=self.held_messages(helds), newest_commit=self.newest(helds),
                                  until_caught_up=not live)  # fmt: skip
        call = self.server.stream("Watch", request, self.inbox)
        pusher = ThreadPoolExecutor(1)
        pending, last, epoch = [], None, None
        silence = time.monotonic() + self.limits.watchdog_ms / 1000
        try:
            while True:
                try:
                    source, item = self.inbox.get(timeout=max(0.0, silence - time.monotonic()))
                except queue.Empty:
                    raise Fail(wire.RETRY, detail="a silent stream") from None
                if item is WOKEN:
                    if not self.online:
                        raise Fail(wire.RETRY, detail="offline")
                    if self.live:
                        pusher.submit(self.push_beside, call)
                    continue
                if source is not call:
                    continue  # of an earlier stream
                if item is None:
                    raise Fail(wire.RETRY, detail="a stream that ended without StreamEnd")  # WATCH-038
                if isinstance(item, Fail):
                    raise item
                silence = time.monotonic() + self.limits.watchdog_ms / 1000
                event = item.WhichOneof("event")
                body = getattr(item, event) if event else None
                cursor = None
                if event in ("changes", "heartbeat") and body.HasField("cursor"):
                    cursor = cursor_of(body.cursor)
                elif event == "checkpoint":
                    cursor = cursor_of(body.position.head)
                if cursor:
                    epoch = epoch or next((h.cursor.epoch for h in helds if h.cursor), cursor.epoch)
                    if cursor.epoch != epoch or (last and cursor.sequence < last.sequence):
                        raise Fail(wire.RESYNC, detail="a cursor that goes back")  # WATCH-013, -014
                    last = cursor
                if event == "changes":
                    records = self.accept(body.records)
                    if not all(any(inside(r.key, h.low, h.high) for h in helds) for r in records):
                        raise Malformed("a record outside the watched ranges")  # WATCH-015
                    pending += records
                if cursor:
                    with self.store:
                        if self.merge(pending, cursor.epoch, cursor.sequence):
                            self.unequal.clear()  # somebody wrote (RECON-045)
                        self.adopt(cursor)
                    pending = []
                if event in ("checkpoint", "heartbeat"):
                    self.note_time(body.server_time_ms)
                if event == "checkpoint":
                    self.checkpoint(body, helds)
                    if live:
                        self.set_live(True)
                        pusher.submit(self.push_beside, call)
                elif event == "end":
                    if body.reason:
                        raise wire.from_end(body)
                    return True
        except Unequal as found:
            pusher.shutdown()
            held = next(h for h in self.store.held() if h.low == found.low)
            if found.stage <= 2:
                self.reconcile(held)
            elif found.stage == 3:
                self.snapshot(held)  # RECON-045
            else:
                self.reports.append("a range that cannot be healed")  # RECON-046
                self.unequal.pop(found.low)
                raise Fail(wire.RETRY, detail=self.reports[-1], delay=30) from None
            return False
        finally:
            call.cancel()
            pusher.shutdown(cancel_futures=True)

    def push_beside(self, call):
        """Pushes what waits without holding up the stream, which may settle it (section 9.7)."""
        try:
            self.push()
        except (Fail, Malformed) as error:
            self.inbox.put((call, error if isinstance(error, Fail) else Fail(wire.RETRY, detail=str(error))))
        with self.changed:
            self.changed.notify_all()

    def adopt(self, cursor: Cursor):
        for held in self.store.held():
            if held.cursor is None or held.cursor.epoch != cursor.epoch or held.cursor.sequence < cursor.sequence:
                self.store.set_cursor(held.low, cursor)  # WATCH-011

    def checkpoint(self, body, helds):
        head = cursor_of(body.position.head)
        if len(body.ranges) not in ((len(helds),) if self.heals() else (0, len(helds))):
            raise Malformed("a checkpoint of another number of ranges")
        if body.position.horizon != self.store.get("horizon", 0):
            raise Fail(wire.RESYNC, detail="another horizon")  # WATCH-025
        if not self.heals():
            return
        equal = True
        for held, state in zip(helds, body.ranges):
            clean = self.store.all_clean(held.low, held.high)
            if any(c.epoch == head.epoch and c.sequence > head.sequence for c in clean):
                equal = False  # a verdict told of newer records: the next checkpoint serves
                continue
            if fingerprint(self.store.leaves(held.low, held.high, body.position.horizon)) == state.fingerprint:
                self.unequal.pop(held.low, None)
                continue
            self.unequal[held.low] = self.unequal.get(held.low, 0) + 1
            self.verified = False
            raise Unequal(held.low, self.unequal[held.low])
        self.verified = equal


class Unequal(Exception):
    """A checkpoint differs from the replica's own fingerprint."""

    def __init__(self, low, stage):
        super().__init__()
        self.low, self.stage = low, stage


FLOORS = {
    "max_message_bytes": 1 << 20, "max_value_bytes": 65_536, "max_push_records": 100, "max_reconcile_entries": 1_000,
    "max_response_bytes": 65_536, "max_clock_skew_ms": 1_000, "watchdog_ms": 300,
}  # fmt: skip


def reason_name(reason: int) -> str:
    try:
        return types.Reason.Name(reason).removeprefix("REASON_")
    except ValueError:
        return "UNKNOWN"
