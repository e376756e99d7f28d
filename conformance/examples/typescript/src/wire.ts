/** Calls over gRPC (chapter 11), and what to do when one fails (chapter 12). */
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { addAbortSignal } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const folder = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
export const definition: Record<string, any> = loadSync(['gosync/v1/sync.proto', 'status.proto'], {
  includeDirs: [folder('../../../../proto'), folder('../src')],
  // 64-bit numbers are decimal texts, enums names, absent messages null; a oneof's name tells which arm is there.
  keepCase: true, longs: String, enums: String, defaults: true, oneofs: true,
});
const service = definition['gosync.v1.SyncService'];

/** A message, as the .proto describes it. */
export type Message = Record<string, any>;
/** A value of the enum Reason without its prefix; '' for none and for one that is not known. */
export const reasonOf = (value: unknown) => String(value).replace(/^REASON_(UNSPECIFIED)?|^\d+$/, '');
export type Action = 'retry' | 'resync' | 'authenticate' | 'no-access' | 'upgrade' | 'stop';

/** What is not only tried again: reasons (section 12.2), and statuses of proxies or libraries (section 12.4). */
const ACTIONS: Record<string, Action> = {
  UNSUPPORTED_VERSION: 'upgrade', UNIMPLEMENTED: 'upgrade', UNAUTHENTICATED: 'authenticate',
  TOKEN_EXPIRED: 'authenticate', NO_ACCESS: 'no-access', PERMISSION_DENIED: 'no-access', SPACE_RETIRED: 'stop',
  BEHIND_COMPACTION: 'resync', HISTORY_CHANGED: 'resync', HORIZON_CHANGED: 'resync',
};
const REASONS: string[] = definition['gosync.v1.Reason'].type.value.map((value: Message) => reasonOf(value.name));

/** A call failed, or the history changed; and what is to be done. */
export class Failure extends Error {
  constructor(readonly action: Action, readonly reason: string, detail: string) { super(detail); }
}
export class Wire {
  readonly signal: AbortSignal; // cuts all calls
  private readonly end = new AbortController();
  private readonly client: grpc.Client;
  private readonly metadata = new grpc.Metadata();

  /** `pause`: until when the server does not want to be called; it outlives a session. */
  constructor(url: string, token: string | undefined, signal: AbortSignal, private readonly pause: { until: number }) {
    this.signal = AbortSignal.any([signal, this.end.signal]);
    const { protocol, host, hostname } = new URL(url), tls = protocol === 'https:';
    const loopback = /^(localhost|127\.[\d.]+|\[::1\])$/.test(hostname);
    if (token && !tls && !loopback) throw new Failure('no-access', '', 'no token without TLS'); // TRANS-007
    if (token) this.metadata.set('authorization', `Bearer ${token}`); // TRANS-008
    this.client = new grpc.Client(host, tls ? grpc.credentials.createSsl() : grpc.credentials.createInsecure(), {
      'grpc.max_receive_message_length': 64 << 20, // LIMIT-011
      'grpc.use_local_subchannel_pool': 1, // each session connects anew
    });
  }

  /** Whether Hello chose a version, which all later calls name (HELLO-006). */
  get agreed() { return this.metadata.get('gosync-version').length > 0; }
  agree = (version: number) => this.metadata.set('gosync-version', String(version));

  close(): void {
    this.end.abort();
    this.client.close();
  }

  /**
   * On the wire a unary call is a stream of one message, and an answer only when the status came (TRANS-005). It is given
   * up after 11 seconds (LIMIT-013).
   */
  async unary(method: string, request: Message): Promise<Message> {
    const answers: Message[] = [];
    for await (const answer of this.call(method, request, 11_000)) answers.push(answer);
    if (answers.length !== 1) throw new Failure('retry', '', 'a call without an answer');
    return answers[0];
  }

  /** The events of a stream, up to a StreamEnd without a reason. A silence ends it (WATCH-031). */
  async *stream(method: string, request: Message, silenceMs: number): AsyncGenerator<Message> {
    for await (const message of this.call(method, request, silenceMs)) {
      if (message.event === 'end') return this.ended(message.end);
      if (message.event) yield message; // else an arm that is not known
    }
    throw new Failure('retry', '', 'the stream broke off'); // WATCH-038
  }

  /** The messages of a call. It has no deadline (TRANS-028). */
  private async *call(method: string, request: Message, silenceMs: number): AsyncGenerator<Message> {
    const wait = Math.min(this.pause.until - Date.now(), 2 ** 31 - 1);
    if (wait > 0) await sleep(wait, undefined, { signal: this.signal }); // CLIENT-034
    this.signal.throwIfAborted();
    const { path, requestSerialize: encode, responseDeserialize } = service[method];
    const call = this.client.makeServerStreamRequest(path, encode, responseDeserialize, request, this.metadata);
    const watchdog = setTimeout(() => call.cancel(), silenceMs);
    addAbortSignal(this.signal, call);
    call.on('error', () => {}); // the loop throws it
    try {
      for await (const message of call) {
        watchdog.refresh();
        yield message as Message;
      }
    } catch (error) {
      throw this.failure(error as grpc.ServiceError);
    } finally {
      clearTimeout(watchdog);
      call.cancel();
    }
  }

  /** Throws what a StreamEnd says, unless the stream is complete (section 6.5). */
  private ended({ reason, detail, retry_after_ms }: Message): void {
    this.hold(Number(retry_after_ms)); // WATCH-040
    const name = reasonOf(reason), action = name === 'NO_ACCESS' ? 'resync' : ACTIONS[name] ?? 'retry'; // WATCH-039
    if (reason !== 'REASON_UNSPECIFIED') throw new Failure(action, name, detail);
  }

  private hold(ms: number): void {
    this.pause.until = Math.max(this.pause.until, Date.now() + ms);
  }

  /** Decides by the reason or, where none is known, by the status alone (ERR-011). */
  private failure(error: grpc.ServiceError): Failure {
    let reason = '';
    try {
      const [bytes] = error.metadata.get('grpc-status-details-bin');
      for (const { type_url, value } of bytes ? definition['google.rpc.Status'].deserialize(bytes).details : []) {
        const [type] = type_url.match(/google\.rpc\.(ErrorInfo|RetryInfo)$/) ?? [];
        const detail = type ? definition[type].deserialize(value) : {}; // ERR-010
        if (detail.domain === 'gosync' && REASONS.includes(detail.reason)) reason = detail.reason;
        if (detail.retry_delay) this.hold(Number(detail.retry_delay.seconds) * 1000 + detail.retry_delay.nanos / 1e6);
      }
    } catch { /* details that cannot be decoded say nothing */ }
    const action = ACTIONS[reason || grpc.status[error.code]] ?? 'retry';
    return new Failure(action, reason, error.details ?? error.message);
  }
}
