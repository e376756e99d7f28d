/** The rules that all implementations compute alike (chapters 1 to 3), as pure functions. */
import { createHash } from 'node:crypto';

/** A key or bound, a character for each byte: `<` orders such strings as memcmp orders the bytes (MODEL-006). */
export type Key = string;
export const toKey = (bytes: Buffer): Key => bytes.toString('latin1');
export const fromKey = (key: Key): Buffer => Buffer.from(key, 'latin1');
export interface Range { start: Key; end?: Key }
export const inside = (key: Key, r: Range) => key >= r.start && (r.end === undefined || key < r.end);
export const byKey = (a: { key: Key }, b: { key: Key }) => (a.key < b.key ? -1 : 1);

/** A record, with the digest that was computed when it was made or came (MODEL-021). */
export interface Rec { key: Key; time: bigint; replica: bigint; tombstone: boolean; value: Buffer; digest: Buffer }
/** A place in a server's history; a cursor is the end of a commit. 64-bit numbers are decimal, as in messages. */
export interface Point { epoch: string; sequence: string }
export interface Cursor extends Point { tag: string }
export const sequence = (point: Point) => BigInt(point.sequence);
export const LINEAGES = ['LINEAGE_SAME', 'LINEAGE_REWOUND']; // any other is as good as unknown
/** What an answer says of the server's history, and of the replica's place in it (chapter 2). */
export interface Standing {
  head: Cursor; horizon: bigint; restorePoints: Point[]; lineage: string; mapped: bigint; behind: boolean;
}

/** Throws when the server broke a requirement: the call counts as failed (ERR-013). */
export function check(holds: unknown, otherwise: string): asserts holds {
  if (!holds) throw new Error(otherwise);
}

export function sha256(...parts: Buffer[]): Buffer {
  return parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();
}
const ZEROS: Buffer = Buffer.alloc(32);
const valueHash = (r: Omit<Rec, 'digest'>) => (r.tombstone ? ZEROS : sha256(r.value));

/** MODEL-020. */
export function digest(r: Omit<Rec, 'digest'>): Buffer {
  const head = Buffer.alloc(40, 'gosync.v1.record', 'latin1');
  head.writeUInt32BE(r.tombstone ? 1 : 0, 16);
  head.writeBigUInt64BE(r.time, 20);
  head.writeBigUInt64BE(r.replica, 28);
  head.writeUInt32BE(r.key.length, 36);
  return sha256(head, fromKey(r.key), valueHash(r));
}

/** Whether the content is still what it was (section 1.7). */
export const intact = (r: Rec) => digest(r).equals(r.digest);

/** The order of records under one key: merging keeps the greater (MODEL-018). */
export function compare(a: Rec, b: Rec): number {
  const order = (x: bigint | boolean, y: bigint | boolean) => (x < y ? -1 : x > y ? 1 : 0);
  return order(a.time, b.time) || order(a.replica, b.replica) || order(a.tombstone, b.tombstone)
    || Buffer.compare(valueHash(a), valueHash(b));
}

/** The time of a write; undefined when none is left (CLOCK-002, CLOCK-004). */
export function issue(wallMs: number, floor: bigint, replaced = -1n): bigint | undefined {
  const wall = BigInt(Math.min(Math.max(Math.floor(wallMs), 0), 2 ** 48 - 1)) << 16n;
  const above = (floor > replaced ? floor : replaced) + 1n, time = wall > above ? wall : above;
  return time < 2n ** 64n ? time : undefined;
}

/** The greatest time that a version may have, where the clock reads so (CLOCK-011). */
export const latest = (clockMs: number, skewMs: number) => (BigInt(Math.floor(clockMs + skewMs)) << 16n) | 65535n;

/** Whether a point lies in the present history: it is not beyond kept(E) (section 2.2, HIST-014). */
export function present(point: Point, s: Standing): boolean {
  if (!LINEAGES.includes(s.lineage)) return false;
  const from = s.restorePoints.findIndex((p) => p.epoch === point.epoch);
  const kept = (p: Point) => sequence(point) <= sequence(p);
  return point.epoch === s.head.epoch || (from >= 0 && s.restorePoints.slice(from).every(kept));
}

/** Tombstones below the horizon count nowhere (HIST-029). */
export const counts = (r: Rec, horizon: bigint) => !r.tombstone || r.time >= horizon;

export function commonPrefix(a: Key, b: Key): number {
  let i = 0;
  while (i < a.length && a[i] === b[i]) i++;
  return i;
}

/** The fingerprint of records in key order, by one pass over critical bits (MERKLE-001, section 3.3). */
export function fingerprint(records: Rec[]): Buffer {
  const stack: { bit: number; left: Buffer }[] = [];
  const fold = (bit: number, right: Buffer): Buffer => stack.length === 0 || stack.at(-1)!.bit <= bit ? right
    : fold(bit, sha256(Buffer.from('gosync.v1.branch'), stack.pop()!.left, right));
  let current = records[0]?.digest ?? ZEROS;
  for (let i = 1; i < records.length; i++) {
    const a = records[i - 1].key, b = records[i].key, n = commonPrefix(a, b);
    const bit = 9 * n + (n < a.length ? 1 + Math.clz32(a.charCodeAt(n) ^ b.charCodeAt(n)) - 24 : 0);
    stack.push({ left: fold(bit, current), bit });
    current = records[i].digest;
  }
  return fold(-1, current);
}
