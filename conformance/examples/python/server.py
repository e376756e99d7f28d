#!/usr/bin/env python3
"""A minimal GoSync server: profile core over gRPC, everything in memory, no tokens, loopback only.

Written from spec/ chapters 1 to 8, 12 and 13. It keeps no tree, so it offers neither FEATURE_RECONCILE nor FEATURE_LIVE,
and it never compacts: its horizon stays 0.
"""

import argparse
import bisect
import re
import secrets
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2
from grpc_status import rpc_status

from rules import MAX_BOUND, MAX_KEY, Failure, clock_bound, inside
from wire import read_record, record_message, types
from wire import services as rpc
from wire import sync as pb

LIMITS = pb.Limits(
    max_message_bytes=4 << 20, max_value_bytes=1 << 20, max_push_records=5_000, max_ranges=256,
    max_reconcile_entries=1_000, max_response_bytes=2 << 20, max_clock_skew_ms=300_000, max_streams_per_connection=32,
    heartbeat_interval_ms=15_000, watchdog_ms=45_000, max_stream_lifetime_ms=3_600_000,
)  # fmt: skip
STATUS = {
    "UNSUPPORTED_VERSION": grpc.StatusCode.FAILED_PRECONDITION,
    "MALFORMED": grpc.StatusCode.INVALID_ARGUMENT,
    "LIMIT_EXCEEDED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "HISTORY_CHANGED": grpc.StatusCode.FAILED_PRECONDITION,
    "LAGGING": grpc.StatusCode.UNAVAILABLE,
}
SPACE = re.compile(r"[A-Za-z0-9._-]{1,128}")
HORIZON = 0
RESPONSE_SLACK = 64
NOT_BUFFERED = (("cache-control", "no-store, no-transform"),)  # TRANS-022


class Refused(Exception):
    """A call that is refused, with its reason and the further details of section 12.2."""

    def __init__(self, reason: str, text: str, *more):
        super().__init__(text)
        self.reason, self.more = reason, more

    def status(self):
        packed = []
        for detail in (details.ErrorInfo(reason=self.reason, domain="gosync"), *self.more):
            packed.append(any_pb2.Any())
            packed[-1].Pack(detail)
        code = STATUS[self.reason].value[0]
        return rpc_status.to_status(status_pb2.Status(code=code, message=str(self), details=packed))


def malformed(field: str, text: str) -> Refused:
    violation = details.BadRequest.FieldViolation(field=field, description=text)
    return Refused("MALFORMED", f"{field}: {text}", details.BadRequest(field_violations=[violation]))


def over(limit: str, allowed: int, actual: int) -> Refused:
    text = f"{limit} is {allowed}, this has {actual}; send less at once"
    violation = details.BadRequest.FieldViolation(field=limit, description=text)
    return Refused("LIMIT_EXCEEDED", text, details.BadRequest(field_violations=[violation]),
                   types.LimitDetail(limit=limit, allowed=allowed, actual=actual))  # fmt: skip


