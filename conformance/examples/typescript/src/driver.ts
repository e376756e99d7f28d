/** Lets the conformance suite drive the replica (driver.proto): framed requests on stdin, answers on stdout. */
import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Replica, WriteRefused } from './replica.js';
import { fromKey, toKey } from './rules.js';
import { Failure, type Message } from './wire.js';

const proto = fileURLToPath(new URL('../../../proto', import.meta.url));
const definition = loadSync('gosync/conformance/v1/driver.proto', {
  includeDirs: [proto], keepCase: true, longs: String, enums: String, defaults: true, oneofs: true,
});
const type = (name: string) => definition[`gosync.conformance.v1.${name}`] as MessageTypeDefinition<Message, Message>;

/** A replica, and its live synchronisation: whether it is wanted, what ends it, and why it ended by itself. */
interface Played {
  replica: Replica; online: boolean; wanted: boolean; stop: AbortController; run?: Promise<void>; failure?: unknown;
}
const replicas = new Map<string, Played>();
let clock = Date.now;
const done = { done: {} };
const KINDS: Record<string, string> = {
  authenticate: 'KIND_NEEDS_AUTH', 'no-access': 'KIND_NEEDS_AUTH', upgrade: 'KIND_STOPPED', stop: 'KIND_STOPPED',
};

/** Lets what is wanted go on, unless the network is off. */
function follow(played: Played): void {
  played.stop.abort();
  played.stop = new AbortController();
  const { replica, stop: { signal } } = played;
  const failed = (error: unknown) => {
    if (!signal.aborted) played.failure = error;
  };
  const before = Promise.resolve(played.run);
  if (played.online && played.wanted) played.run = before.then(() => replica.sync(signal, true)).catch(failed);
}

/** Live, and nothing waits to be sent. */
const idle = ({ live, store }: Replica) => live && ![...store.data.outbox.values()].some((w) => !w.rejected)
  && ![...store.data.clean.values()].some((r) => r.offer);

async function handle(command: string, c: Message): Promise<Message> {
  if (command === 'hello') return c.mutant ? { unsupported: {} } : { info };
  if (command === 'set_clock') {
    const ahead = Number(c.unix_ms) - Date.now();
    clock = c.unix_ms === '0' ? Date.now : () => Date.now() + ahead;
    return done;
  }
  if (command === 'open') {
    if (c.key_prefixes.length > 0 || c.transport !== 'TRANSPORT_GRPC') return { unsupported: {} };
    const replica = new Replica({
      file: path.join(c.store ? '.' : fs.mkdtempSync(path.join(os.tmpdir(), 'gosync-')), `${c.store}.journal`),
      url: c.url,
      space: c.space,
      token: () => c.tokens.shift(),
      now: () => clock(),
      report: (what) => console.error(`${c.replica}: ${what}`),
    });
    replicas.set(c.replica, { replica, online: true, wanted: false, stop: new AbortController() });
    return done;
  }
  const played = replicas.get(c.replica);
  if (!played) throw new Error(`no replica ${c.replica}`);
  const { replica } = played;
  switch (command) {
    case 'put': replica.write({ key: toKey(c.key), value: c.value }); return done;
    case 'put_batch':
      replica.write(...c.entries.map((e: Message) => ({ key: toKey(e.key), value: e.value })));
      return done;
    case 'delete': replica.write({ key: toKey(c.key) }); return done;
    case 'discard': replica.discard(toKey(c.key)); return done;
    case 'retry': replica.retry(toKey(c.key)); return done;
    case 'sync':
      if (!played.online) throw new Failure('retry', '', 'offline');
      await replica.sync(AbortSignal.timeout(c.timeout_ms));
      return done;
    case 'watch':
      played.wanted = true;
      follow(played);
      return done;
    case 'await_idle':
      for (const until = Date.now() + c.timeout_ms; !idle(replica); await sleep(20)) {
        if (played.failure) throw played.failure;
        if (Date.now() > until) throw new Failure('retry', '', 'not idle in time');
      }
      return done;
    case 'read_all': {
      const entries = replica.entries().map(({ key, value, time, replica: writer }) => (
        { key: fromKey(key), value, time: String(time), writer: String(writer) }));
      const pending = replica.pending().map(({ key, tombstone, rejected = '', inDoubt = false }) => (
        { key: fromKey(key), tombstone, rejected, in_doubt: inDoubt }));
      const { quarantine } = replica.store.data;
      return { contents: { entries, pending, quarantined: quarantine.size, verified: replica.verified } };
    }
    case 'set_online':
      played.online = c.online;
      follow(played);
      return done;
    case 'damage': {
      const r = replica.store.data.clean.get(toKey(c.key));
      if (!r) throw new Error('no such record');
      replica.store.tx(() => (r.value = Buffer.concat([r.value, r.digest])));
      return done;
    }
    case 'close':
      played.stop.abort();
      await played.run;
      replica.close();
      replicas.delete(c.replica);
      return done;
    default: return { unsupported: {} };
  }
}

const info = {
  name: 'gosync-example-typescript',
  version: '1.0',
  capabilities: [
    'DURABLE_STORE', 'CLOCK', 'ONLINE', 'LIVE', 'RECONCILE', 'DAMAGE', 'TOKEN_REFRESH', 'DISCARD', 'RETRY', 'BATCHES',
  ].map((name) => `CAPABILITY_${name}`),
  transports: ['TRANSPORT_GRPC'],
  profiles: ['core', 'heal', 'live', 'hardened'],
};

async function answer(frame: Buffer): Promise<void> {
  const request = type('DriverRequest').deserialize(frame);
  let result: Message;
  try {
    result = request.command ? await handle(request.command, request[request.command]) : { unsupported: {} };
  } catch (error) {
    const { message: detail, stack } = error as Error;
    if (error instanceof Failure) {
      result = { sync_error: { kind: KINDS[error.action] ?? 'KIND_RETRYABLE', reason: error.reason, detail } };
    } else if (error instanceof WriteRefused) {
      result = { write_error: { reason: error.reason, detail } };
    } else result = { fault: { detail: stack } };
  }
  const body = type('DriverResponse').serialize({ id: request.id, ...result }), head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  process.stdout.write(Buffer.concat([head, body]));
}

let input = Buffer.alloc(0);
for await (const chunk of process.stdin) {
  input = Buffer.concat([input, chunk]);
  while (input.length >= 4 && input.length >= 4 + input.readUInt32BE()) {
    const end = 4 + input.readUInt32BE();
    await answer(input.subarray(4, end));
    input = input.subarray(end);
  }
}
process.exit(0);
