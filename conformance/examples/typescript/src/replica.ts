// A GoSync replica: sessions of Hello, Reconcile or Snapshot, Push and Watch (chapters 4 to 9), profiles core and heal.
import { randomBytes } from "node:crypto";
import { Msg } from "./codec.js";
import { Fail, fromEnd, Heard, Queue, reasonName, Server } from "./net.js";
import { ask, Part, understand, wholePart } from "./reconcile.js";
import {
  clockBound,
  compare,
  Cursor,
  digest,
  End,
  fingerprint,
  inRanges,
  inside,
  issue,
  Malformed,
  parse,
  prefixRange,
  Rec,
  toMessage,
} from "./rules.js";
import { Clock, SAME, Standing } from "./standing.js";
import { Held, Store, Write } from "./store.js";

const APPLIED = 1,
  UNCHANGED = 2,
  SUPERSEDED = 3,
  REJECTED = 4; // Outcome
const RECONCILE = 1,
  LIVE = 2; // Feature
const FLOORS: Record<string, number> = {
  max_message_bytes: 1 << 20,
  max_value_bytes: 65536,
  max_push_records: 100,
  max_reconcile_entries: 1000,
  max_response_bytes: 65536,
  max_clock_skew_ms: 1000,
  watchdog_ms: 300,
};
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const random64 = (): bigint => randomBytes(8).readBigUInt64BE();
const rangeOf = (h: Held): Msg => ({ start: h.low, ...(h.high ? { end: h.high } : {}) });

export class WriteRefused extends Error {
  constructor(
    readonly reason: string,
    detail: string,
  ) {
    super(detail);
  }
}

export interface Options {
  url: string;
  space: string;
  tokens: string[];
  clock: Clock;
}

export class Replica {
  verified = false;
  readonly reports: string[] = [];
  private readonly id = random64();
  private server: Server | null = null;
  private limits: Record<string, number> = {};
  private features: number[] = [];
  private grants: Msg[] = [];
  private told = { ms: 0, at: 0 }; // the server's clock, and when it was told
  private token = 0;
  private online = true;
  private closed = false;
  private watching = false;
  private live = false;
  private failure: Fail | null = null;
  private inbox = new Queue<Heard>();
  private standings = new Map<string, Standing>(); // by range, as Hello told them
  private readonly unequal = new Map<string, number>(); // sessions in a row that ended unequal, by range
  private readonly keysBehind = new Map<string, Buffer>(); // outside the ranges, to be reconciled (CLIENT-027)
  private readonly rangesBehind = new Set<string>();
  private readonly snapshots = new Map<string, { first: Standing | null; after: Buffer | null; seen: Set<string> }>();
  private running: Promise<void> = Promise.resolve();
  private pushing: Promise<void> = Promise.resolve();

  constructor(
    readonly store: Store,
    private readonly options: Options,
    prefixes: Buffer[] = [],
  ) {
    const ranges: [Buffer, End][] = prefixes.length ? prefixes.map(prefixRange) : [[Buffer.alloc(0), null]];
    store.hold(ranges.sort((a, b) => Buffer.compare(a[0], b[0])));
  }

  // ---- for the application