class Space:
    """The records and the history of one space (chapter 2)."""

    def __init__(self, epoch: int):
        self.epoch = epoch
        self.records = {}  # key -> (Record, sequence)
        self.ends, self.tags = [0], {0: 0}  # the sequences at which commits end, and their tags
        self.clock_ms = 0  # the highest wall-clock reading stored with a commit (CLOCK-006)

    def head(self):
        end = self.ends[-1]
        return types.Cursor(epoch=self.epoch, sequence=end, tag=self.tags[end])

    def position(self):
        return types.Position(head=self.head())

    def status(self, cursor):
        """The table of section 2.3, for a server that was never restored and never compacted."""
        same = types.HistoryStatus(lineage=types.LINEAGE_SAME)
        if cursor is None or (cursor.epoch == self.epoch and cursor.sequence == 0):
            return same
        if cursor.epoch == self.epoch and self.tags.get(cursor.sequence) == cursor.tag:
            same.mapped_sequence = cursor.sequence
            return same
        return types.HistoryStatus(lineage=types.LINEAGE_UNKNOWN)

    def statuses(self, request) -> list:
        """One for each entry of `held`, the worse of its own and that of `newest_commit` (HIST-016)."""
        newest = self.status(request.newest_commit) if request.HasField("newest_commit") else None
        answer = []
        for held in request.held:
            own = self.status(held.cursor if held.HasField("cursor") else None)
            if newest:
                own.lineage = max(own.lineage, newest.lineage)
                own.mapped_sequence = min(own.mapped_sequence, newest.mapped_sequence)
            answer.append(own)
        return answer

    def commit(self, records: list, now_ms: int):
        first = self.ends[-1] + 1
        for sequence, record in enumerate(records, first):
            self.records[record.key] = (record, sequence)
        if records:
            end = first + len(records) - 1
            self.ends.append(end)
            self.tags[end] = secrets.randbits(64)
            self.clock_ms = max(self.clock_ms, now_ms)

    def commit_end(self, sequence: int) -> int:
        return self.ends[bisect.bisect_left(self.ends, sequence)]


