/** Checks the rules against the vectors of the specification: node dist/vectors.js [FOLDER]. */
import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { bound, decodeAnswer, Reader, varint, type Asked } from './columns.js';
import { byKey, compare, counts, digest, fingerprint, inside, issue, latest, sha256, toKey } from './rules.js';
import type { Key, Rec } from './rules.js';

const folder = process.argv[2] ?? fileURLToPath(new URL('../../../../spec/vectors', import.meta.url));
const proto = fileURLToPath(new URL('../../../../proto', import.meta.url));
const cases = (kind: string): any[] => JSON.parse(fs.readFileSync(`${folder}/${kind}.json`, 'utf8')).cases;
const hex = (text: string) => Buffer.from(text, 'hex');
let done = 0, wrong = 0, roundTrip = true;

/** A case that is valid must hold; one that is not must not, or throw. */
function expect(kind: string, c: { name: unknown; valid: boolean }, compute: () => boolean): void {
  let holds = false, why = '';
  try {
    holds = compute();
  } catch (error) {
    why = (error as Error).message;
  }
  done++;
  if (holds === c.valid) return;
  wrong++;
  console.log(`${kind}: ${c.name}: ${holds} ${why}`);
}

function record({ key, time, replica, flags, value }: any): Rec {
  const bytes = hex(value), legal = key !== '' && key.length <= 1024 && flags <= 1 && !(flags && bytes.length);
  if (!legal) throw new Error('no legal record');
  const version = { time: BigInt(time), replica: BigInt(replica) };
  const r = { key: toKey(hex(key)), ...version, tombstone: flags === 1, value: bytes };
  return { ...r, digest: digest(r) };
}
const records = (list: any[]) => list.map(record).sort(byKey);
const order = (n: number, names: string[]) => names[Math.sign(n) + 1];

for (const c of cases('digest')) expect('digest', c, () => record(c.record).digest.equals(hex(c.digest ?? '')));
for (const c of cases('merge')) {
  expect('merge', c, () => order(compare(record(c.a), record(c.b)), ['b', 'same', 'a']) === c.winner);
}
for (const c of cases('order')) expect('order', c, () => {
  const [a, b] = [c.a, c.b].map((version) => record({ key: '61', flags: 0, value: '', ...version }));
  return order(compare(a, b), ['less', 'equal', 'greater']) === c.order;
});
for (const c of cases('clock')) expect('clock', c, () => {
  if (c.skew_ms) return BigInt(c.time) <= latest(Number(c.now_ms), Number(c.skew_ms));
  const time = issue(Number(c.now_ms), BigInt(c.floor), c.replaces === null ? undefined : BigInt(c.replaces));
  return time !== undefined && time === BigInt(c.time);
});
for (const c of cases('clock_update')) expect('clock_update', c, () => {
  if (!c.steps) {
    const other = c.stored_ms ? Number(c.stored_ms) : Number(c.told_ms) + Number(c.passed_ms);
    return BigInt(c.time) <= latest(Math.max(Number(c.wall_ms), other), Number(c.skew_ms));
  }
  let floor = BigInt(c.floor), ok = true;
  const shown = new Map<string, bigint>(), clean = new Map<string, bigint>();
  for (const s of c.steps) {
    if (s.event === 'write') {
      const time = issue(Number(s.now_ms), floor, shown.get(s.key));
      ok &&= time === (s.time === null ? undefined : BigInt(s.time));
      floor = time ?? floor;
      if (time !== undefined) shown.set(s.key, time);
    } else if (s.event === 'receive') {
      clean.set(s.key, BigInt(s.time));
      if (BigInt(s.time) > (shown.get(s.key) ?? -1n)) shown.set(s.key, BigInt(s.time));
    } else if (s.event === 'restamp') {
      const before = new Map(clean);
      if (floor > latest(Number(s.server_ms), 0)) floor = BigInt(s.server_ms) << 16n;
      s.keys.forEach((key: string, i: number) => {
        const time = issue(Number(s.server_ms), floor, before.get(key))!;
        ok &&= time === BigInt(s.times[i]);
        floor = time;
        for (const times of [before, shown]) times.set(key, time);
      });
    }
  }
  return ok && floor === BigInt(c.floor_after);
});
for (const kind of ['fingerprint', 'range']) for (const c of cases(kind)) expect(kind, c, () => {
  const range = { start: toKey(hex(c.start ?? '')), end: c.end ? toKey(hex(c.end)) : undefined };
  const set = records(c.records).filter((r) => counts(r, BigInt(c.horizon)) && inside(r.key, range));
  return set.length === c.count && fingerprint(set).equals(hex(c.fingerprint));
});
for (const c of cases('collisions')) expect('collisions', c, () => {
  const of = (keys: string[]) => keys.map((key) => ({ key, time: '65536', replica: '1', flags: 0, value: '' }));
  const [a, b] = [c.a, c.b].map((keys) => fingerprint(records(of(keys))).toString('hex'));
  return a === c.fingerprint_a && b === c.fingerprint_b && a !== b;
});
const options = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true, includeDirs: [proto] };
const definition = loadSync('gosync/v1/sync.proto', options);
for (const c of cases('messages')) expect('messages', c, () => {
  const type = definition[c.type] as MessageTypeDefinition<object, object>, message = type.deserialize(hex(c.hex));
  return JSON.stringify(type.deserialize(type.serialize(message))) === JSON.stringify(message);
});
// Sessions: that requests are what this client would tell of the same parts, and answers as it reads them. Of the cases
// that are not valid, those that a replica can see: requests are what servers refuse.
const visible = ['answer_malformed', 'records_unsorted', 'no_progress', 'resume_inside'];
const seen = cases('descent').filter((c) => c.valid || visible.includes(c.failure));
for (const c of seen) expect('descent', c, () => {
  const mine = new Map(records(c.replica).map((r) => [r.key, r])), came = new Set<Key>();
  const short = shorts(BigInt(c.salt), c.digest_len);
  for (const { request, answer } of c.exchanges) {
    const covered = [...mine.values()].sort(byKey).filter((r) => counts(r, BigInt(c.horizon)));
    const digests = new Reader(hex(request.digests)), asked = parts(hex(request.parts), hex(request.bounds));
    for (const part of asked) {
      const here = covered.filter((r) => inside(r.key, part));
      if (part.items) part.items = here;
      const told = part.items ? here.map((r) => r.digest) : [fingerprint(here)];
      if (!told.every((d) => digests.take(c.digest_len).equals(short(d)))) return false;
    }
    const resume_at = answer.resume_at === null ? undefined : hex(answer.resume_at);
    const sent: Rec[] = answer.records.map(record);
    const [a, b, d, l] = [answer.parts, answer.bounds, answer.digests, answer.lacking].map(hex);
    decodeAnswer(asked, { parts: a, bounds: b, digests: d, lacking: l, resume_at }, sent, c.digest_len);
    for (const r of sent) {
      came.add(r.key);
      if (!mine.has(r.key) || compare(r, mine.get(r.key)!) > 0) mine.set(r.key, r);
    }
  }
  const receives = (c.receives ?? []).map((key: string) => toKey(hex(key)));
  return !c.valid || (came.size === receives.length && receives.every((key: Key) => came.has(key)));
});

