/**
 * The replica's store (section 9.1): tables in memory, and a journal of transactions on disk. The journal is a file of
 * frames, one for each transaction: its length as u32 BE, then its changes. A transaction is done when its frame is
 * synced; a crash leaves at most a torn frame at the end, of which nobody was told.
 */
import fs from 'node:fs';
import path from 'node:path';
import { deserialize, serialize } from 'node:v8';
import { byKey, compare, counts, type Cursor, type Key, type Point, type Rec } from './rules.js';

/** A write of the application that has no verdict, or was rejected. */
export interface Write extends Rec { batch?: number; attempted: boolean; inDoubt: boolean; rejected?: string }

const initial = {
  schema: 1,
  floor: 0n, // CLOCK-002
  next: 1, // number of the next write
  horizon: 0n,
  cursor: undefined as Cursor | undefined,
  newest: undefined as Cursor | undefined,
  damaged: false, // content was found damaged that no reconciliation has replaced yet (CLIENT-047)
  limits: {} as Record<string, string>, // of the last Hello
};
type State = typeof initial;
type Change = [table: string, key: Key | number, row?: unknown] | Partial<State>;

/** A map whose changes belong to the open transaction. */
class Table<K extends Key | number, V> extends Map<K, V> {
  constructor(readonly name: string, private readonly log: (change: Change) => void) { super(); }

  override set(key: K, row: V): this {
    this.log([this.name, key, row]);
    return super.set(key, row);
  }

  override delete(key: K): boolean {
    if (this.has(key)) this.log([this.name, key]);
    return super.delete(key);
  }
}

export class Store {
  state: State = initial;
  private changes?: Change[];
  private fd = -1;
  private readonly log = (change: Change) => void this.changes!.push(change);
  /** Records that the server has, as far as the replica knows, and a point at which it had each (HIST-033). */
  readonly clean = new Table<Key, Rec>('clean', this.log);
  readonly points = new Table<Key, Point>('points', this.log);
  /** Unsent and rejected writes, by number, in the order in which they were made. */
  readonly outbox = new Table<number, Write>('outbox', this.log);
  /** Keys of clean records that the server lost. */
  readonly offers = new Table<Key, true>('offers', this.log);
  /** Records that were clean, and that the server neither has nor takes (section 2.5). */
  readonly quarantine = new Table<Key, Rec & { reason: string }>('quarantine', this.log);

  constructor(private readonly file: string) {
    this.lock();
    this.load();
  }

  close(): void {
    fs.closeSync(this.fd);
    fs.rmSync(`${this.file}.lock`);
    locks.delete(this.file);
  }

  /** All that `work` changes becomes durable together, or nothing of it (CLIENT-001). */
  tx<T>(work: () => T): T {
    this.changes = [];
    try {
      const result = work();
      if (this.changes.length > 0) this.append(this.changes);
      return result;
    } catch (error) {
      this.load(); // as if it had not begun
      throw error;
    } finally {
      this.changes = undefined;
    }
  }

  update(state: Partial<State>): void {
    this.log(state);
    this.state = { ...this.state, ...state };
  }

  /** Merges a record of the server's (MODEL-018). Says whether it is news. */
  merge(r: Rec, { epoch, sequence }: Point): boolean {
    const mine = this.clean.get(r.key), order = mine ? compare(r, mine) : 1, aside = this.quarantine.get(r.key);
    if (order > 0) this.clean.set(r.key, r);
    if (order >= 0) this.points.set(r.key, { epoch, sequence }), this.offers.delete(r.key);
    for (const [n, w] of this.unsent(r.key)) if (compare(r, w) >= 0) this.outbox.delete(n); // CLIENT-015
    if (aside && compare(r, aside) >= 0) this.quarantine.delete(r.key); // HIST-041
    return order > 0;
  }

  /** Forgets a clean record. */
  drop(key: Key): void {
    for (const table of [this.clean, this.points, this.offers]) table.delete(key);
  }

  unsent = (key: Key) => [...this.outbox].filter(([, w]) => w.key === key);

  /** What the application sees under a key, a tombstone included (CLIENT-004). */
  shown = (key: Key): Rec | undefined =>
    this.unsent(key).at(-1)?.[1] ?? this.clean.get(key) ?? this.quarantine.get(key);

  /** The clean records that fingerprints cover, in key order (MERKLE-003). */
  covered = (horizon: bigint) => [...this.clean.values()].filter((r) => counts(r, horizon)).sort(byKey);

  private get tables(): Table<any, any>[] {
    return [this.clean, this.points, this.outbox, this.offers, this.quarantine];
  }

  private append(changes: Change[]): void {
    const body = serialize(changes), head = Buffer.alloc(4);
    head.writeUInt32BE(body.length);
    fs.appendFileSync(this.fd, Buffer.concat([head, body]));
    fs.fdatasyncSync(this.fd);
  }

  /** Reads the journal, and writes it anew as one transaction that makes all that is there. */
  private load(): void {
    const { file, tables } = this, byName = new Map(tables.map((table) => [table.name, table]));
    this.changes = []; // what is read is not logged
    this.state = initial;
    for (const table of tables) table.clear();
    const journal = fs.existsSync(file) ? fs.readFileSync(file) : Buffer.alloc(0);
    for (let at = 0, end: number; at + 4 <= journal.length; at = end) {
      end = at + 4 + journal.readUInt32BE(at);
      if (end > journal.length) break; // torn
      for (const change of deserialize(journal.subarray(at + 4, end)) as Change[]) {
        if (!Array.isArray(change)) this.update(change);
        else if (change[2] === undefined) byName.get(change[0])!.delete(change[1]);
        else byName.get(change[0])!.set(change[1], change[2]);
      }
    }
    if (this.state.schema > initial.schema) throw new Error('the store is one of newer software'); // CLIENT-002
    if (this.fd >= 0) fs.closeSync(this.fd);
    this.fd = fs.openSync(`${file}.new`, 'w');
    this.append([this.state, ...tables.flatMap((t) => [...t].map(([key, row]): Change => [t.name, key, row]))]);
    fs.renameSync(`${file}.new`, file);
    const folder = fs.openSync(path.dirname(file), 'r');
    fs.fsyncSync(folder);
    fs.closeSync(folder);
  }

  /** One opening at a time (CLIENT-005). The lock of a process that is gone does not count. */
  private lock(): void {
    const lock = `${this.file}.lock`, owner = fs.existsSync(lock) ? Number(fs.readFileSync(lock, 'utf8')) : 0;
    if (locks.has(this.file) || (owner !== process.pid && running(owner))) throw new Error('the store is open already');
    fs.writeFileSync(lock, String(process.pid));
    locks.add(this.file);
  }
}

const locks = new Set<string>();
function running(pid: number): boolean {
  try {
    return pid > 0 && process.kill(pid, 0);
  } catch {
    return false;
  }
}
