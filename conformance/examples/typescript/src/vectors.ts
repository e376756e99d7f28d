/** Checks the rules against the vectors of the specification: node dist/vectors.js [FOLDER]. */
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ask, read, varint, varints } from './reconcile.js';
import { byKey, compare, counts, digest, fingerprint, fromKey, inside, issue, latest, toKey } from './rules.js';
import type { Rec } from './rules.js';
import { definition } from './wire.js';

const folder = process.argv[2] ?? fileURLToPath(new URL('../../../../spec/vectors', import.meta.url));
const cases = (kind: string): any[] => JSON.parse(fs.readFileSync(`${folder}/${kind}.json`, 'utf8')).cases;
const hex = (text: string) => Buffer.from(text, 'hex');
let done = 0, wrong = 0;

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
for (const c of cases('messages')) expect('messages', c, () => {
  const type = definition[c.type], message = type.deserialize(hex(c.hex));
  return JSON.stringify(type.deserialize(type.serialize(message))) === JSON.stringify(message);
});
// Sessions of a replica that lists all that it has: that its requests are what this client sends, and the answers as it
// reads them. Of the cases that are not valid, those that a replica can see: requests are what servers refuse.
const lists = ({ request }: any) => /^(04)?[0-7][26ae]$/.test(request.parts); // one part to the end, with 0 to 31 items
const visible = ['answer_malformed', 'records_unsorted', 'no_progress'];
const seen = cases('descent').filter((c) => c.exchanges.every(lists) && (c.valid || visible.includes(c.failure)));
for (const c of seen) expect('descent', c, () => {
  const covered = records(c.replica).filter((r) => counts(r, BigInt(c.horizon)));
  const came: string[] = [], lacks: string[] = [];
  let start = '';
  for (const { request, answer } of c.exchanges) {
    const items = covered.filter((r) => r.key >= start), { parts, bounds, digests } = ask({ start }, items);
    const same = parts.equals(hex(request.parts)) && bounds.equals(hex(request.bounds));
    if (!same || (c.digest_len === 32 && !digests.equals(hex(request.digests)))) return false; // it sends no short ones
    const filled = Object.entries(answer).filter(([name, column]) => name !== 'records' && column !== null);
    const columns = Object.fromEntries(filled.map(([name, column]) => [name, hex(column as string)]));
    const sent = answer.records.map(record), found = read({ start }, items, columns, sent);
    came.push(...answer.records.map((r: any) => r.key));
    lacks.push(...[...found.lacks].map((key) => fromKey(key).toString('hex')));
    start = found.end ?? '';
  }
  return !c.valid || (`${came}` === `${c.receives}` && `${lacks}` === `${c.lacks}`);
});

for (const n of [0, 127, 128, 300, 2 ** 32 - 1]) {
  expect('varint', { name: n, valid: true }, () => varints(varint(n))[0] === n);
}
console.log(`${done} cases, ${wrong} wrong`);
process.exitCode = wrong > 0 ? 1 : 0;
