// Calls to a server, and what a failure asks the replica to do (chapters 11 and 12). Knows no store.
import * as grpc from "@grpc/grpc-js";
import { decode, encode, enumName, Msg } from "./codec.js";

export type Action = "authenticate" | "report" | "restamp" | "resync" | "retry" | "stop" | "upgrade";
/** The table of section 12.2; what is not named here is retried. */
const BY_REASON: Record<string, Action> = {
  UNSUPPORTED_VERSION: "upgrade",
  MALFORMED: "report",
  LIMIT_EXCEEDED: "report",
  UNAUTHENTICATED: "authenticate",
  TOKEN_EXPIRED: "authenticate",
  NO_ACCESS: "report",
  CLOCK_SKEW: "restamp",
  BEHIND_COMPACTION: "resync",
  HISTORY_CHANGED: "resync",
  HORIZON_CHANGED: "resync",
  BATCH_ABORTED: "report",
  QUOTA_EXCEEDED: "report",
  SPACE_RETIRED: "stop",
  LAGGING: "retry",
  RATE_LIMITED: "retry",
  UNAVAILABLE: "retry",
  STREAM_EXPIRED: "retry",
  SLOW_READER: "retry",
  STORAGE: "retry",
  INTERNAL: "retry",
};

/** A session cannot go on. */
export class Fail extends Error {
  constructor(
    public action: Action,
    public reason = "",
    detail = "",
    public delayMs = 0,
  ) {
    super(detail || reason || action);
  }
}

export const reasonName = (value: number): string => enumName("gosync.v1.Reason", value).replace("REASON_", "");

/** Of a StreamEnd with a reason (section 6.5). */
export const fromEnd = (end: Msg): Fail => {
  const reason = reasonName(end.reason);
  return new Fail(BY_REASON[reason] ?? "retry", reason, end.detail, Number(end.retry_after_ms));
};

function fromError(error: grpc.ServiceError): Fail {
  let reason = "",
    delay = 0;
  try {
    const [bin] = error.metadata?.get("grpc-status-details-bin") ?? [];
    for (const any of bin ? decode("google.rpc.Status", Buffer.from(bin)).details : []) {
      if (any.type_url.endsWith("/google.rpc.ErrorInfo")) {
        const info = decode("google.rpc.ErrorInfo", any.value);
        if (info.domain === "gosync" && BY_REASON[info.reason]) reason = info.reason;
      } else if (any.type_url.endsWith("/google.rpc.RetryInfo")) {
        const wait = decode("google.rpc.RetryInfo", any.value).retry_delay;
        delay = wait ? Number(wait.seconds) * 1000 + wait.nanos / 1e6 : 0;
      }
    }
  } catch {
    /* details that cannot be decoded are as good as none (ERR-011) */
  }
  const { UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED } = grpc.status;
  if (!reason && error.code === PERMISSION_DENIED) reason = "NO_ACCESS";
  const byStatus = error.code === UNAUTHENTICATED ? "authenticate" : error.code === UNIMPLEMENTED ? "upgrade" : "retry";
  return new Fail(BY_REASON[reason] ?? byStatus, reason, error.details || error.message, delay);
}

/** What arrives, one after the other; waiting for it can time out. */
export class Queue<T> {
  private items: T[] = [];
  private wake: (() => void) | null = null;
  push(item: T): void {
    this.items.push(item);
    this.wake?.();
  }
  async next(timeoutMs: number): Promise<T | undefined> {
    if (!this.items.length) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.max(timeoutMs, 0));
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.wake = null;
    }
    return this.items.shift();
  }
}

export type Heard = { message: Msg } | { fail: Fail | null } | "woken";

/** One connection. */
export class Server {
  version = 0;
  private readonly client: grpc.Client;
  private readonly open = new Set<{ cancel(): void }>();

  constructor(
    url: string,
    private readonly token: string,
  ) {
    this.client = new grpc.Client(url.replace("http://", ""), grpc.credentials.createInsecure(), {
      "grpc.max_receive_message_length": 16 << 20,
      "grpc.enable_retries": 0,
    });
  }

  close(): void {
    for (const call of this.open) call.cancel();
    this.client.close();
  }

  private metadata(): grpc.Metadata {
    const metadata = new grpc.Metadata();
    if (this.token) metadata.set("authorization", `Bearer ${this.token}`);
    if (this.version) metadata.set("gosync-version", String(this.version));
    return metadata;
  }

  call(name: string, request: Msg): Promise<Msg> {
    return new Promise((resolve, reject) => {
      const call = this.client.makeUnaryRequest(
        `/gosync.v1.SyncService/${name}`,
        (m: Msg) => encode(`gosync.v1.${name}Request`, m),
        (data: Buffer) => decode(`gosync.v1.${name}Response`, data),
        request,
        this.metadata(),
        { deadline: Date.now() + 15_000 },
        (error, answer) => {
          this.open.delete(call);
          if (error) reject(fromError(error));
          else if (!answer) reject(new Fail("retry", "", "an answer without a message"));
          else resolve(answer);
        },
      );
      this.open.add(call);
    });
  }

  /** Opens a stream whose messages, and at last its failure or null, arrive in `queue`; returns how to cancel it. */
  stream(name: string, request: Msg, queue: Queue<Heard>): () => void {
    let over = false;
    const call = this.client.makeServerStreamRequest(
      `/gosync.v1.SyncService/${name}`,
      (m: Msg) => encode(`gosync.v1.${name}Request`, m),
      (data: Buffer) => decode(`gosync.v1.${name}Response`, data),
      request,
      this.metadata(),
    );
    const end = (fail: Fail | null) => {
      if (!over) queue.push({ fail });
      over = true;
      this.open.delete(call);
    };
    this.open.add(call);
    call.on("data", (message: Msg) => over || queue.push({ message }));
    call.on("error", (error: grpc.ServiceError) => end(fromError(error)));
    call.on("end", () => setImmediate(() => end(null))); // an error comes after the end of the data
    return () => {
      over = true;
      call.cancel();
      this.open.delete(call);
    };
  }
}
