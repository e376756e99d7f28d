/**
 * The replica's store (section 9.1): tables in memory, and one file that each transaction replaces as a whole. That is
 * as simple as can be, and dear where there are many records: a larger store takes a database.
 */
import fs from 'node:fs';
import path from 'node:path';
import { deserialize, serialize } from 'node:v8';
import { byKey, compare, counts, digest, type Cursor, type Key, type Point, type Rec } from './rules.js';

/** A record of the server's, and a point at which the server had it (HIST-033). An offer is one that it lost. */
export interface Clean extends Rec { point: Point; offer?: boolean }
/** A write of the application that has no verdict, or was rejected. Its number tells the order of writes. */
export interface Write extends Rec {
  number: number; batch?: number; attempted?: boolean; inDoubt?: boolean; rejected?: string;
}

const empty = () => ({
  schema: 1,
  floor: 0n, // CLOCK-002
  next: 1, // number of the next write
  horizon: 0n,
  cursor: undefined as Cursor | undefined,
  newest: undefined as Cursor | undefined,
  damaged: false, // content was found damaged that no reconciliation has replaced yet (CLIENT-047)
  limits: {} as Record<string, string>, // of the last Hello
  clean: new Map<Key, Clean>(),
  outbox: new Map<number, Write>(),
  /** Records that were clean, and that the server neither has nor takes (section 2.5). */
  quarantine: new Map<Key, Rec & { reason: string }>(),
});

export class Store {
  data = empty();
  private saved = serialize(this.data);

  constructor(private readonly file: string) {
    lock(`${file}.lock`);
    if (fs.existsSync(file)) this.saved = fs.readFileSync(file);
    this.data = deserialize(this.saved);
    if (this.data.schema > empty().schema) throw new Error('the store is one of newer software'); // CLIENT-002
  }

  close = () => fs.rmSync(`${this.file}.lock`);

  /** All that `work` changes becomes durable together, or nothing of it (CLIENT-001). */
  tx<T>(work: () => T): T {
    try {
      const result = work(), bytes = serialize(this.data);
      if (!bytes.equals(this.saved)) replace(this.file, bytes);
      this.saved = bytes;
      return result;
    } catch (error) {
      this.data = deserialize(this.saved); // as if it had not begun
      throw error;
    }
  }

  /** Merges a record of the server's (MODEL-018). Says whether it is news. */
  merge({ key, time, replica, tombstone, value, digest }: Rec, { epoch, sequence }: Point): boolean {
    const { clean, outbox, quarantine } = this.data, mine = clean.get(key), aside = quarantine.get(key);
    const r = { key, time, replica, tombstone, value, digest }, order = mine ? compare(r, mine) : 1;
    if (order >= 0) clean.set(key, { ...r, point: { epoch, sequence } });
    for (const w of this.unsent(key)) if (compare(r, w) >= 0) outbox.delete(w.number); // CLIENT-015
    if (aside && compare(r, aside) >= 0) quarantine.delete(key); // HIST-041
    return order > 0;
  }

  /** Gives a write another version. It counts as never sent. */
  restamp(w: Write, time: bigint, replica: bigint): void {
    const r = { ...w, time, replica, attempted: false };
    this.data.outbox.set(w.number, { ...r, digest: digest(r) });
  }

  unsent = (key: Key) => [...this.data.outbox.values()].filter((w) => w.key === key);

  /** What the application sees under a key, a tombstone included (CLIENT-004). */
  shown = (key: Key): Rec | undefined =>
    this.unsent(key).at(-1) ?? this.data.clean.get(key) ?? this.data.quarantine.get(key);

  /** The clean records that fingerprints cover, in key order (MERKLE-003). */
  covered = () => [...this.data.clean.values()].filter((r) => counts(r, this.data.horizon)).sort(byKey);
}

function replace(file: string, bytes: Buffer): void {
  fs.writeFileSync(`${file}.new`, bytes, { flush: true });
  fs.renameSync(`${file}.new`, file);
  const folder = fs.openSync(path.dirname(file), 'r');
  fs.fsyncSync(folder);
  fs.closeSync(folder);
}

/** One opening at a time (CLIENT-005). The lock of a process that is gone does not count, even if it had our number. */
function lock(file: string): void {
  const mine = `${process.pid} ${performance.timeOrigin}`;
  const owner = fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '', pid = parseInt(owner);
  let held = owner === mine;
  try {
    held ||= pid !== process.pid && process.kill(pid, 0);
  } catch { /* that process is gone */ }
  if (held) throw new Error('the store is open already');
  fs.writeFileSync(file, mine);
}
