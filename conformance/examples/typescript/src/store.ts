// A replica's store (section 9.1): tables in memory, each transaction one line of a journal that is synced to disk.
import fs from "node:fs";
import { compare, Cursor, digest, End, inside, Leaf, Rec } from "./rules.js";

export interface Clean {
  rec: Rec;
  digest: Buffer;
  epoch: bigint;
  sequence: bigint;
}
export interface Write {
  id: number;
  rec: Rec;
  attempted: boolean;
  rejected: string;
  doubt: boolean;
}
export interface Held {
  low: Buffer;
  high: End;
  cursor: Cursor | null;
}
interface Tables {
  clean: Clean;
  outbox: Write;
  offers: true;
  quarantine: { rec: Rec; reason: string };
  meta: any;
}

const hex = (key: Buffer): string => key.toString("hex");
const plain = (_: string, v: any): any =>
  typeof v === "bigint"
    ? `n${v}`
    : v?.type === "Buffer"
      ? `b${Buffer.from(v.data).toString("hex")}`
      : typeof v === "string"
        ? `s${v}`
        : v;
const revive = (_: string, v: any): any =>
  typeof v !== "string"
    ? v
    : v[0] === "n"
      ? BigInt(v.slice(1))
      : v[0] === "b"
        ? Buffer.from(v.slice(1), "hex")
        : v.slice(1);

export class Store {
  private tables: { [T in keyof Tables]: Map<string, Tables[T]> } = {
    clean: new Map(),
    outbox: new Map(),
    offers: new Map(),
    quarantine: new Map(),
    meta: new Map(),
  };
  private changes: [keyof Tables, string, any][] | null = null;
  private undo: [keyof Tables, string, any][] = [];
  private file: number | null = null;

  constructor(path: string | null) {
    if (!path) return;
    const lines = fs.existsSync(path) ? fs.readFileSync(path, "utf8").split("\n") : [];
    lines.pop(); // what follows the last end of line was not finished
    for (const line of lines) for (const [table, key, value] of JSON.parse(line, revive)) this.put(table, key, value);
    const all = Object.entries(this.tables).flatMap(([t, map]) => [...map].map(([k, v]) => [t, k, v]));
    this.file = fs.openSync(`${path}.new`, "w");
    this.append(all);
    fs.renameSync(`${path}.new`, path);
  }

  private append(changes: any[]): void {
    if (this.file === null || changes.length === 0) return;
    fs.writeSync(this.file, JSON.stringify(changes, plain) + "\n");
    fs.fdatasyncSync(this.file);
  }

  private put(table: keyof Tables, key: string, value: any): void {
    const map: Map<string, any> = this.tables[table];
    if (value === undefined || value === null) map.delete(key);
    else map.set(key, value);
  }

  /** Everything that `work` changes, together and durably, or nothing (CLIENT-001). */
  tx<T>(work: () => T): T {
    if (this.changes) return work();
    this.changes = [];
    this.undo = [];
    try {
      const result = work();
      this.append(this.changes);
      return result;
    } catch (error) {
      for (const [table, key, value] of this.undo.reverse()) this.put(table, key, value);
      throw error;
    } finally {
      this.changes = null;
    }
  }

  private set(table: keyof Tables, key: string, value: any): void {
    this.tx(() => {
      this.undo.push([table, key, this.tables[table].get(key)]);
      this.put(table, key, value);
      this.changes!.push([table, key, value ?? null]);
    });
  }

  close(): void {
    if (this.file !== null) fs.closeSync(this.file);
    this.file = null;
  }

  get<T>(name: string, otherwise: T): T {
    return this.tables.meta.get(name) ?? otherwise;
  }
  setMeta(name: string, value: any): void {
    this.set("meta", name, value);
  }

  // ---- clean records; damaged content counts as absent (MODEL-023)

