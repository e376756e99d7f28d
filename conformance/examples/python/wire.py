"""The schema, the calls, and what a call that failed calls for (chapters 11 and 12)."""
import sys
import threading
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from rules import Failure, Record

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "proto/gosync/v1/sync.proto").exists())
sys.path.append(str(ROOT / "proto"))  # the schema is compiled at the start
types = grpc.protos("gosync/v1/types.proto")
sync, services = grpc.protos_and_services("gosync/v1/sync.proto")

OPTIONS = {"grpc.max_receive_message_length": 64 << 20, "grpc.max_send_message_length": -1,  # LIMIT-011
           "grpc.enable_retries": 0, "grpc.enable_http_proxy": 0, "grpc.use_local_subchannel_pool": 1}
REASONS = {number: name[len("REASON_"):] for name, number in types.Reason.items() if number}
ACTIONS = {  # of a reason (section 12.3), or of a status without a known one (12.4); of any other: Retry
    "UNSUPPORTED_VERSION": "Upgrade", "MALFORMED": "Report", "LIMIT_EXCEEDED": "Report", "SPACE_RETIRED": "Stop",
    "UNAUTHENTICATED": "Authenticate", "TOKEN_EXPIRED": "Authenticate", "NO_ACCESS": "No access",
    "BEHIND_COMPACTION": "Resync", "HISTORY_CHANGED": "Resync", "HORIZON_CHANGED": "Resync",
    grpc.StatusCode.UNAUTHENTICATED: "Authenticate", grpc.StatusCode.PERMISSION_DENIED: "No access",
    grpc.StatusCode.UNIMPLEMENTED: "Upgrade"}


def read_record(message) -> Record:
    """Fields that nobody knows stay behind (EXT-009)."""
    if not message.HasField("version"):
        raise Failure("a record without version", reason="MALFORMED")  # MODEL-013
    return Record(message.key, message.version.time, message.version.replica, message.flags, message.value)


def record_message(record: Record):
    return types.Record(key=record.key, version=types.Version(time=record.time, replica=record.replica),
                        flags=record.flags, value=record.value)


def failure_of(error: grpc.RpcError) -> Failure:
    """By the reason, or else by the status; never by the text (ERR-011, ERR-012)."""
    reason, delay = "", 0.0
    try:
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        for detail in status_pb2.Status.FromString(details).details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                reason = info.reason if info.domain == "gosync" and info.reason in REASONS.values() else ""
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                wait = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                delay = max(0.0, wait.seconds + wait.nanos / 1e9)
    except DecodeError:
        pass  # such details say nothing
    action = ACTIONS.get(reason or error.code(), "Retry")
    return Failure(f"{error.code().name}: {error.details()}", action, reason, delay)


def call(method, request, metadata: list, patience: float):
    try:
        answer = method(request, timeout=patience, metadata=metadata)
    except grpc.RpcError as error:
        raise failure_of(error) from None
    if answer is None:
        raise Failure("status OK without an answer")
    return answer


def stream(method, request, metadata: list, silence: float):
    """(kind, message) of each event that is known (EXT-004), until none comes for `silence` seconds.

    There is no deadline for the whole (TRANS-028)."""
    answer = method(request, metadata=metadata)
    try:
        while True:
            watchdog = threading.Timer(silence, answer.cancel)
            watchdog.start()
            try:
                event = next(answer, None)
            finally:
                watchdog.cancel()
            if event is None:
                return
            if kind := event.WhichOneof("event"):
                yield kind, getattr(event, kind)
    except grpc.RpcError as error:
        raise failure_of(error) from None
