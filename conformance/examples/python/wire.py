"""Calls to a GoSync server, and what a failure asks the replica to do (chapters 11 and 12). Knows no store."""

import queue
import threading

import grpc
from google.rpc import error_details_pb2 as details
from grpc_status import rpc_status

from rules import rpc, types

UNARY_SECONDS = 15
AUTHENTICATE, REPORT, RESTAMP, RESYNC, RETRY, STOP, UPGRADE = (
    "authenticate", "report", "restamp", "resync", "retry", "stop", "upgrade"
)
# the table of section 12.2
BY_REASON = {
    "UNSUPPORTED_VERSION": UPGRADE, "MALFORMED": REPORT, "LIMIT_EXCEEDED": REPORT,
    "UNAUTHENTICATED": AUTHENTICATE, "TOKEN_EXPIRED": AUTHENTICATE, "NO_ACCESS": REPORT, "CLOCK_SKEW": RESTAMP,
    "BEHIND_COMPACTION": RESYNC, "HISTORY_CHANGED": RESYNC, "HORIZON_CHANGED": RESYNC, "LAGGING": RETRY,
    "BATCH_ABORTED": REPORT, "QUOTA_EXCEEDED": REPORT, "RATE_LIMITED": RETRY, "SPACE_RETIRED": STOP,
    "UNAVAILABLE": RETRY, "STREAM_EXPIRED": RETRY, "SLOW_READER": RETRY, "STORAGE": RETRY, "INTERNAL": RETRY,
}  # fmt: skip
# the table of section 12.4
BY_STATUS = {
    grpc.StatusCode.UNAUTHENTICATED: AUTHENTICATE,
    grpc.StatusCode.PERMISSION_DENIED: REPORT,
    grpc.StatusCode.UNIMPLEMENTED: UPGRADE,
}


class Fail(Exception):
    """A session cannot go on."""

    def __init__(self, action: str, reason: str = "", detail: str = "", delay: float = 0.0):
        super().__init__(f"{reason or action}: {detail}")
        self.action, self.reason, self.detail, self.delay = action, reason, detail, delay


def from_end(end) -> Fail:
    """Of a StreamEnd with a reason (section 6.5)."""
    try:
        name = types.Reason.Name(end.reason).removeprefix("REASON_")
    except ValueError:
        name = ""
    return Fail(BY_REASON.get(name, RETRY), name, end.detail, end.retry_after_ms / 1000)


def from_error(error: grpc.RpcError) -> Fail:
    reason, delay = "", 0.0
    try:
        status = rpc_status.from_call(error)
    except (ValueError, NotImplementedError):
        status = None
    for any_detail in status.details if status else ():
        info, retry = details.ErrorInfo(), details.RetryInfo()
        if any_detail.Unpack(info) and info.domain == "gosync":
            reason = info.reason
        elif any_detail.Unpack(retry):
            delay = retry.retry_delay.ToNanoseconds() / 1e9
    code = error.code()
    if reason not in BY_REASON:
        reason = "NO_ACCESS" if code == grpc.StatusCode.PERMISSION_DENIED else ""
    action = BY_REASON.get(reason) or BY_STATUS.get(code, RETRY)
    return Fail(action, reason, error.details() or code.name, delay)


class Server:
    """One connection. Answers are parsed messages or Fail."""

    def __init__(self, url: str, token: str):
        target = url.removeprefix("http://")
        self.token = token
        self.version = None
        self.channel = grpc.insecure_channel(
            target,
            options=[("grpc.max_receive_message_length", 16 << 20), ("grpc.enable_retries", 0)],
        )
        self.stub = rpc.SyncServiceStub(self.channel)

    def close(self):
        self.channel.close()

    def metadata(self):
        pairs = [("authorization", f"Bearer {self.token}")] if self.token else []
        if self.version:
            pairs.append(("gosync-version", str(self.version)))
        return pairs

    def call(self, name: str, request):
        try:
            answer = getattr(self.stub, name)(request, timeout=UNARY_SECONDS, metadata=self.metadata())
        except grpc.RpcError as error:
            raise from_error(error) from None
        except ValueError as error:  # the channel was closed under us
            raise Fail(RETRY, detail=str(error)) from None
        if answer is None:  # status OK, and a message that cannot be decoded (ERR-013)
            raise Fail(RETRY, detail="an answer without a message")
        return answer

    def stream(self, name: str, request, inbox: "queue.Queue"):
        """Opens a stream whose messages, and at last its Fail or None, arrive in `inbox` as (stream, item)."""
        try:
            call = getattr(self.stub, name)(request, metadata=self.metadata())
        except ValueError as error:
            raise Fail(RETRY, detail=str(error)) from None

        def read():
            try:
                for message in call:
                    inbox.put((call, message))
                inbox.put((call, None))
            except grpc.RpcError as error:
                inbox.put((call, from_error(error)))

        threading.Thread(target=read, daemon=True).start()
        return call
