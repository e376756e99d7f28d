#!/usr/bin/env python3
"""Puts the client behind the conformance suite's driver protocol (conformance/proto, driver.proto)."""
import struct
import sys
import time
from dataclasses import replace
from urllib.parse import quote

import grpc

from replica import Replica, report
from rules import Failure
from store import Store
from wire import ROOT

sys.path.append(str(ROOT / "conformance/proto"))
pb = grpc.protos("gosync/conformance/v1/driver.proto")
KINDS = {"Authenticate": pb.SyncError.KIND_NEEDS_AUTH, "No access": pb.SyncError.KIND_NEEDS_AUTH,
         "Upgrade": pb.SyncError.KIND_STOPPED, "Stop": pb.SyncError.KIND_STOPPED}
CAPABILITIES = ("DURABLE_STORE", "CLOCK", "ONLINE", "RECONCILE", "DAMAGE", "TOKEN_REFRESH", "DISCARD", "RETRY",
                "BATCHES")
replicas, clock = {}, {"offset": 0}


def system_ms() -> int:
    return time.time_ns() // 1_000_000


def damage(store: Store, key: bytes):
    """Changes the stored bytes of a value; the digest that was stored with it stays."""
    below = [table[key] for table in (store.clean, store.quarantine) if key in table]
    with store.tx():
        kept = next(kept for kept in store.writes_to(key)[::-1] + below if not kept.record.dead)
        kept.record = replace(kept.record, value=kept.record.value + b"!")


def opened(command) -> Replica:
    path = command.store and quote(command.store, safe="") + ".store"
    return Replica(Store(path), command.url, command.space, command.tokens, lambda: system_ms() + clock["offset"])


def contents(replica: Replica):
    return pb.StoreContents(
        entries=[pb.Entry(key=r.key, value=r.value, time=r.time, writer=r.replica)
                 for r in replica.contents().values()],
        pending=[pb.PendingWrite(key=kept.record.key, tombstone=kept.record.dead, rejected=kept.rejected,
                                 in_doubt=kept.in_doubt) for kept in replica.store.outbox],
        quarantined=len(replica.store.quarantine), verified=replica.verified)


def answer(request) -> dict:
    kind = request.WhichOneof("command")
    command = kind and getattr(request, kind)
    if kind == "hello":
        return {"info": pb.DriverInfo(
            name="gosync-python-example", version="1", transports=[pb.TRANSPORT_GRPC], profiles=["core", "heal"],
            capabilities=[pb.Capability.Value("CAPABILITY_" + name) for name in CAPABILITIES])}
    replica = replicas.get(getattr(command, "replica", None))
    if kind == "read_all":
        return {"contents": contents(replica)}
    actions = {
        "set_clock": lambda: clock.update(offset=command.unix_ms - system_ms() if command.unix_ms else 0),
        "open": lambda: replicas.update({command.replica: opened(command)}),
        "put": lambda: replica.put({command.key: command.value}),
        "delete": lambda: replica.put({command.key: None}),
        "put_batch": lambda: replica.put({entry.key: entry.value for entry in command.entries}, batch=True),
        "sync": lambda: replica.sync(command.timeout_ms / 1000),
        "set_online": lambda: setattr(replica, "online", command.online),
        "close": lambda: replicas.pop(command.replica).store.lock.close(),
        "damage": lambda: damage(replica.store, command.key),
        "discard": lambda: replica.store.discard(command.key),
        "retry": lambda: replica.store.retry(command.key),
    }
    if kind not in actions:
        return {"unsupported": pb.Unsupported()}
    actions[kind]()
    return {"done": pb.Done()}


def main():
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while len(head := stdin.read(4)) == 4:
        request = pb.DriverRequest.FromString(stdin.read(struct.unpack(">I", head)[0]))
        try:
            result = answer(request)
        except Failure as failure:
            result = {"write_error": pb.WriteError(reason=failure.reason, detail=str(failure))}
            if request.WhichOneof("command") == "sync":
                result = {"sync_error": pb.SyncError(kind=KINDS.get(failure.action, pb.SyncError.KIND_RETRYABLE),
                                                 reason=failure.reason, detail=str(failure))}
        except (AttributeError, KeyError, OSError, StopIteration) as error:
            report(repr(error))
            result = {"fault": pb.Fault(detail=repr(error))}
        body = pb.DriverResponse(id=request.id, **result).SerializeToString()
        stdout.write(struct.pack(">I", len(body)) + body)
        stdout.flush()


if __name__ == "__main__":
    main()
