#!/usr/bin/env python3
"""Puts the example client behind the conformance suite's driver protocol (driver.proto): length-prefixed on stdio."""

import os
import sys
from pathlib import Path

import grpc

from client import Clock, Replica, WriteRefused, wire

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "proto"))
pb = grpc.protos("gosync/conformance/v1/driver.proto")

CAPABILITIES = [
    pb.CAPABILITY_DURABLE_STORE, pb.CAPABILITY_CLOCK, pb.CAPABILITY_ONLINE, pb.CAPABILITY_LIVE,
    pb.CAPABILITY_RECONCILE, pb.CAPABILITY_DAMAGE, pb.CAPABILITY_TOKEN_REFRESH, pb.CAPABILITY_RANGES,
    pb.CAPABILITY_DISCARD,
]  # fmt: skip
KINDS = {
    wire.AUTHENTICATE: pb.SyncError.KIND_NEEDS_AUTH,
    wire.STOP: pb.SyncError.KIND_STOPPED,
    wire.UPGRADE: pb.SyncError.KIND_STOPPED,
}


class Driver:
    def __init__(self):
        self.clock, self.replicas = Clock(), {}

    def answer(self, request):
        response = pb.DriverResponse(id=request.id)
        command = request.WhichOneof("command")
        handler = getattr(self, f"do_{command}", None) if command else None
        if handler is None:
            response.unsupported.SetInParent()
            return response
        try:
            name, value = handler(getattr(request, command)) or ("done", pb.Done())
            getattr(response, name).CopyFrom(value)
        except WriteRefused as error:
            response.write_error.CopyFrom(pb.WriteError(reason=error.reason, detail=str(error)))
        except wire.Fail as fail:
            kind = KINDS.get(fail.action, pb.SyncError.KIND_RETRYABLE)
            response.sync_error.CopyFrom(pb.SyncError(kind=kind, reason=fail.reason, detail=fail.detail))
        except Exception as error:  # the driver's own fault, told to the suite
            response.fault.CopyFrom(pb.Fault(detail=f"{type(error).__name__}: {error}"))
        return response

    def do_hello(self, hello):
        if hello.mutant:
            raise LookupError("this driver has no mutants")
        return "info", pb.DriverInfo(
            name="gosync-example-python", version="1", capabilities=CAPABILITIES, transports=[pb.TRANSPORT_GRPC],
            profiles=["core", "heal", "live", "hardened"])  # fmt: skip

    def do_open(self, m):
        path = os.path.abspath(f"{m.store}.db") if m.store else None
        self.replicas[m.replica] = Replica(
            path, m.url, m.space, m.tokens, [bytes(p) for p in m.key_prefixes], self.clock
        )

    def do_put(self, m):
        self.replicas[m.replica].write(m.key, m.value)

    def do_delete(self, m):
        self.replicas[m.replica].write(m.key, None)

    def do_sync(self, m):
        self.replicas[m.replica].sync(m.timeout_ms / 1000)

    def do_watch(self, m):
        self.replicas[m.replica].watch()

    def do_await_idle(self, m):
        self.replicas[m.replica].await_idle(m.timeout_ms / 1000)

    def do_read_all(self, m):
        replica = self.replicas[m.replica]
        with replica.store as store:
            entries = [pb.Entry(key=r.key, value=r.value, time=r.time, writer=r.replica) for r in replica.read_all()]
            pending = [
                pb.PendingWrite(
                    key=w.record.key, tombstone=w.record.tombstone, rejected=w.rejected, in_doubt=w.doubt)  # fmt: skip
                for w in store.writes()
            ]
            quarantined = store.run("SELECT count(*) FROM quarantine")[0][0]
            verified = replica.verified and not store.damaged()
        return "contents", pb.StoreContents(entries=entries, pending=pending, quarantined=quarantined, verified=verified)

    def do_set_clock(self, m):
        self.clock.set(m.unix_ms)

    def do_set_online(self, m):
        self.replicas[m.replica].set_online(m.online)

    def do_close(self, m):
        self.replicas.pop(m.replica).close()

    def do_damage(self, m):
        """Flips a bit of the stored value and leaves the kept digest as it was."""
        store = self.replicas[m.replica].store
        rows = store.run("SELECT value FROM clean WHERE key = ?", m.key)
        if not rows:
            raise LookupError("no clean record under this key")
        value = bytes([rows[0][0][0] ^ 1]) + rows[0][0][1:] if rows[0][0] else b"x"
        store.run("UPDATE clean SET value = ? WHERE key = ?", value, m.key)

    def do_discard(self, m):
        if not self.replicas[m.replica].discard(m.key):
            raise LookupError("no pending write under this key")


def main():
    driver, source, sink = Driver(), sys.stdin.buffer, sys.stdout.buffer
    while True:
        head = source.read(4)
        if len(head) < 4:
            break
        request = pb.DriverRequest.FromString(source.read(int.from_bytes(head, "big")))
        body = driver.answer(request).SerializeToString()
        sink.write(len(body).to_bytes(4, "big") + body)
        sink.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