class Server(rpc.SyncServiceServicer):
    def __init__(self):
        self.lock, self.epoch, self.spaces = threading.Lock(), secrets.randbits(64), {}

    def space(self, name: str) -> Space:
        """Under the lock. An empty space is not stored before its first record (MODEL-002)."""
        return self.spaces.get(name) or Space(self.epoch)

    @staticmethod
    def check(request, context, held_needed=False, hello=False):
        if not hello:
            version = dict(context.invocation_metadata()).get("gosync-version")
            if version != "1":
                raise unsupported(f"gosync-version is {version!r}; this server speaks 1")
        size = request.ByteSize()
        if size > LIMITS.max_message_bytes:
            raise over("max_message_bytes", LIMITS.max_message_bytes, size)
        if not SPACE.fullmatch(request.space):
            raise malformed("space", "1 to 128 of A-Z a-z 0-9 . _ -")
        if held_needed and not request.held:
            raise malformed("held", "names no range")
        check_ranges(request.held)

    # ---------------------------------------------------------------- calls

    def Hello(self, request, context):
        if 1 not in request.versions:
            raise unsupported("this server speaks version 1")
        self.check(request, context, hello=True)
        count = sum(len(h.ranges) for h in request.held)
        if request.fingerprints and (len(request.fingerprints) != count or {len(f) for f in request.fingerprints} != {32}):
            raise malformed("fingerprints", f"none, or {count} of 32 bytes")
        with self.lock:
            space = self.space(request.space)
            total = sum(in_held(key, request.held) for key in space.records)
            return pb.HelloResponse(
                version=1, server_time_ms=max(now_ms(), space.clock_ms), limits=LIMITS,
                grants=[pb.Grant(access=pb.ACCESS_WRITE)], position=space.position(), held=space.statuses(request),
                total_records=total)  # fmt: skip

    def Push(self, request, context):
        self.check(request, context)
        if len(request.records) > LIMITS.max_push_records:
            raise over("max_push_records", LIMITS.max_push_records, len(request.records))
        if len({r.key for r in request.records}) < len(request.records):
            raise malformed("records", "a key is there twice")
        with self.lock:
            space, now = self.space(request.space), now_ms()
            reading = max(now, space.clock_ms)
            judged = [self.judge(space, message, reading) for message in request.records]
            if request.atomic and any(v.outcome == pb.OUTCOME_REJECTED for v, _ in judged):
                judged = [(aborted(v), None) for v, _ in judged]
            applied = [record for _, record in judged if record]
            space.commit(applied, now)
            if applied:
                self.spaces[request.space] = space
            size = 0
            for verdict, message in zip((v for v, _ in judged), request.records):
                if verdict.outcome in (pb.OUTCOME_REJECTED, pb.OUTCOME_UNSPECIFIED):
                    continue
                held, verdict.sequence = space.records[message.key]
                if verdict.outcome == pb.OUTCOME_SUPERSEDED:
                    winner = record_message(held)
                    size += winner.ByteSize()
                    if size <= LIMITS.max_response_bytes or size == winner.ByteSize():  # PUSH-015
                        verdict.winner.CopyFrom(winner)
            return pb.PushResponse(verdicts=[v for v, _ in judged], position=space.position(), server_time_ms=reading,
                                   held=space.statuses(request))  # fmt: skip

    @staticmethod
    def judge(space: Space, message, reading: int):
        """The table of section 5.2: a verdict, and the record to apply."""

        def rejected(reason, text):
            return pb.Verdict(outcome=pb.OUTCOME_REJECTED, reason=reason, detail=text), None

        try:
            record = read_record(message)
        except Failure as failure:
            return rejected(f"REASON_{failure.reason}", str(failure))
        if len(record.value) > LIMITS.max_value_bytes:
            return rejected(types.REASON_LIMIT_EXCEEDED,
                            f"max_value_bytes is {LIMITS.max_value_bytes}, the value has {len(record.value)}")  # fmt: skip
        held = space.records.get(record.key)
        if held and held[0] == record:
            return pb.Verdict(outcome=pb.OUTCOME_UNCHANGED), None
        if held and held[0].rank > record.rank:
            return pb.Verdict(outcome=pb.OUTCOME_SUPERSEDED), None
        if record.time > clock_bound(reading, LIMITS.max_clock_skew_ms) and record.time != HORIZON:  # CLOCK-010
            return rejected(types.REASON_CLOCK_SKEW, f"the server's clock reads {reading} ms")
        return pb.Verdict(outcome=pb.OUTCOME_APPLIED), record

    def Watch(self, request, context):
        self.check(request, context, held_needed=True)
        with self.lock:
            space = self.space(request.space)
            statuses = space.statuses(request)
            if any(s.lineage != types.LINEAGE_SAME for s in statuses):
                detail = types.HistoryDetail(position=space.position(), held=statuses)
                raise Refused("HISTORY_CHANGED", "reconcile first: the cursor is not of this history", detail)
            rows = sorted(
                ((sequence, record) for key, (record, sequence) in space.records.items()
                 if any(sequence > h.cursor.sequence and in_held(key, [h]) for h in request.held)),
                key=lambda row: row[0])  # fmt: skip
            checkpoint = pb.Checkpoint(position=space.position(), server_time_ms=max(now_ms(), space.clock_ms))
            ends = [space.commit_end(sequence) for sequence, _ in rows]
            tags = {end: space.tags[end] for end in ends}
        for batch, more in batches([r for _, r in rows], request.max_response_bytes):
            done = batch.stop
            changes = pb.Changes(records=[record_message(rows[i][1]) for i in batch])
            if not more or ends[done] != ends[done - 1]:
                end = ends[done - 1]
                changes.cursor.CopyFrom(types.Cursor(epoch=space.epoch, sequence=end, tag=tags[end]))
            yield pb.WatchResponse(changes=changes)
        yield pb.WatchResponse(checkpoint=checkpoint)
        yield pb.WatchResponse(end=pb.StreamEnd())

    def Snapshot(self, request, context):
        self.check(request, context, held_needed=True)
        if len(request.after_key) > 512:
            raise over("max_key_bytes", 512, len(request.after_key))
        with self.lock:
            space = self.space(request.space)
            keys = sorted(k for k in space.records if k > request.after_key and in_held(k, request.held))
            records = [space.records[k][0] for k in keys]
            start = pb.SnapshotStart(
                position=space.position(), held=space.statuses(request), total_records=len(records),
                total_bytes=sum(len(r.key) + len(r.value) for r in records))  # fmt: skip
        yield pb.SnapshotResponse(start=start)
        for batch, _ in batches(records, request.max_response_bytes):
            yield pb.SnapshotResponse(chunk=pb.SnapshotChunk(records=[record_message(records[i]) for i in batch]))
        yield pb.SnapshotResponse(complete=pb.SnapshotComplete())
        yield pb.SnapshotResponse(end=pb.StreamEnd())