/** Shorts of any length (section 7.2); the client itself uses full length only. */
function shorts(salt: bigint, length: number): (d: Buffer) => Buffer {
  const stem = Buffer.alloc(24, 'gosync.v1.shorts'), bytes = Buffer.alloc(16);
  stem.writeBigUInt64BE(salt, 16);
  const stream = Buffer.concat([0, 1, 2].map((i) => sha256(stem, Buffer.of(i))));
  const wide = (at: number) => (stream.readBigUInt64BE(at) << 64n) | stream.readBigUInt64BE(at + 8);
  return (d) => {
    if (length === 32) return d;
    const sum = [0, 1, 2, 3].reduce((h, i) => h + wide(16 * i + 16) * d.readBigUInt64BE(8 * i), wide(0));
    bytes.writeBigUInt64BE(BigInt.asUintN(64, sum >> 64n));
    return Buffer.from(bytes.subarray(0, length));
  };
}

/** The parts that a request asks about, with empty items where it lists them. */
function parts(column: Buffer, bounds: Buffer): Asked[] {
  const runs = new Reader(column), upper = new Reader(bounds), asked: Asked[] = [];
  let start: Key | undefined = '';
  while (!runs.done) {
    const run = runs.varint(), kind = run % 4, n = kind === 2 ? 1 : Math.floor(run / 4);
    for (let i = 0; i < n; i++) {
      const end: Key | undefined = upper.done ? undefined : upper.bound(start!);
      if (end !== undefined) roundTrip &&= new Reader(bound(start!, end)).bound(start!) === end;
      if (kind > 0) asked.push({ start: start!, end, items: kind === 2 ? [] : undefined });
      start = end;
    }
  }
  return asked;
}

for (const n of [0, 127, 128, 300, 2 ** 40]) {
  expect('varint', { name: n, valid: true }, () => new Reader(Buffer.from(varint(n))).varint() === n);
}
expect('bound', { name: 'all of the above, written and read', valid: true }, () => roundTrip);
console.log(`${done} cases, ${wrong} wrong`);
process.exitCode = wrong > 0 ? 1 : 0;