  private intact = (c: Clean | undefined): Clean | undefined => (c && digest(c.rec).equals(c.digest) ? c : undefined);
  clean(key: Buffer): Clean | undefined {
    return this.intact(this.tables.clean.get(hex(key)));
  }
  private rows(low: Buffer, high: End): Clean[] {
    const keys = [...this.tables.clean.keys()].sort();
    return keys.map((k) => this.tables.clean.get(k)!).filter((c) => inside(c.rec.key, low, high));
  }
  allClean(low: Buffer = Buffer.alloc(0), high: End = null): Clean[] {
    return this.rows(low, high).filter(this.intact);
  }
  damaged(low: Buffer = Buffer.alloc(0), high: End = null): Buffer[] {
    return this.rows(low, high)
      .filter((c) => !this.intact(c))
      .map((c) => c.rec.key);
  }
  /** What fingerprints cover (MERKLE-003). */
  leaves(low: Buffer, high: End, horizon: bigint): Leaf[] {
    const covered = this.allClean(low, high).filter((c) => !(c.rec.tombstone && c.rec.time < horizon));
    return covered.map((c) => ({ key: c.rec.key, digest: c.digest }));
  }
  putClean(rec: Rec, epoch: bigint, sequence: bigint): void {
    this.set("clean", hex(rec.key), { rec, digest: digest(rec), epoch, sequence });
  }
  setPoint(c: Clean, epoch: bigint, sequence: bigint): void {
    this.set("clean", hex(c.rec.key), { ...c, epoch, sequence });
  }
  dropClean(key: Buffer): void {
    this.set("clean", hex(key), null);
    this.settleOffer(key);
  }
  /** What a failing disk does. */
  damage(key: Buffer): boolean {
    const c = this.tables.clean.get(hex(key));
    if (!c) return false;
    const value = c.rec.value.length ? Buffer.from(c.rec.value) : Buffer.from("x");
    value[0] ^= 1;
    this.set("clean", hex(key), { ...c, rec: { ...c.rec, value } });
    return true;
  }

  offers(): Buffer[] {
    return [...this.tables.offers.keys()].sort().map((k) => Buffer.from(k, "hex"));
  }
  isOffered(key: Buffer): boolean {
    return this.tables.offers.has(hex(key));
  }
  offer(key: Buffer): void {
    this.set("offers", hex(key), true);
  }
  settleOffer(key: Buffer): void {
    if (this.isOffered(key)) this.set("offers", hex(key), null);
  }
  quarantine(rec: Rec, reason: string): void {
    this.set("quarantine", hex(rec.key), { rec, reason });
    this.dropClean(rec.key);
  }
  /** Quarantined records. */
  aside(): Rec[] {
    return [...this.tables.quarantine.values()].map((q) => q.rec);
  }

  // ---- the outbox

  writes(key?: Buffer): Write[] {
    const all = [...this.tables.outbox.values()].filter((w) => !key || w.rec.key.equals(key));
    return all.sort((a, b) => a.id - b.id);
  }
  addWrite(rec: Rec): void {
    for (const w of this.writes(rec.key)) if (!w.attempted && !w.rejected) this.dropWrite(w.id); // section 5.1
    const id = this.get("next", 1);
    this.setMeta("next", id + 1);
    this.changeWrite({ id, rec, attempted: false, rejected: "", doubt: false });
  }
  changeWrite(write: Write): void {
    this.set("outbox", String(write.id), write);
  }
  dropWrite(id: number): void {
    this.set("outbox", String(id), null);
  }
  /** What the application sees under a key. */
  visible(key: Buffer): Rec | undefined {
    return this.writes(key).pop()?.rec ?? this.clean(key)?.rec;
  }

  /** Merges a record of the server's; whether the clean record changed. */
  merge(rec: Rec, epoch: bigint, sequence: bigint): boolean {
    const order = ((c) => (c ? compare(rec, c.rec) : 1))(this.clean(rec.key));
    if (order >= 0) {
      this.putClean(rec, epoch, sequence);
      this.settleOffer(rec.key);
    }
    for (const w of this.writes(rec.key)) if (compare(rec, w.rec) >= 0) this.dropWrite(w.id); // CLIENT-015
    const aside = this.tables.quarantine.get(hex(rec.key));
    if (aside && compare(rec, aside.rec) >= 0) this.set("quarantine", hex(rec.key), null);
    return order > 0;
  }

  // ---- held ranges

  held(): Held[] {
    return this.get<Held[]>("held", []);
  }
  /** Holds exactly these from now on; a range keeps a cursor where it lies within one that has it (HIST-008). */
  hold(ranges: [Buffer, End][]): void {
    const within = (h: Held, low: Buffer, high: End) =>
      Buffer.compare(h.low, low) <= 0 && (h.high === null || (high !== null && Buffer.compare(high, h.high) <= 0));
    const cursor = (low: Buffer, high: End) => this.held().find((h) => within(h, low, high))?.cursor ?? null;
    this.setMeta(
      "held",
      ranges.map(([low, high]) => ({ low, high, cursor: cursor(low, high) })),
    );
  }
  setCursor(low: Buffer, cursor: Cursor): void {
    this.setMeta(
      "held",
      this.held().map((h) => (h.low.equals(low) ? { ...h, cursor } : h)),
    );
  }
}
