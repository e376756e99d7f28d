"""A replica of a whole space, and its sessions with the server (chapters 4 to 9)."""
import random
import secrets
import sys
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import grpc

import wire
from descent import Descent
from rules import REWOUND, SAME, UNKNOWN, Cursor, Failure, History, Record, clock_bound, fingerprint, inside
from store import Kept, Store
from wire import sync, types

PATIENCE, HEAL_PAUSE = 15.0, 30.0  # seconds: for a unary call (LIMIT-013), and RECON-046
WISH = 1 << 20  # the max_response_bytes that is asked for
# Of the advertised limits those that a replica looks at: name -> (default, floor), chapter 13.
LIMITS = {"max_message_bytes": (4_194_304, 1_048_576), "max_value_bytes": (1_048_576, 65_536, 16 << 20),
          "max_push_records": (5_000, 100), "max_clock_skew_ms": (300_000, 1_000), "watchdog_ms": (45_000, 300)}


def report(text: str):
    print(text, file=sys.stderr, flush=True)  # what an application would show


@dataclass
class Findings:
    """What a reconciliation has found so far."""
    history: History
    received: dict = field(default_factory=dict)  # key -> record of the server's
    lacks: set = field(default_factory=set)  # keys of clean records under which the server has nothing
    wanted: list = field(default_factory=list)  # ranges that are damaged at the server