  /** Puts a value, or deletes where it is null; durable on return (CLIENT-008). */
  write(key: Buffer, value: Buffer | null): void {
    if (key.length < 1 || key.length > 512)
      throw new WriteRefused(key.length ? "LIMIT_EXCEEDED" : "MALFORMED", "a key has 1 to 512 bytes");
    const most = this.limits.max_value_bytes ?? 1 << 20;
    if (value && value.length > most) throw new WriteRefused("LIMIT_EXCEEDED", `a value has at most ${most} bytes`);
    this.store.tx(() => {
      const time = issue(this.options.clock.now(), this.store.get("floor", 0n), this.store.visible(key)?.time);
      if (time === undefined) throw new WriteRefused("CLOCK_SKEW", "no time is left above what is replaced");
      this.store.setMeta("floor", time); // CLOCK-003
      this.store.addWrite({ key, time, replica: this.id, tombstone: value === null, value: value ?? Buffer.alloc(0) });
    });
    this.inbox.push("woken");
  }
  readAll(): Rec[] {
    const seen = [
      ...this.store.aside(),
      ...this.store.allClean().map((c) => c.rec),
      ...this.store.writes().map((w) => w.rec),
    ];
    const shown = new Map(seen.map((rec) => [rec.key.toString("hex"), rec]));
    return [...shown]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, r]) => r)
      .filter((r) => !r.tombstone);
  }
  discard(key: Buffer): boolean {
    const writes = this.store.writes(key);
    this.store.tx(() => writes.forEach((w) => this.store.dropWrite(w.id)));
    return writes.length > 0;
  }
  idle(): boolean {
    return !this.store.offers().length && this.store.writes().every((w) => w.rejected);
  }
  setOnline(online: boolean): void {
    this.online = online;
    if (!online) this.server?.close();
    this.inbox.push("woken");
  }
  async close(): Promise<void> {
    this.closed = true;
    this.setOnline(false);
    await this.running;
    this.store.close();
  }

  /** Sessions until both sides hold the same and nothing waits; Fail when that cannot be, or not in time. */
  sync(timeoutMs: number): Promise<void> {
    return this.watching ? this.awaitIdle(timeoutMs) : this.run(false, Date.now() + timeoutMs);
  }
  watch(): void {
    this.watching = true;
    this.running = this.run(true, Infinity).catch(() => {});
  }
  async awaitIdle(timeoutMs: number): Promise<void> {
    for (const end = Date.now() + timeoutMs; !(this.live && this.idle()); await sleep(10)) {
      if (this.failure && ["authenticate", "stop", "upgrade"].includes(this.failure.action)) throw this.failure;
      if (Date.now() > end) throw this.failure ?? new Fail("retry", "", "not idle in time");
    }
  }

  private async run(live: boolean, deadline: number): Promise<void> {
    let delay = 250,
      renewed = false,
      resynced = -Infinity;
    while (!this.closed) {
      if (!this.online) {
        if (Date.now() > deadline) throw new Fail("retry", "", "offline");
        await sleep(10);
        continue;
      }
      let fail: Fail,
        reached = false;
      try {
        this.server = new Server(this.options.url, this.options.tokens[this.token] ?? "");
        await this.hello();
        reached = true;
        renewed = false;
        await this.session(live);
        if (!live && this.idle()) return;
        fail = new Fail("retry", "", "writes wait for an answer");
      } catch (error) {
        fail = error instanceof Fail ? error : new Fail("retry", "", String(error)); // ERR-013
        if (error instanceof Malformed) this.reports.push(error.message);
      } finally {
        this.server?.close();
        this.live = false;
      }
      if (fail.action === "authenticate" && !renewed && this.token + 1 < this.options.tokens.length) {
        renewed = true; // CLIENT-038
        this.token++;
        continue;
      }
      if (fail.reason === "NO_ACCESS") fail.action = "authenticate";
      this.failure = fail;
      if (["authenticate", "upgrade", "stop"].includes(fail.action)) throw fail;
      if (fail.action === "resync" && Date.now() - resynced > 60_000) {
        resynced = Date.now();
        continue;
      }
      if (reached && fail.action !== "resync") delay = 250;
      const pause = Math.max(delay / 2, fail.delayMs) * (1 + Math.random()); // CLIENT-032 to -034
      delay = Math.min(delay * 2, 20_000);
      if (Date.now() + pause > deadline) throw fail;
      for (const end = Date.now() + pause, was = this.online; Date.now() < end && !this.closed && this.online === was;)
        await sleep(10);
    }
  }

  private async session(live: boolean): Promise<void> {
    for (const [name, key] of this.keysBehind) {
      await this.reconcile({ low: key, high: Buffer.concat([key, Buffer.alloc(1)]), cursor: null }, false);
      this.keysBehind.delete(name);
    }
    do await this.push();
    while (!(await this.watchOnce(live)));
  }

  // ---- what all calls share

  private heldMessages(helds: Held[]): Msg[] {
    return helds.map((h) => ({ ranges: [rangeOf(h)], cursor: h.cursor ?? undefined }));
  }
  /** The newest commit known, unless every cursor that is sent tells more (PUSH-039). */
  private newestCommit(helds: Held[]): Cursor | null {
    const newest = this.store.get<Cursor | null>("newest", null);
    const passed = ({ cursor }: Held) => cursor && cursor.epoch === newest?.epoch && cursor.sequence >= newest.sequence;
    return helds.every(passed) ? null : newest;
  }
  private base(helds: Held[]): Msg {
    return {
      space: this.options.space,
      held: this.heldMessages(helds),
      newest_commit: this.newestCommit(helds),
    };
  }
  private noteTime(ms: bigint): void {
    this.told = { ms: Number(ms), at: Date.now() };
  }
  /** A record of an answer that may be taken (CLOCK-011). */
  private accept = (message: Msg): Rec => {
    const record = parse(message);
    const reading = Math.max(this.options.clock.now(), this.told.ms + Date.now() - this.told.at);
    if (record.time <= clockBound(reading, this.limits.max_clock_skew_ms)) return record;
    this.reports.push("a record is dated too far ahead");
    throw new Fail("retry", "", "a record is dated too far ahead");
  };
  private merge(records: Rec[], point: { epoch: bigint; sequence: bigint }): boolean {
    const changed = records.filter((r) => this.store.merge(r, point.epoch, point.sequence)).length > 0;
    if (changed) this.verified = false;
    return changed;
  }
  private mayWrite(key: Buffer): boolean {
    return this.grants.some((g) => g.access === 2 && key.subarray(0, g.key_prefix.length).equals(g.key_prefix));
  }
  private heals(): boolean {
    return this.features.includes(RECONCILE);
  }

  // ---- Hello (chapter 4)

  private async hello(): Promise<void> {
    const helds = this.store.held();
    let answer: Msg = {},
      standings: Standing[] = [];
    for (let i = 0; i < 4; i++) {
      const horizon = this.store.get("horizon", 0n);
      this.server!.version = 0;
      answer = await this.server!.call("Hello", {
        ...this.base(helds),
        versions: [1],
        features: [RECONCILE, LIVE],
        horizon,
        client: "gosync-example-typescript/1",
        fingerprints: helds.map((h) => fingerprint(this.store.leaves(h.low, h.high, horizon))),
      });
      if (answer.version !== 1 || answer.held.length !== helds.length)
        throw new Malformed("Hello answered something else");
      this.server!.version = 1;
      this.features = answer.features;
      this.grants = answer.grants;
      for (const [name, floor] of Object.entries(FLOORS))
        this.limits[name] = Math.max(Number(answer.limits?.[name] ?? 0n), floor);
      this.noteTime(answer.server_time_ms);
      standings = answer.held.map((status: Msg) => new Standing(answer.position, answer.restore_points, status));
      this.standings = new Map(helds.map((h, i) => [h.low.toString("hex"), standings[i]]));
      this.learnHorizon(standings);
      if (standings[0].horizon === horizon) break;
    }
    const equal: boolean[] = this.heals() && answer.equal.length === helds.length ? answer.equal : [];
    for (const [i, held] of helds.entries()) {
      const name = held.low.toString("hex"),
        standing = standings[i];
      const damaged = this.store.damaged(held.low, held.high).length > 0; // CLIENT-047
      if (equal[i]) {
        this.finish(held, standing, new Set(), []);
        this.unequal.delete(name);
      } else if (!held.cursor || !standing.inOrder || damaged || this.rangesBehind.has(name)) {
        await this.heal(held);
      }
      this.rangesBehind.delete(name);
    }
    if (standings.some((s) => s.lineage !== SAME)) this.store.setMeta("newest", null); // PUSH-036
    this.verified = equal.length > 0 && equal.every(Boolean);
  }

  private heal(held: Held): Promise<void> {
    const begun = this.snapshots.has(held.low.toString("hex"));
    const bulk = begun || !this.heals() || !this.store.allClean(held.low, held.high).length;
    return bulk ? this.snapshot(held) : this.reconcile(held);
  }

  /** HIST-031 and HIST-032; points are judged by the worst of the lineages. */
  private learnHorizon(standings: Standing[]): void {
    const worst = standings.reduce((a, b) => (b.lineage > a.lineage ? b : a));
    const reading = Math.max(this.options.clock.now(), this.told.ms);
    if (worst.horizon > clockBound(reading, this.limits.max_clock_skew_ms))
      throw new Malformed("a horizon in the future"); // SEC-013
    this.store.tx(() => {
      for (const c of this.store.allClean()) {
        if (!c.rec.tombstone || c.rec.time >= worst.horizon) continue;
        if (worst.holds(c.epoch, c.sequence)) this.store.dropClean(c.rec.key);
        else if (this.mayWrite(c.rec.key)) this.store.offer(c.rec.key);
      }
      if (this.store.get("horizon", 0n) !== worst.horizon) this.store.setMeta("horizon", worst.horizon);
    });
  }

  /** The end of a reconciliation, in one transaction (sections 2.5, 7.7, 8.3, 9.5). */
  private finish(held: Held, standing: Standing, lacking: Set<string>, wanted: Msg[], own = true): void {
    this.store.tx(() => {
      for (const key of this.store.damaged(held.low, held.high)) this.store.dropClean(key);
      for (const c of this.store.allClean(held.low, held.high)) {
        const { key, time } = c.rec,
          lacks = lacking.has(key.toString("hex")),
          isWanted = inRanges(wanted, key);
        if (lacks && !isWanted && standing.behind && time < standing.horizon && standing.holds(c.epoch, c.sequence)) {
          this.store.dropClean(key); // HIST-034
        } else if (lacks || isWanted) {
          if (this.mayWrite(key)) this.store.offer(key);
          else if (lacks) this.store.quarantine(c.rec, "NO_ACCESS");
        } else if (own && !this.store.isOffered(key)) {
          this.store.setPoint(c, standing.head.epoch, standing.head.sequence);
        }
      }
      if (standing.behind) this.restampBelow(held, standing.horizon);
      if (own) this.store.setCursor(held.low, standing.head);
    });
  }

  /** The table of section 9.5. */
  private restampBelow(held: Held, horizon: bigint): void {
    for (const w of this.store.writes().filter((w) => inside(w.rec.key, held.low, held.high))) {
      if (w.rec.time >= horizon || w.rejected || this.store.clean(w.rec.key)) continue;
      const last = this.store.writes(w.rec.key).pop()!.id === w.id;
      if (w.rec.tombstone || !last) this.store.dropWrite(w.id);
      else
        this.store.changeWrite({
          ...w,
          rec: { ...w.rec, time: horizon, replica: this.id },
          attempted: false,
          doubt: w.doubt || w.attempted,
        });
    }
  }

  /** Clean records that win against what the server holds (RECON-033, SNAP-032). */
  private offerWinners(records: Rec[], head: Cursor): void {
    for (const r of records) {
      const clean = this.store.clean(r.key);
      if (!clean || compare(clean.rec, r) <= 0) continue;
      if (this.mayWrite(r.key)) {
        this.store.offer(r.key);
        continue;
      }
      this.store.quarantine(clean.rec, "NO_ACCESS");
      this.store.putClean(r, head.epoch, head.sequence);
    }
  }

  // ---- Snapshot (chapter 8)

  private async snapshot(held: Held): Promise<void> {
    const name = held.low.toString("hex"),
      begun = this.snapshots.get(name);
    let { first, after, seen } = begun ?? {
      first: null as Standing | null,
      after: null as Buffer | null,
      seen: new Set<string>(),
    };
    let start: Standing | null = null,
      complete: Msg | null = null,
      wanted: Msg[] = [];
    const received: { key: Buffer; digest: Buffer }[] = [];
    const request = { ...this.base([held]), ...(after ? { after_key: after } : {}) };
    for await (const message of this.messages("Snapshot", request)) {
      if (!start && !message.start && !message.end) throw new Malformed("a Snapshot without its start");
      if (message.start) {
        if (start || message.start.held.length !== 1)
          throw new Malformed("a second start, or another number of statuses");
        start = new Standing(message.start.position, message.start.restore_points, message.start.held[0]);
        wanted = message.start.wanted;
        if (first && start.changedSince(first)) {
          this.snapshots.set(name, { first: null, after: null, seen: new Set() }); // SNAP-016
          throw new Fail("retry", "", "the history changed under a resumed Snapshot");
        }
        first ??= start;
        this.learnHorizon([start]);
      } else if (message.chunk) {
        if (complete) throw new Malformed("a chunk after the end");
        const records: Rec[] = message.chunk.records.map(this.accept);
        for (const r of records) {
          if (!inside(r.key, held.low, held.high) || (after && Buffer.compare(r.key, after) <= 0))
            throw new Malformed("keys that do not ascend, or lie outside");
          after = r.key;
        }
        this.store.tx(() => {
          this.merge(records, start!.head);
          this.offerWinners(records, start!.head);
        });
        for (const r of records) {
          seen.add(r.key.toString("hex"));
          received.push({ key: r.key, digest: digest(r) });
        }
        this.snapshots.set(name, { first, after, seen });
      } else if (message.complete) {
        complete = message.complete;
      } else if (message.end) {
        if (message.end.reason) throw fromEnd(message.end);
        break;
      }
    }
    if (!complete || !first) throw new Fail("retry", "", "a Snapshot that ended early");
    this.snapshots.delete(name);
    if (this.heals()) {
      if (complete.ranges.length !== 1) throw new Malformed("a Snapshot of another number of ranges");
      if (!begun?.after && !complete.ranges[0].fingerprint.equals(fingerprint(received)))
        throw new Malformed("a Snapshot that is not what it says"); // SNAP-022
    }
    const lacking = this.store
      .allClean(held.low, held.high)
      .map((c) => c.rec.key.toString("hex"))
      .filter((k) => !seen.has(k));
    this.finish(held, first, new Set(lacking), wanted);
  }

  /** The messages of a stream, each within the watchdog's time. */
  private async *messages(name: string, request: Msg): AsyncGenerator<Msg> {
    const queue = new Queue<Heard>(),
      cancel = this.server!.stream(name, request, queue);
    try {
      for (;;) {
        const heard = await queue.next(this.limits.watchdog_ms);
        if (heard === undefined) throw new Fail("retry", "", "a silent stream");
        if (heard === "woken") continue;
        if ("message" in heard) {
          yield heard.message;
          continue;
        }
        if (heard.fail) throw heard.fail;
        return;
      }
    } finally {
      cancel();
    }
  }

  // ---- Reconcile (chapter 7)

  /** A session over one range, or over one key outside the held ranges (CLIENT-049). */
  private async reconcile(held: Held, own = true): Promise<void> {
    const salt = random64(),
      horizon = this.store.get("horizon", 0n); // RECON-004
    let todo: Part[] = [
      wholePart(held.low, held.high, { full: (this.unequal.get(held.low.toString("hex")) ?? 0) > 0 }),
    ]; // RECON-039
    const lacking = new Set<string>(),
      wanted: Msg[] = [];
    let before = (own && this.standings.get(held.low.toString("hex"))) || null,
      lowest: Standing | null = null;
    for (let idle = 0; todo.length;) {
      const full = todo.some((p) => p.full),
        room = Math.min(this.limits.max_reconcile_entries, 20_000);
      const leaves = (p: Part) => this.store.leaves(p.low, p.high, horizon);
      const question = ask(
        todo.filter((p) => p.full === full),
        leaves,
        salt,
        full ? 32 : 5,
        room,
      );
      const answer = await this.server!.call("Reconcile", { ...this.base([held]), horizon, ...question.columns });
      if (answer.held.length !== 1) throw new Malformed("Reconcile answered another number of ranges");
      const standing = new Standing(answer.position, answer.restore_points, answer.held[0]);
      if (standing.horizon !== horizon || (before && standing.changedSince(before)))
        throw new Fail("resync", "", "the history changed within a session"); // RECON-034
      if (held.cursor?.epoch === standing.head.epoch && standing.head.sequence < standing.mapped) {
        if (++idle > 8) throw new Fail("retry", "LAGGING", "the server is behind");
        await sleep(300); // RECON-035
        continue;
      }
      const found = understand(question, answer);
      if (found.contradicts && before && before.head.sequence === standing.head.sequence)
        throw new Malformed("full fingerprints that contradict each other"); // RECON-052
      const records = answer.records.map(this.accept);
      this.store.tx(() => {
        this.merge(records, standing.head);
        this.offerWinners(records, standing.head);
      });
      found.lacking.forEach((key) => lacking.add(key.toString("hex")));
      wanted.push(...answer.wanted);
      before = standing;
      lowest = lowest && lowest.head.sequence <= standing.head.sequence ? lowest : standing;
      idle = found.closed || records.length ? 0 : idle + 1;
      if (idle >= 64) return this.snapshot(held); // RECON-036
      todo = [...found.again, ...question.left, ...todo.filter((p) => p.full !== full)].sort((a, b) =>
        Buffer.compare(a.low, b.low),
      );
    }
    this.finish(held, lowest!, lacking, wanted, own);
  }

  // ---- Push (chapter 5)

  private async push(): Promise<void> {
    const skip = new Set<string>(),
      rounds = new Map<number, number>();
    for (;;) {
      const records = new Map<string, Rec>(),
        writes: Write[] = [];
      let size = 0;
      const fits = (r: Rec) =>
        !records.size ||
        (size + r.key.length + r.value.length + 64 < FLOORS.max_message_bytes * 0.75 &&
          records.size < this.limits.max_push_records);
      const take = (r: Rec) => {
        size += r.key.length + r.value.length + 64;
        records.set(r.key.toString("hex"), r);
      };
      for (const w of this.store.writes()) {
        const name = w.rec.key.toString("hex");
        if (w.rejected || records.has(name)) continue; // PUSH-006
        if (skip.has(name) || !fits(w.rec)) break; // the order of writing holds
        take(w.rec);
        writes.push(w);
      }
      if (!writes.length) {
        for (const key of this.store.offers()) {
          const clean = this.store.clean(key);
          if (!clean) this.store.settleOffer(key);
          else if (!skip.has(key.toString("hex")) && fits(clean.rec)) take(clean.rec);
        }
      }
      if (!records.size) return;
      await this.parcel(writes, writes.length ? [] : [...records.values()], skip, rounds);
    }
  }

  private async parcel(writes: Write[], offers: Rec[], skip: Set<string>, rounds: Map<number, number>): Promise<void> {
    this.store.tx(() =>
      writes.filter((w) => !w.attempted).forEach((w) => this.store.changeWrite({ ...w, attempted: true })),
    ); // CLIENT-012
    const records = [...writes.map((w) => w.rec), ...offers],
      helds = this.store.held();
    let answer: Msg;
    try {
      answer = await this.server!.call("Push", { ...this.base(helds), records: records.map(toMessage) });
    } catch (error) {
      if (!(error instanceof Fail) || !["MALFORMED", "LIMIT_EXCEEDED"].includes(error.reason)) throw error;
      const half = Math.ceil(records.length / 2); // "find the record at fault" (section 9.11)
      if (records.length > 1) {
        await this.parcel(writes.slice(0, half), offers.slice(0, half), skip, rounds);
        await this.parcel(writes.slice(half), offers.slice(half), skip, rounds);
      } else if (writes.length) this.store.changeWrite({ ...writes[0], attempted: false, rejected: error.reason });
      else this.store.quarantine(offers[0], error.reason);
      return;
    }
    if (answer.verdicts.length !== records.length || answer.held.length !== helds.length)
      throw new Malformed("another number of verdicts or statuses"); // PUSH-026
    this.noteTime(answer.server_time_ms);
    const standings = answer.held.map((status: Msg) => new Standing(answer.position, [], status)) as Standing[];
    const head: Cursor = answer.position.head,
      skewed: Write[] = [];
    let resync = standings.some((s) => !s.inOrder); // PUSH-035
    this.store.tx(() => {
      records.forEach((record, i) => {
        const verdict = answer.verdicts[i],
          offer = i >= writes.length,
          name = record.key.toString("hex");
        const write = this.store.writes(record.key).find((w) => w.id === writes[i]?.id); // Watch may have settled it
        const settled = () => {
          if (offer) this.store.settleOffer(record.key);
          else if (write) this.store.dropWrite(write.id);
        };
        if (verdict.outcome === APPLIED || verdict.outcome === UNCHANGED) {
          this.merge([record], { epoch: head.epoch, sequence: verdict.sequence });
          if (write) this.unequal.clear(); // somebody wrote (RECON-045)
          settled();
        } else if (verdict.outcome === SUPERSEDED) {
          const winner = this.winner(verdict, record);
          if (!winner) return skip.add(name);
          this.merge([winner], { epoch: head.epoch, sequence: verdict.sequence });
          settled();
        } else {
          const reason = (verdict.outcome === REJECTED && reasonName(verdict.reason)) || "UNKNOWN";
          if (reason === "BEHIND_COMPACTION") {
            resync = true;
            const home = helds.find((h) => inside(record.key, h.low, h.high));
            if (home) this.rangesBehind.add(home.low.toString("hex"));
            else this.keysBehind.set(name, record.key);
            skip.add(name);
          } else if (reason === "CLOCK_SKEW" && write) skewed.push(write);
          else if (reason === "CLOCK_SKEW")
            skip.add(name); // CLIENT-048
          else if (offer) this.store.quarantine(record, reason);
          else if (write) this.store.changeWrite({ ...write, attempted: false, rejected: reason });
        }
        return undefined;
      });
      if (answer.verdicts.some((v: Msg) => v.outcome === APPLIED)) this.store.setMeta("newest", head); // PUSH-030
      this.restamp(skewed, Number(answer.server_time_ms), skip, rounds);
    });
    if (resync) throw new Fail("resync", "", "the history changed, or a write is behind the compaction");
  }

  private winner(verdict: Msg, record: Rec): Rec | null {
    try {
      const winner = this.accept(verdict.winner);
      return winner.key.equals(record.key) && compare(winner, record) > 0 ? winner : null;
    } catch {
      return null;
    }
  }

  /** Section 9.4: in the order of writing, by the server's time; the floor is lowered to it (CLIENT-019). */
  private restamp(writes: Write[], serverMs: number, skip: Set<string>, rounds: Map<number, number>): void {
    if (!writes.length) return;
    const least = (a: bigint, b: bigint) => (a < b ? a : b);
    let floor = least(this.store.get("floor", 0n), BigInt(serverMs) << 16n);
    for (const w of writes) {
      rounds.set(w.id, (rounds.get(w.id) ?? 0) + 1);
      if (rounds.get(w.id)! > 3) skip.add(w.rec.key.toString("hex"));
      const earlier = this.store
        .writes(w.rec.key)
        .filter((other) => other.id < w.id)
        .pop();
      floor = issue(serverMs, floor, (earlier?.rec ?? this.store.clean(w.rec.key)?.rec)?.time) ?? floor;
      this.store.changeWrite({ ...w, rec: { ...w.rec, time: floor, replica: this.id }, attempted: false });
    }
    this.store.setMeta("floor", floor);
  }

  // ---- Watch (chapter 6)

  /** One Watch; false when there is something to do before the next one. */
  private async watchOnce(live: boolean): Promise<boolean> {
    const helds = this.store.held(),
      inbox = (this.inbox = new Queue<Heard>());
    const cancel = this.server!.stream("Watch", { ...this.base(helds), until_caught_up: !live }, inbox);
    let pending: Rec[] = [],
      last: Cursor | null = null,
      silence = Date.now() + this.limits.watchdog_ms;
    const epoch = helds.find((h) => h.cursor)?.cursor?.epoch;
    try {
      for (;;) {
        const heard = await inbox.next(silence - Date.now());
        if (heard === undefined) throw new Fail("retry", "", "a silent stream"); // WATCH-031
        if (heard === "woken") {
          if (!this.online) throw new Fail("retry", "", "offline");
          if (this.live) this.pushBeside(inbox);
          continue;
        }
        if ("fail" in heard) throw heard.fail ?? new Fail("retry", "", "a stream without StreamEnd"); // WATCH-038
        silence = Date.now() + this.limits.watchdog_ms;
        const { changes, checkpoint, heartbeat, end } = heard.message;
        const cursor: Cursor | undefined = changes?.cursor ?? heartbeat?.cursor ?? checkpoint?.position?.head;
        if (cursor) {
          const back = last !== null && cursor.sequence < last.sequence;
          if (back || cursor.epoch !== (last?.epoch ?? epoch ?? cursor.epoch))
            throw new Fail("resync", "", "a cursor that goes back"); // WATCH-013, -014
          last = cursor;
        }
        if (changes) pending.push(...changes.records.map(this.accept));
        if (!pending.every((r) => helds.some((h) => inside(r.key, h.low, h.high))))
          throw new Malformed("a record outside the watched ranges"); // WATCH-015
        if (cursor) {
          this.store.tx(() => {
            if (this.merge(pending, cursor)) this.unequal.clear(); // somebody wrote (RECON-045)
            for (const h of this.store.held())
              if (!h.cursor || h.cursor.epoch !== cursor.epoch || h.cursor.sequence < cursor.sequence)
                this.store.setCursor(h.low, cursor); // WATCH-011
          });
          pending = [];
        }
        if (checkpoint ?? heartbeat) this.noteTime((checkpoint ?? heartbeat).server_time_ms);
        if (checkpoint) {
          const different = this.compareWith(checkpoint, helds);
          if (different) {
            cancel();
            await this.pushing;
            await this.mend(different);
            return false;
          }
          if (live) {
            this.live = true;
            this.pushBeside(inbox);
          }
        } else if (end) {
          if (end.reason) throw fromEnd(end);
          return true;
        }
      }
    } finally {
      this.live = false;
      cancel();
    }
  }

  /** Pushes what waits without holding up the stream, which may settle it (section 9.7). */
  private pushBeside(inbox: Queue<Heard>): void {
    this.pushing = this.pushing
      .then(() => this.push())
      .catch((error) => {
        inbox.push({ fail: error instanceof Fail ? error : new Fail("retry", "", String(error)) });
      });
  }

  /** The first range whose fingerprint differs (WATCH-023). */
  private compareWith(checkpoint: Msg, helds: Held[]): Held | null {
    const head: Cursor = checkpoint.position.head,
      horizon = this.store.get("horizon", 0n);
    if (checkpoint.position.horizon !== horizon) throw new Fail("resync", "", "another horizon"); // WATCH-025
    if (!this.heals()) return null;
    if (checkpoint.ranges.length !== helds.length) throw new Malformed("a checkpoint of another number of ranges");
    let comparable = true;
    for (const [i, held] of helds.entries()) {
      const newer = this.store
        .allClean(held.low, held.high)
        .some((c) => c.epoch === head.epoch && c.sequence > head.sequence);
      if (newer)
        comparable = false; // the next checkpoint serves
      else if (!fingerprint(this.store.leaves(held.low, held.high, horizon)).equals(checkpoint.ranges[i].fingerprint)) {
        this.verified = false;
        return held;
      } else this.unequal.delete(held.low.toString("hex"));
    }
    this.verified = comparable;
    return null;
  }

  /** Two sessions of Reconcile, then a Snapshot, then a report and a pause (RECON-045, RECON-046). */
  private async mend(range: Held): Promise<void> {
    const name = range.low.toString("hex"),
      times = (this.unequal.get(name) ?? 0) + 1;
    const held = this.store.held().find((h) => h.low.equals(range.low))!;
    this.unequal.set(name, times);
    if (times <= 2) return this.reconcile(held);
    if (times === 3) return this.snapshot(held);
    this.unequal.delete(name);
    this.reports.push("a range that cannot be healed");
    throw new Fail("retry", "", "a range that cannot be healed", 30_000);
  }
}