def unsupported(text: str) -> Refused:
    return Refused("UNSUPPORTED_VERSION", text, types.ServerDetail(
        server_time_ms=now_ms(), max_clock_skew_ms=LIMITS.max_clock_skew_ms, versions=[1]))  # fmt: skip


def aborted(verdict):
    if verdict.outcome != pb.OUTCOME_APPLIED:
        return verdict
    return pb.Verdict(outcome=pb.OUTCOME_REJECTED, reason=types.REASON_BATCH_ABORTED,
                      detail="another record of the batch was rejected")  # fmt: skip


def now_ms() -> int:
    return int(time.time() * 1000)


def bounds(message):
    return message.start, message.end if message.HasField("end") else None


def in_held(key: bytes, helds) -> bool:
    return any(inside(key, *bounds(r)) for h in helds for r in h.ranges)


def check_ranges(helds):
    """MODEL-008 to MODEL-012."""
    flat = [bounds(r) for h in helds for r in h.ranges]
    if len(flat) > LIMITS.max_ranges:
        raise over("max_ranges", LIMITS.max_ranges, len(flat))
    for start, end in flat:
        longest = max(len(start), len(end or b""))
        if longest > 513:
            raise over("max_bound_bytes", 513, longest)
        if end is not None and end <= start:
            raise malformed("held", "a range whose end is not above its start")
    for held in helds:
        starts = [r.start for r in held.ranges]
        if not starts:
            raise malformed("held", "an entry without a range")
        if any(a >= b for a, b in zip(starts, starts[1:])):
            raise malformed("held", "ranges that are not in ascending order")
    flat.sort(key=lambda r: r[0])
    for (_, end), (start, _) in zip(flat, flat[1:]):
        if end is None or end > start:
            raise malformed("held", "ranges that overlap")


def batches(records: list, wished: int):
    """Runs of indices whose records fit a message, each with whether another run follows."""
    room = min(wished or LIMITS.max_response_bytes, LIMITS.max_response_bytes) - RESPONSE_SLACK
    first = size = 0
    for i, record in enumerate(records):
        cost = record_message(record).ByteSize() + 8
        if i > first and size + cost > room:
            yield range(first, i), True
            first, size = i, 0
        size += cost
    if records:
        yield range(first, len(records)), False


class Refusals(grpc.ServerInterceptor):
    """Turns Refused into a status with details, for unary and streaming calls alike."""

    def intercept_service(self, continuation, details_):
        handler = continuation(details_)
        if handler is None:
            return None

        def unary(request, context):
            context.send_initial_metadata(NOT_BUFFERED)
            try:
                return handler.unary_unary(request, context)
            except Refused as refused:
                context.abort_with_status(refused.status())

        def stream(request, context):
            context.send_initial_metadata(NOT_BUFFERED)
            try:
                yield from handler.unary_stream(request, context)
            except Refused as refused:
                context.abort_with_status(refused.status())

        make = grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
        return make(stream if handler.response_streaming else unary, handler.request_deserializer,
                    handler.response_serializer)  # fmt: skip


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--listen", default="127.0.0.1:4000", help="a loopback address; port 0 takes a free one")
    listen = options.parse_args().listen
    if not listen.startswith(("127.", "[::1]", "localhost:")):
        options.error("this server asks for no tokens, so it listens on loopback addresses only (TRANS-033)")
    server = grpc.server(
        futures.ThreadPoolExecutor(32), interceptors=[Refusals()],
        options=[("grpc.max_receive_message_length", 8 << 20), ("grpc.max_concurrent_streams", 32)])  # fmt: skip
    rpc.add_SyncServiceServicer_to_server(Server(), server)
    port = server.add_insecure_port(listen)
    server.start()
    print(f"listening on http://{listen.rsplit(':', 1)[0]}:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