class Replica:
    def __init__(self, store: Store, url: str, space: str, tokens=(), wall=lambda: time.time_ns() // 1_000_000):
        self.store, self.address, self.space, self.wall = store, urlsplit(url).netloc, space, wall
        self.id, self.tokens = secrets.randbits(64), iter(tokens)  # CLOCK-001
        self.token, self.refused = next(self.tokens, None), 0
        if self.token and urlsplit(url).hostname not in ("127.0.0.1", "::1", "localhost"):
            raise Failure("this example knows no TLS, and a token needs it")  # TRANS-007
        self.online, self.deadline, self.not_before, self.failures, self.resynced = True, 0.0, 0.0, 0, -60.0
        self.told = 0, time.monotonic()  # the server's time, and when it was told
        self.partial = None  # Findings of a Snapshot that broke off
        self.heals, self.healed_at, self.rest = 0, 0, 0.0  # healings in a row that were in vain (section 9.9)
        self.writes, self.proof = 0, None  # applications' writes that were noticed; the server's last fingerprint

    # ---- the application's side

    def put(self, entries: dict, batch: bool = False):
        """Writes key -> value, or None to delete. Returns once that is durable (CLIENT-008)."""
        records = [Record(key, 0, 0, 0, value or b"") for key, value in entries.items()]
        if not all(self.fits([record]) for record in records) or batch and not self.fits(records):
            raise Failure("a value, or the batch, is over a limit", reason="LIMIT_EXCEEDED")  # LIMIT-008, PUSH-025
        self.store.write(entries, self.wall(), self.id, batch)

    def contents(self) -> dict:
        self.scrub()
        return self.store.seen()

    @property
    def verified(self) -> bool:
        """Whether the last comparison was equal, and nothing changed since (WATCH-026)."""
        return self.proof == fingerprint(self.store.covered())

    def limit(self, name: str) -> int:
        default, floor, *ceiling = LIMITS[name]
        return min(max(self.store.state.limits.get(name, default), floor), *ceiling or [2 ** 64])  # LIMIT-007, LIMIT-016

    def fits(self, records: list[Record]) -> bool:
        size = 2_000 + sum(len(record.key) + len(record.value) + 64 for record in records)
        return (len(records) <= self.limit("max_push_records") and size <= self.limit("max_message_bytes") and
                all(len(record.value) <= self.limit("max_value_bytes") for record in records))

    def scrub(self):
        for key in self.store.scrub():
            report(f"the record under {key!r} was damaged")  # MODEL-025

    # ---- sessions, and what follows when one fails

    def sync(self, timeout: float):
        """One whole session, with retries. Raises the Failure for which it gives up."""
        self.deadline = time.monotonic() + timeout
        if self.refused > 1 or self.refused and not self.token:
            self.next_token(Failure("no token is left", "Authenticate"))  # CLIENT-039
        while True:
            try:
                self.session()
                self.failures = 0
                return
            except Failure as failure:
                report(f"{failure.action}: {failure.reason} {failure}")
                delay = self.delay_after(failure)
                if not self.online or time.monotonic() + delay > self.deadline:
                    raise
                time.sleep(delay)

    def next_token(self, failure: Failure):
        self.token = next(self.tokens, None)
        if self.token is None:
            raise failure

    def delay_after(self, failure: Failure) -> float:
        """Seconds until the next session; raises the failure where there is to be none by itself (section 12.3)."""
        self.hold_back(failure.delay)
        if failure.action == "Authenticate":
            self.refused += 1
            if self.refused == 1:  # CLIENT-038
                self.next_token(failure)
                return 0.0
        if failure.action in ("Authenticate", "No access", "Upgrade", "Stop"):
            raise failure
        if failure.action == "Resync" and time.monotonic() > self.resynced + 60:
            self.resynced = time.monotonic()
            return 0.0
        least = min(0.25 * 2 ** self.failures, 30.0)
        self.failures = min(self.failures + 1, 10)
        return random.uniform(least, 2 * least)  # CLIENT-032 to CLIENT-036

    def hold_back(self, seconds: float):
        """The server named a delay: no call before it is over (CLIENT-034, WATCH-040)."""
        self.not_before = max(self.not_before, time.monotonic() + random.uniform(seconds, 2 * seconds))

    def session(self):
        """The stages of section 9.7."""
        with grpc.insecure_channel(self.address, list(wire.OPTIONS.items())) as channel:
            self.stub = wire.services.SyncServiceStub(channel)
            self.metadata = [("authorization", f"Bearer {self.token}")] if self.token else []
            self.scrub()
            self.hello()
            if self.store.state.dirty or not self.store.state.cursor or not self.now.in_order:
                self.heal()
            self.push()
            while not self.watch():
                self.heal()
                self.push()

    def call(self, name: str, **fields):
        """A call about the replica's range: the answer, or the events of the stream."""
        now, state = time.monotonic(), self.store.state
        if not self.online or max(self.not_before, now) > self.deadline:
            raise Failure("offline, out of time, or told to wait for longer")
        time.sleep(max(0.0, self.not_before - now))
        newest = state.newest
        if newest and state.cursor and state.cursor >= newest and state.cursor.epoch == newest.epoch:
            newest = None  # PUSH-039
        held = types.HeldRanges(ranges=[types.Range()], cursor=state.cursor and types.Cursor(**state.cursor._asdict()))
        request = getattr(sync, name + "Request")(
            space=self.space, held=[held], newest_commit=newest and types.Cursor(**newest._asdict()), **fields)
        method, left = getattr(self.stub, name), self.deadline - time.monotonic()
        if name in ("Watch", "Snapshot"):
            return wire.stream(method, request, self.metadata, min(self.limit("watchdog_ms") / 1000, left))
        return wire.call(method, request, self.metadata, min(PATIENCE, left))

    # ---- what the server says

    def bound(self) -> int:
        server_ms = self.told[0] + int((time.monotonic() - self.told[1]) * 1000)
        return clock_bound(max(self.wall(), server_ms), self.limit("max_clock_skew_ms"))  # CLOCK-011

    def receive(self, message) -> Record:
        record = wire.read_record(message)
        if record.time > self.bound():
            raise Failure(f"the record under {record.key!r} is from the future")
        return record

    def history(self, answer, judged: bool = True) -> History:
        """What an answer says of the history; `judged`: also of where the replica stands in it."""
        position, restored = answer.position, [(p.epoch, p.sequence) for p in getattr(answer, "restore_points", ())]
        if not position.HasField("head") or position.horizon > self.bound():  # SEC-013
            raise Failure("an answer without a position, or with a horizon from the future")
        if judged and len(answer.held) != 1:
            raise Failure("another number of statuses than asked for")  # HELLO-021
        status = answer.held[0] if judged else types.HistoryStatus()
        lineage = status.lineage if status.lineage in (SAME, REWOUND) else UNKNOWN  # HIST-014
        head = Cursor(position.head.epoch, position.head.sequence, position.head.tag)
        return History(head, position.horizon, restored, lineage, status.mapped_sequence, status.behind_compaction)

    def hello(self):
        """Chapter 4."""
        for _ in range(4):
            state, horizon = self.store.state, self.store.state.horizon
            answer = self.call("Hello", versions=[1], features=[sync.FEATURE_RECONCILE], horizon=horizon,
                               fingerprints=[fingerprint(self.store.covered())], client="gosync-python-example/1")
            self.told = answer.server_time_ms, time.monotonic()
            self.now = self.history(answer)
            if answer.version != 1:
                raise Failure("a version that was not offered")  # HELLO-008
            with self.store.tx():
                state.limits = {name: getattr(answer.limits, name) for name in LIMITS}
                self.store.learn(self.now)
            if self.now.horizon == horizon:
                break  # or else once more, with the fingerprint at that horizon (HELLO-027)
        else:
            raise Failure("the horizon changes all the time")
        self.refused = 0
        self.metadata.append(("gosync-version", "1"))  # HELLO-006
        self.reconcile_offered = sync.FEATURE_RECONCILE in answer.features
        self.writable = tuple(grant.key_prefix for grant in answer.grants if grant.access == sync.ACCESS_WRITE)
        if list(answer.equal) == [True] and not state.dirty and state.cursor != self.now.head:
            self.conclude(Findings(self.now))  # a reconciliation that found no difference (HELLO-029)

    # ---- Reconcile (chapter 7) and Snapshot (chapter 8)

    def heal(self):
        heals, self.heals, self.healed_at, findings = self.heals, min(self.heals + 1, 3), self.writes, None
        if self.reconcile_offered and self.store.clean and heals < 2:
            findings = self.reconcile()
            self.heals = self.heals if findings else 3
        self.conclude(findings or self.snapshot())  # RECON-045

    def reconcile(self) -> Findings | None:
        """One session; none where it is given up for a Snapshot."""
        descent, salt, findings, idle = Descent(self.store.covered()), secrets.randbits(64), None, 0  # RECON-004
        for _ in range(4096):  # LIMIT-012
            answer = self.call("Reconcile", horizon=self.now.horizon, turns_left=2, max_response_bytes=WISH,
                               salt=salt, **descent.ask())
            history = self.history(answer)
            if history.differs(self.now):
                raise Failure("the history changed within the session", "Resync")  # RECON-034
            if history.head.sequence < self.now.mapped:
                raise Failure("the server lags behind the cursor")  # RECON-035
            records = [self.receive(record) for record in answer.records]
            closed = descent.hear(answer, records, history.head)
            if not descent.open and descent.doubt(history.head):
                closed = False
            findings = findings or Findings(history, lacks=descent.lacks)
            findings.history = min(findings.history, history, key=lambda h: h.head.sequence)  # section 7.7
            self.take_in(findings, records, history, answer.wanted)
            if not descent.open:
                return findings
            idle = 0 if records or closed else idle + 1
            if idle >= 64:
                return None  # RECON-036

    def take_in(self, findings: Findings, records: list[Record], history: History, wanted=()):
        """Merges what a session brings, for now in memory; cursor, points and status stay as they are (RECON-043)."""
        for record in records:
            findings.received[record.key] = record
            self.store.merge(record, history.head[:2], confirm=False)
        findings.wanted += [(area.start, area.end if area.HasField("end") else None) for area in wanted]

    def snapshot(self) -> Findings:
        """A stream that breaks off is resumed by the next session, unless it broke a rule (SNAP-015)."""
        findings, complete = self.partial, None
        last = max(findings.received, default=b"") if findings else b""
        first, resumed, started = findings and findings.history, bool(last), False
        try:
            for kind, message in self.call("Snapshot", after_key=last or None, max_response_bytes=WISH):
                if kind == "end":
                    self.end_of_stream(message, complete is not None)
                    break
                self.partial = None
                if (kind == "start") == started or complete is not None:
                    raise Failure("the Snapshot is out of order")
                if kind == "start":
                    started, history = True, self.history(message)
                    if history.head.epoch != self.now.head.epoch or resumed and history.differs(first):
                        raise Failure("the history changed: the Snapshot begins anew", "Resync")  # SNAP-016
                    findings = findings if resumed else Findings(history)
                    self.take_in(findings, [], history, message.wanted)
                    with self.store.tx():
                        self.store.learn(history)
                elif kind == "chunk":
                    keys = [last, *(record.key for record in message.records)]
                    if keys != sorted(set(keys)):
                        raise Failure("a key out of order")  # SNAP-023
                    self.take_in(findings, [self.receive(record) for record in message.records], findings.history)
                    last = keys[-1]
                else:
                    complete = [state.fingerprint for state in message.ranges]
                self.partial = findings
        except Failure:
            if complete is None or self.partial is None:
                raise  # otherwise the content is whole, and only the stream's end got lost (section 8.5)
        if complete is None:
            raise Failure("the Snapshot broke off")
        self.partial = None
        pairs = sorted((key, record.digest) for key, record in findings.received.items())
        if self.reconcile_offered and not resumed and complete != [fingerprint(pairs)]:
            raise Failure("the Snapshot is not what it says")  # SNAP-022
        findings.lacks = {key for key, _ in self.store.covered()} - set(findings.received)
        return findings

    def conclude(self, findings: Findings):
        """The end of a reconciliation, in one transaction (RECON-040, SNAP-025)."""
        store, history = self.store, findings.history
        with store.tx():
            for record in findings.received.values():  # again: a transaction that failed undoes what was in memory only
                store.merge(record, history.head[:2], confirm=False)
            lost = findings.lacks | store.learn(history)  # and old tombstones that this server never had
            for key, kept in list(store.clean.items()):
                theirs, wanted = findings.received.get(key), any(inside(key, *area) for area in findings.wanted)
                beaten = theirs is not None and theirs.rank < kept.record.rank
                if not (beaten or key in lost):
                    kept.point = kept.point if kept.offer else history.head[:2]  # RECON-042
                elif (history.holds(kept.point) and history.behind and kept.record.time < history.horizon
                        and not (beaten or wanted or kept.offer)):
                    del store.clean[key]  # HIST-034: it was deleted
                elif key.startswith(self.writable):
                    kept.offer = True  # HIST-035, MODEL-027: it was lost
                else:
                    report(f"the record under {key!r} goes into quarantine")
                    store.reject(kept, "NO_ACCESS")  # HIST-038
                    if beaten:
                        store.merge(theirs, history.head[:2])
            if history.behind:
                store.rescue(self.id)
            store.state.newest = store.state.newest if history.lineage == SAME else None  # PUSH-036
            store.state.cursor, store.state.dirty = history.head, False
        self.now = self.now._replace(lineage=SAME, mapped=history.head.sequence, behind=False)

    # ---- Push (chapter 5)

    def push(self):
        self.skip, self.restamped = set(), set()  # keys that wait for a later session, and that got a new version
        while group := self.store.next_push(self.skip):
            self.send(group)

    def send(self, group: list[Kept]):
        records, atomic = [kept.record for kept in group], group[0].batch > 0
        try:
            if not self.fits(records):
                raise Failure("over the limits of the last Hello", "Report", "LIMIT_EXCEEDED")  # LIMIT-009
            with self.store.tx():  # CLIENT-012
                for kept in group:
                    kept.attempted = True
            answer = self.call("Push", atomic=atomic, records=[wire.record_message(record) for record in records])
        except Failure as failure:
            if failure.reason not in ("MALFORMED", "LIMIT_EXCEEDED"):
                raise
            if not atomic and len(group) > 1:  # smaller parts, until the record at fault stands alone (section 9.11)
                self.send(group[:len(group) // 2])
                return self.send(group[len(group) // 2:])
            with self.store.tx():
                return [self.store.reject(kept, failure.reason) for kept in group]
        history = self.history(answer)
        if len(answer.verdicts) != len(group):
            raise Failure("another number of verdicts than records")  # PUSH-026
        self.told = answer.server_time_ms, time.monotonic()
        with self.store.tx():  # PUSH-028
            self.settle(group, answer, history.head, atomic)
        if self.store.state.dirty or not history.in_order:
            raise Failure("the answer to a Push calls for a new session", "Resync")  # PUSH-035

    def settle(self, group: list[Kept], answer, head: Cursor, atomic: bool):
        """The verdicts: section 5.5."""
        store, skewed, keep = self.store, [], ("CLOCK_SKEW", "BEHIND_COMPACTION", "BATCH_ABORTED")
        reasons = ["" if v.outcome in (1, 2, 3) else wire.REASONS.get(v.reason, "UNSPECIFIED") for v in answer.verdicts]
        final = [reason for reason in reasons if reason and reason not in keep]  # why an atomic batch is rejected
        for kept, verdict, reason in zip(group, answer.verdicts, reasons):
            key, point = kept.record.key, (head.epoch, verdict.sequence)
            if verdict.outcome in (sync.OUTCOME_APPLIED, sync.OUTCOME_UNCHANGED):
                self.writes += not kept.offer and verdict.outcome == sync.OUTCOME_APPLIED
                store.merge(kept.record, point)  # that removes the write, or the mark of the offer
                store.state.newest = head  # PUSH-030
            elif verdict.outcome == sync.OUTCOME_SUPERSEDED:
                try:
                    winner = self.receive(verdict.winner)
                except Failure:
                    winner = kept.record
                if winner.key == key and winner.rank > kept.record.rank:
                    report(f"the write under {key!r} was superseded")
                    store.merge(winner, point)
                else:
                    self.skip.add(key)  # sent again later, unless the winner arrives
            elif reason not in keep or atomic and final or reason == "BATCH_ABORTED" and not atomic:
                report(f"the write under {key!r} was rejected: {reason} {verdict.detail}")
                store.reject(kept, reason if reason in final or not atomic else final[0])
            elif reason == "CLOCK_SKEW" and not kept.offer and kept.digest not in self.restamped:
                skewed.append(kept)
            elif reason == "CLOCK_SKEW":
                self.skip.add(key)  # an offer keeps its version (CLIENT-025)
            elif reason == "BEHIND_COMPACTION":
                store.state.dirty = True
        store.restamp(skewed, answer.server_time_ms, self.id)
        self.restamped.update(kept.digest for kept in skewed)

    # ---- Watch (chapter 6)

    def end_of_stream(self, end, complete: bool):
        """StreamEnd: by its reason (section 6.5)."""
        reason = wire.REASONS.get(end.reason, "")
        self.hold_back(end.retry_after_ms / 1000)
        if end.reason or not complete:
            action = "Resync" if reason == "NO_ACCESS" else wire.ACTIONS.get(reason, "Retry")
            raise Failure(f"the stream ended: {end.detail}", action, reason)

    def watch(self) -> bool:
        """Follows the server to the first checkpoint; false where that calls for healing."""
        pending, verdict = [], None
        for kind, message in self.call("Watch", until_caught_up=True, max_response_bytes=WISH):
            if kind == "end":
                self.end_of_stream(message, verdict is not None)
                return verdict
            if kind == "changes":
                pending += [self.receive(record) for record in message.records]
            else:
                self.told = message.server_time_ms, time.monotonic()
            if kind == "checkpoint":
                cursor, horizon = self.history(message, judged=False)[:2]
                if horizon != self.now.horizon:
                    raise Failure("another horizon", "Resync")  # WATCH-025
            elif message.HasField("cursor"):
                cursor = Cursor(message.cursor.epoch, message.cursor.sequence, message.cursor.tag)
            else:
                continue  # the commit goes on in the next message (WATCH-010)
            if cursor.epoch != self.now.head.epoch or cursor.sequence < self.store.state.cursor.sequence:
                raise Failure("a cursor of another epoch, or a lower one", "Resync")  # WATCH-013, WATCH-014
            if pending and kind != "changes":
                raise Failure("a cursor within a commit")  # WATCH-010
            with self.store.tx():  # WATCH-009
                if kind == "changes":
                    self.writes += sum([self.store.merge(record, cursor[:2]) for record in pending])
                    pending = []
                self.store.state.cursor = cursor
            if kind == "checkpoint":
                verdict = self.compare([state.fingerprint for state in message.ranges], cursor)
        raise Failure("the stream broke off")  # WATCH-038

    def compare(self, told: list[bytes], cursor: Cursor) -> bool:
        """With a checkpoint (WATCH-023); false where it calls for healing (WATCH-024)."""
        newer = any(kept.point > cursor[:2] and kept.point[0] == cursor.epoch for kept in self.store.clean.values())
        if not self.reconcile_offered or newer:
            return True  # EXT-001, or: the next checkpoint serves
        if len(told) != 1:
            raise Failure("another number of ranges than watched")
        self.proof = told[0]
        if self.verified:
            self.heals = 0
        elif self.heals and self.healed_at != self.writes:
            self.heals = 1  # somebody wrote meanwhile
        elif self.heals > 2:
            report("the replica and the server stay unequal")  # RECON-046
            self.heals, self.rest = 1, time.monotonic() + HEAL_PAUSE
        return self.verified or time.monotonic() < self.rest
