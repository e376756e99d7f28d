// Puts the client behind the conformance suite's driver protocol (driver.proto): length-prefixed on stdin and stdout.
import path from "node:path";
import { decode, encode, enumValues, Msg } from "./codec.js";
import { Fail } from "./net.js";
import { Replica, WriteRefused } from "./replica.js";
import { Clock } from "./standing.js";
import { Store } from "./store.js";

const P = "gosync.conformance.v1";
const capability = enumValues(`${P}.Capability`),
  kind = enumValues(`${P}.SyncError.Kind`);
const KINDS: Record<string, number> = {
  authenticate: kind.KIND_NEEDS_AUTH,
  stop: kind.KIND_STOPPED,
  upgrade: kind.KIND_STOPPED,
};
const clock = new Clock();
const replicas = new Map<string, Replica>();
const replica = (m: Msg): Replica => {
  const found = replicas.get(m.replica);
  if (!found) throw new Error("no such opening");
  return found;
};

const commands: Record<string, (m: Msg) => Promise<Msg | void> | Msg | void> = {
  hello(m) {
    if (m.mutant) throw new Error("this driver has no mutants");
    const can = [
      "DURABLE_STORE",
      "CLOCK",
      "ONLINE",
      "LIVE",
      "RECONCILE",
      "DAMAGE",
      "TOKEN_REFRESH",
      "RANGES",
      "DISCARD",
    ];
    const capabilities = can.map((name) => capability[`CAPABILITY_${name}`]);
    return {
      info: {
        name: "gosync-example-typescript",
        version: "1",
        capabilities,
        transports: [1],
        profiles: ["core", "heal", "live", "hardened"],
      },
    };
  },
  open(m) {
    const store = new Store(m.store ? path.resolve(`${m.store}.journal`) : null);
    replicas.set(
      m.replica,
      new Replica(store, { url: m.url, space: m.space, tokens: m.tokens, clock }, m.key_prefixes),
    );
  },
  put: (m) => replica(m).write(m.key, m.value),
  delete: (m) => replica(m).write(m.key, null),
  sync: (m) => replica(m).sync(m.timeout_ms),
  watch: (m) => replica(m).watch(),
  await_idle: (m) => replica(m).awaitIdle(m.timeout_ms),
  read_all(m) {
    const { store, verified } = replica(m);
    const entries = replica(m)
      .readAll()
      .map((r) => ({ key: r.key, value: r.value, time: r.time, writer: r.replica }));
    const pending = store.writes().map((w) => ({
      key: w.rec.key,
      tombstone: w.rec.tombstone,
      rejected: w.rejected,
      in_doubt: w.doubt,
    }));
    return {
      contents: { entries, pending, quarantined: store.aside().length, verified: verified && !store.damaged().length },
    };
  },
  set_clock: (m) => clock.set(Number(m.unix_ms)),
  set_online: (m) => replica(m).setOnline(m.online),
  async close(m) {
    await replica(m).close();
    replicas.delete(m.replica);
  },
  damage(m) {
    if (!replica(m).store.damage(m.key)) throw new Error("no clean record under this key");
  },
  discard(m) {
    if (!replica(m).discard(m.key)) throw new Error("no pending write under this key");
  },
};

async function answer(request: Msg): Promise<Msg> {
  const name = Object.keys(commands).find((command) => request[command] !== undefined);
  if (!name) return { unsupported: {} };
  try {
    return (await commands[name](request[name])) ?? { done: {} };
  } catch (error) {
    if (error instanceof WriteRefused) return { write_error: { reason: error.reason, detail: error.message } };
    if (error instanceof Fail)
      return {
        sync_error: { kind: KINDS[error.action] ?? kind.KIND_RETRYABLE, reason: error.reason, detail: error.message },
      };
    return { fault: { detail: String(error) } };
  }
}

let buffered: Buffer = Buffer.alloc(0);
for await (const piece of process.stdin) {
  buffered = Buffer.concat([buffered, piece]);
  while (buffered.length >= 4 && buffered.length >= 4 + buffered.readUInt32BE(0)) {
    const end = 4 + buffered.readUInt32BE(0);
    const request = decode(`${P}.DriverRequest`, buffered.subarray(4, end));
    buffered = buffered.subarray(end);
    const body = encode(`${P}.DriverResponse`, { id: request.id, ...(await answer(request)) });
    const head = Buffer.alloc(4);
    head.writeUInt32BE(body.length);
    process.stdout.write(Buffer.concat([head, body]));
  }
}
process.exit(0);
