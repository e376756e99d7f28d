// What every implementation computes alike: records, clock, fingerprints, ranges, columns (chapters 1, 3 and 7).
import { createHash } from "node:crypto";
import { Msg, varint } from "./codec.js";

export class Malformed extends Error {}

export interface Rec {
  key: Buffer;
  time: bigint;
  replica: bigint;
  tombstone: boolean;
  value: Buffer;
}
export interface Cursor {
  epoch: bigint;
  sequence: bigint;
  tag: bigint;
}
export type Leaf = { key: Buffer; digest: Buffer };
export type End = Buffer | null; // the upper end of a range; null is infinity

const U64 = (1n << 64n) - 1n;
const ZEROS: Buffer = Buffer.alloc(32);

export const sha = (...parts: Uint8Array[]): Buffer => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
};
const big64 = (n: bigint): Buffer => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64BE(n);
  return b;
};
const big32 = (n: number): Buffer => {
  const b = Buffer.alloc(4);
  b.writeUInt32BE(n);
  return b;
};

const valueHash = (r: Rec): Buffer => (r.tombstone ? ZEROS : sha(r.value));

/** Section 1.6. */
export const digest = (r: Rec): Buffer =>
  sha(
    Buffer.from("gosync.v1.record"),
    big32(r.tombstone ? 1 : 0),
    big64(r.time),
    big64(r.replica),
    big32(r.key.length),
    r.key,
    valueHash(r),
  );

/** The order of merging (section 1.5): above 0 where a wins. */
export function compare(a: Rec, b: Rec): number {
  if (a.time !== b.time) return a.time > b.time ? 1 : -1;
  if (a.replica !== b.replica) return a.replica > b.replica ? 1 : -1;
  return Number(a.tombstone) - Number(b.tombstone) || Buffer.compare(valueHash(a), valueHash(b));
}

/** A record that may exist (MODEL-004, -005, -013 to -015). */
export function parse(m: Msg): Rec {
  if (m.key.length < 1 || m.key.length > 512) throw new Malformed("a key has 1 to 512 bytes");
  if (!m.version) throw new Malformed("a record without version");
  if (m.flags > 1 || (m.flags === 1 && m.value.length > 0))
    throw new Malformed("unknown flags, or a tombstone with a value");
  return { key: m.key, time: m.version.time, replica: m.version.replica, tombstone: m.flags === 1, value: m.value };
}

export const toMessage = (r: Rec): Msg => ({
  key: r.key,
  version: { time: r.time, replica: r.replica },
  flags: r.tombstone ? 1 : 0,
  value: r.value,
});

/** CLOCK-002; undefined where no time is left. */
export function issue(nowMs: number, floor: bigint, replaced?: bigint): bigint | undefined {
  const wall = BigInt(Math.min(Math.max(nowMs, 0), 2 ** 48 - 1)) << 16n;
  const time = [wall, floor + 1n, (replaced ?? -1n) + 1n].reduce((a, b) => (a > b ? a : b));
  return time > U64 ? undefined : time;
}

/** CLOCK-011. */
export const clockBound = (readingMs: number, skewMs: number): bigint => (BigInt(readingMs + skewMs) << 16n) | 65535n;

export const inside = (key: Buffer, low: Buffer, high: End): boolean =>
  Buffer.compare(low, key) <= 0 && (high === null || Buffer.compare(key, high) < 0);
export const inRanges = (ranges: Msg[], key: Buffer): boolean =>
  ranges.some((r) => inside(key, r.start, r.end ?? null));
/** The range of the keys with a prefix (section 1.2). */
export function prefixRange(prefix: Buffer): [Buffer, End] {
  let n = prefix.length;
  while (n > 0 && prefix[n - 1] === 255) n--;
  if (n === 0) return [prefix, null];
  const end = Buffer.from(prefix.subarray(0, n));
  end[n - 1]++;
  return [prefix, end];
}

/** Section 3.3; a is below b. */
function criticalBit(a: Buffer, b: Buffer): number {
  let i = 0;
  while (i < a.length && a[i] === b[i]) i++;
  return i === a.length ? 9 * i : 9 * i + 1 + Math.clz32(a[i] ^ b[i]) - 24;
}

export function fingerprint(leaves: Leaf[]): Buffer {
  const stack: [number, Buffer][] = [];
  let current = ZEROS;
  const fold = (above: number) => {
    while (stack.length && stack[stack.length - 1][0] > above) {
      current = sha(Buffer.from("gosync.v1.branch"), stack.pop()![1], current);
    }
  };
  leaves.forEach((leaf, i) => {
    if (i > 0) {
      const bit = criticalBit(leaves[i - 1].key, leaf.key);
      fold(bit);
      stack.push([bit, current]);
    }
    current = leaf.digest;
  });
  fold(-1);
  return current;
}

/** Section 7.2. */
export function short(salt: bigint, d: Buffer, length: number): Buffer {
  if (length === 32) return d;
  const [first, ...keys] = shortKeys(salt);
  const sum = keys.reduce((sum, key, i) => sum + key * d.readBigUInt64BE(8 * i), first);
  return big64((sum >> 64n) & U64).subarray(0, length);
}
const shortKeys = (salt: bigint): bigint[] => {
  const stream = Buffer.concat([0, 1, 2].map((i) => sha(Buffer.from("gosync.v1.shorts"), big64(salt), Buffer.of(i))));
  return [0, 16, 32, 48, 64].map((i) => (stream.readBigUInt64BE(i) << 64n) | stream.readBigUInt64BE(i + 8));
};

/** The shortest bound between two neighbours (section 7.8). */
export function separator(below: Buffer, above: Buffer): Buffer {
  let i = 0;
  while (i < below.length && below[i] === above[i]) i++;
  return above.subarray(0, i + 1);
}

export function putBound(lower: Buffer, upper: Buffer): Buffer {
  let same = 0;
  while (same < lower.length && same < upper.length && lower[same] === upper[same]) same++;
  const counts = [lower.length - same, upper.length - same];
  const [d, a] = counts.map((n) => Math.min(n, 15));
  return Buffer.concat([
    Buffer.from([d * 16 + a]),
    ...counts.filter((n) => n >= 15).map((n) => varint(n - 15)),
    upper.subarray(same),
  ]);
}

/** Reads one column of a Reconcile answer (section 7.2). */
export class Column {
  private at = 0;
  constructor(private readonly data: Buffer) {}
  get done(): boolean {
    return this.at === this.data.length;
  }
  take(n: number): Buffer {
    if (this.at + n > this.data.length) throw new Malformed("a column that ends early");
    this.at += n;
    return this.data.subarray(this.at - n, this.at);
  }
  varint(): number {
    let value = 0n;
    for (let i = 0n; ; i++) {
      const byte = this.take(1)[0];
      value |= BigInt(byte & 127) << (7n * i);
      if (byte < 128) {
        if ((byte === 0 && i > 0n) || value > U64) throw new Malformed("a varint that is not in shortest form");
        return Number(value);
      }
      if (i === 9n) throw new Malformed("a varint that is too long");
    }
  }
  bound(lower: Buffer): Buffer {
    const head = this.take(1)[0];
    const [drop, add] = [head >> 4, head & 15].map((n) => (n === 15 ? n + this.varint() : n));
    if (drop > lower.length) throw new Malformed("a bound that drops too much");
    const upper = Buffer.concat([lower.subarray(0, lower.length - drop), this.take(add)]);
    if (Buffer.compare(upper, lower) <= 0 || upper.length > 513) throw new Malformed("a bound that is not above");
    return upper;
  }
}
