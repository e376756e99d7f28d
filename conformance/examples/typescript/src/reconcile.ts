/**
 * Reconcile (chapter 7) at its simplest: the replica lists its records, some at a time, and asks for no fingerprint. So
 * nothing is ever split, and no digest is short: more bytes, fewer rules.
 */
import { randomBytes } from 'node:crypto';
import protobuf from 'protobufjs/minimal.js';
import { findings, gather, ranges, type Findings } from './heal.js';
import { check, fromKey, inside, sequence, toKey, type Key, type Range, type Rec } from './rules.js';
import { CHUNK, historyChanged, type Session } from './session.js';
import type { Message } from './wire.js';

const ITEMS = 500; // of a request: within the floors of max_reconcile_entries and max_message_bytes

/** One session; nothing where it is better given up for a Snapshot (section 7.10). */
export async function reconcile(s: Session): Promise<Findings | undefined> {
  const { here, store } = s, found = findings(here);
  const salt = String(randomBytes(8).readBigUInt64BE()); // RECON-004
  let open: Range | undefined = { start: '' }, idle = 0;
  for (let round = 0; open; round++) {
    if (round === 1000 || idle === 64) return undefined; // LIMIT-012, RECON-036
    const { start } = open, mine = store.covered().filter((r) => r.key >= start);
    const part = { start, end: mine[ITEMS]?.key }, items = mine.slice(0, ITEMS);
    const answer = await s.wire.unary('Reconcile', {
      ...s.place(), ...ask(part, items), digest_len: 32, salt, horizon: String(here.horizon), max_response_bytes: CHUNK,
    });
    const now = s.standing(answer), records = answer.records.map((m: Message) => s.receive(m));
    if (s.differs(now, here)) throw historyChanged(); // RECON-034
    check(sequence(now.head) >= here.mapped, 'a server that lags'); // RECON-035
    const { end, lacks } = read(part, items, answer, records);
    gather(s, found, records, now.head);
    for (const key of lacks) found.lacks.add(key);
    found.wanted.push(...ranges(answer.wanted));
    if (round === 0 || sequence(now.head) < sequence(found.at.head)) found.at = now; // RECON-041
    idle = end === part.end || records.length > 0 ? 0 : idle + 1;
    open = end === undefined ? undefined : { start: end };
  }
  return found;
}

/** The columns of a request: nothing is said of what lies before and behind the part, and in it all is listed. */
export function ask({ start, end }: Range, items: Rec[]) {
  const bounds = [bound('', start), bound(start, end)];
  const [before, behind] = bounds.map((b) => (b.length > 0 ? varint(4) : b));
  return {
    parts: Buffer.concat([before, varint(items.length * 4 + 2), behind]),
    bounds: Buffer.concat(bounds),
    digests: Buffer.concat(items.map((r) => r.digest)),
  };
}

export const varint = (n: number) => Buffer.from(protobuf.Writer.create().uint32(n).finish());

/** A bound: how much of the lower one it drops, which is all, and what it adds (section 7.2). None where none is. */
function bound(lower: Key, upper?: Key): Buffer {
  if (!upper) return Buffer.of();
  const lengths = [lower.length, upper.length], [drop, add] = lengths.map((n) => Math.min(n, 15));
  const more = lengths.filter((n) => n >= 15).map((n) => varint(n - 15));
  return Buffer.concat([Buffer.of(drop * 16 + add), ...more, fromKey(upper)]);
}

/** Up to where the part is resolved, and which keys the server lacks there. Refuses what RECON-029 names. */
export function read(part: Range, items: Rec[], answer: Message, records: Rec[]): { end?: Key; lacks: Set<Key> } {
  const { parts, bounds, digests, resume_at } = answer, resume = resume_at ? toKey(resume_at) : undefined;
  check(parts.equals(varint(4 + 2)) && bounds.length + digests.length === 0, 'what is listed is resolved'); // RECON-018
  check(resume === undefined || resume > part.start, 'nothing was processed'); // RECON-027
  const end = resume !== undefined && inside(resume, part) ? resume : part.end, done = { start: part.start, end };
  const lacks = new Set<Key>();
  let at = 0;
  varints(answer.lacking).forEach((n, turn) => { // items that the server has and lacks, in turns (RECON-020)
    check(n <= items.length - at && (n > 0 || turn === 0), 'not the items that were listed');
    const run = items.slice(at, at + n).filter((r) => inside(r.key, done));
    if (turn % 2 === 1) for (const { key } of run) lacks.add(key);
    at += n;
  });
  records.forEach(({ key }, i) => {
    check(inside(key, done) && (i === 0 || key > records[i - 1].key), 'a record out of order, or not asked for');
    lacks.delete(key); // merging decides (RECON-033)
  });
  return { end, lacks };
}

/** The numbers of a column, each in its shortest form (RECON-002). */
export function varints(column: Buffer): number[] {
  const reader = protobuf.Reader.create(column), numbers: number[] = [];
  while (reader.pos < reader.len) numbers.push(reader.uint32());
  check(Buffer.concat(numbers.map(varint)).equals(column), 'a varint too large, or not in shortest form');
  return numbers;
}
