/** One session with the server (section 9.7): Hello, healing, Push, Watch, comparing. It throws when it ends early. */
import { Descent, LENGTH } from './reconcile.js';
import { sizeOf, type Replica } from './replica.js';
import { check, compare, counts, digest, fingerprint, fromKey, inside, intact, issue, latest } from './rules.js';
import { present, toKey, type Cursor, type Key, type Point, type Range, type Rec, type Standing } from './rules.js';
import type { Store, Write } from './store.js';
import { Failure, reasonOf, type Message, type Wire } from './wire.js';

/** What a reconciliation found: keys where the server has nothing, its records that lost, what it wants again. */
interface Findings { lacks: Iterable<Key>; theirs: Map<Key, Rec>; wanted: Range[] }
/** A Snapshot, over all of its streams. */
export interface Snapshot { first?: Standing; last?: Key; came: Rec[]; theirs: Map<Key, Rec>; wanted: Range[] }
/** A record of a Push: a write, which has a number, or an offer. */
interface Sent { r: Rec; n?: number; write?: Write }

const LINEAGES = ['LINEAGE_SAME', 'LINEAGE_REWOUND'];
const MENDED = ['CLOCK_SKEW', 'BEHIND_COMPACTION']; // reasons that do not reject a write for good
const CHUNK = 1 << 20; // what one message of the server's is to hold at most
const HEALER = 'FEATURE_RECONCILE';
const ranges = (wanted: Message[]): Range[] =>
  wanted.map(({ start, end }) => ({ start: toKey(start), end: end && toKey(end) }));
const sequence = (point: Point) => BigInt(point.sequence);
const historyChanged = () => new Failure('resync', '', 'the history changed');

export class Session {
  private readonly store: Store;
  private told = { ms: 0, at: 0 }; // the server's time, and when it told it
  private grants: Key[] = []; // prefixes of the keys that may be written
  private hello: Message = {};
  private heals = false; // FEATURE_RECONCILE is in force
  private here!: Standing;
  private atOnce = Infinity; // records of a Push
  private later = new Set<number | Key>(); // writes and offers that this session does not send again
  private restamped = new Set<number>();
  private wrote = false; // an application did, here or elsewhere, since the last comparison

  constructor(private readonly replica: Replica, private readonly wire: Wire, private readonly live: boolean) {
    this.store = replica.store;
  }

  /** Ends when both sides hold the same or, live, when the server ends the Watch. */
  async run(): Promise<void> {
    this.scrub();
    const equal = await this.begin(), { cursor, damaged } = this.store.state, { here } = this;
    if (equal) this.settle(here.head, here, { lacks: [], theirs: new Map(), wanted: [] }); // HELLO-029
    else if (!cursor || damaged || here.lineage !== LINEAGES[0] || here.behind) await this.heal(); // HIST-020
    else this.replica.partial = undefined; // what a Snapshot left is of no use where Watch goes on
    for (let round = 0; round < 4; round++) {
      await this.push();
      if (await this.watch()) await this.heal();
      else if (this.live || (this.next().length === 0 && this.later.size === 0)) return;
    }
    throw new Error('the two sides do not come to rest');
  }

  /** Damaged content counts as absent, and is fetched again (section 1.7, CLIENT-047). */
  private scrub(): void {
    const { store } = this, damaged = [...store.clean.values()].filter((r) => !intact(r));
    const lost = [...store.outbox].filter(([, w]) => !intact(w)); // nobody else has these
    if (damaged.length + lost.length === 0) return;
    store.tx(() => {
      for (const { key } of damaged) store.drop(key);
      for (const [n, w] of lost) store.outbox.set(n, { ...w, rejected: 'DAMAGED' });
      if (damaged.length > 0) store.update({ damaged: true });
    });
    this.replica.report(`damaged: ${damaged.length} records, ${lost.length} writes`); // MODEL-025
  }

  // ---- Hello (chapter 4) ----

  /** Says Hello. Answers whether both sides hold the same. */
  private async begin(): Promise<boolean> {
    for (let turn = 0; turn < 3; turn++) { // again where fingerprints were of another horizon (HELLO-027)
      const { store, replica } = this, { horizon } = store.state;
      const a = this.hello = await this.wire.unary('Hello', {
        ...this.place(), versions: [1], features: [HEALER, 'FEATURE_LIVE'], client: 'gosync-typescript/1.0',
        horizon: String(horizon), fingerprints: [fingerprint(store.covered(horizon))],
      });
      check(a.version === 1, 'a version that was not offered'); // HELLO-008
      store.tx(() => store.update({ limits: a.limits ?? {} }));
      const writable = a.grants.filter((grant: Message) => grant.access === 'ACCESS_WRITE'); // HELLO-017
      this.grants = writable.map((grant: Message) => toKey(grant.key_prefix));
      this.heals = a.features.includes(HEALER);
      this.tell(a);
      const off = Math.abs(this.told.ms - replica.now()) > replica.limit('max_clock_skew_ms') / 2;
      if (off) replica.report('the clock is off'); // CLIENT-021
      this.here = this.standing(a);
      if (this.here.horizon !== horizon) continue;
      this.wire.version = 1;
      return this.heals && a.equal.length === 1 && a.equal[0];
    }
    throw new Error('the horizon keeps changing');
  }

  /** What each request says of the replica: one range, all keys. A passed newest commit is not sent (PUSH-039). */
  private place(): Message {
    const { cursor, newest } = this.store.state;
    const passed = cursor && newest && cursor.epoch === newest.epoch && sequence(cursor) >= sequence(newest);
    const newest_commit = passed ? undefined : newest;
    return { space: this.replica.options.space, held: [{ ranges: [{}], cursor }], newest_commit };
  }

  private tell({ server_time_ms }: Message): void {
    this.told = { ms: Number(server_time_ms), at: performance.now() };
  }

  /** The greatest time that is taken from the server (CLOCK-011). */
  private bound(): bigint {
    const server = this.told.ms + performance.now() - this.told.at;
    return latest(Math.max(this.replica.now(), server), this.replica.limit('max_clock_skew_ms'));
  }

  /** Reads where an answer says that the replica stands, and forgets old tombstones (HIST-031, HIST-032). */
  private standing({ position, held, restore_points: restorePoints }: Message): Standing {
    check(position?.head && held.length === 1, 'an answer without a position or a status'); // HELLO-021
    const { store } = this, [{ lineage, mapped_sequence, behind_compaction: behind }] = held;
    const { head } = position, horizon = BigInt(position.horizon), mapped = BigInt(mapped_sequence);
    const s: Standing = { head, horizon, restorePoints, lineage, mapped, behind };
    check(horizon <= this.bound(), 'a horizon in the future'); // SEC-013
    store.tx(() => {
      for (const r of [...store.clean.values()].filter((r) => !counts(r, horizon))) {
        if (present(store.points.get(r.key)!, s)) store.drop(r.key);
        else if (!store.offers.has(r.key)) this.lost(r);
      }
      if (horizon !== store.state.horizon) store.update({ horizon });
    });
    return s;
  }

  /** Whether the history changed, or the status became worse (RECON-034, SNAP-016). */
  private worse(s: Standing, than: Standing): boolean {
    const rank = (x: Standing) => (LINEAGES.indexOf(x.lineage) + 3) % 3; // SAME 0, REWOUND 1, any other 2
    return s.head.epoch !== than.head.epoch || s.horizon !== than.horizon || rank(s) > rank(than)
      || s.mapped < than.mapped || (s.behind && !than.behind);
  }

  /** A record of the server's, checked as if an attacker had sent it (SEC-011). */
  private receive({ key, version, flags, value }: Message): Rec {
    const legal = key.length > 0 && key.length <= 512 && version && flags <= 1 && !(flags && value.length);
    check(legal, 'a malformed record'); // MODEL-004, MODEL-005, MODEL-013 to MODEL-015
    const r = {
      key: toKey(key), time: BigInt(version.time), replica: BigInt(version.replica), tombstone: flags === 1,
      value: Buffer.from(value),
    };
    check(r.time <= this.bound(), 'a record from the future');
    return { ...r, digest: digest(r) };
  }

  // ---- Healing (chapters 2, 7 and 8) ----

  private async heal(): Promise<void> {
    const { replica } = this;
    replica.healed = true;
    const snapshot = !this.heals || replica.partial || this.store.clean.size === 0 || replica.unequal >= 2; // RECON-045
    await (snapshot ? this.snapshot() : this.reconcile());
  }

  private async reconcile(): Promise<void> {
    const descent = new Descent(), { here } = this, { lacks } = descent;
    const theirs = new Map<Key, Rec>(), wanted: Range[] = [];
    let lowest: Cursor | undefined;
    while (!descent.done) {
      if (descent.stuck) return this.snapshot(); // section 7.10
      const a = await this.wire.unary('Reconcile', {
        ...this.place(), ...descent.next(this.store.covered(here.horizon)), horizon: String(here.horizon),
        salt: String(descent.salt.readBigUInt64BE()), digest_len: LENGTH, max_response_bytes: CHUNK, turns_left: 2,
      });
      const s = this.standing(a), records = a.records.map((m: Message) => this.receive(m));
      if (this.worse(s, here)) throw historyChanged(); // RECON-034
      check(sequence(s.head) >= here.mapped, 'a server that lags'); // RECON-035
      descent.take(a as any, records, s.head);
      wanted.push(...ranges(a.wanted));
      this.gather(records, s.head, theirs);
      if (!lowest || sequence(s.head) < sequence(lowest)) lowest = s.head; // RECON-041
    }
    this.settle(lowest!, here, { lacks, theirs, wanted });
  }

  private async snapshot(): Promise<void> {
    const { replica, store } = this, resumed = replica.partial?.last !== undefined;
    const p: Snapshot = resumed ? replica.partial! : { came: [], theirs: new Map(), wanted: [] };
    const request = { ...this.place(), after_key: resumed ? fromKey(p.last!) : null, max_response_bytes: CHUNK };
    let start: Standing | undefined, complete = false;
    replica.partial = p;
    try {
      for await (const m of this.wire.stream('Snapshot', request, replica.limit('watchdog_ms'))) {
        const content = ['start', 'chunk', 'complete'].includes(m.event);
        check(!content || (!complete && !start === (m.event === 'start')), 'messages out of order');
        if (m.event === 'start') {
          start = this.standing(m.start);
          p.first ??= start;
          check(!this.worse(start, p.first), 'the history changed'); // SNAP-016
          p.wanted.push(...ranges(m.start.wanted));
        } else if (m.event === 'chunk') {
          const records: Rec[] = m.chunk.records.map((r: Message) => this.receive(r));
          for (const r of records) {
            check(p.last === undefined || r.key > p.last, 'records out of order'); // SNAP-023
            p.last = r.key;
          }
          p.came.push(...records);
          this.gather(records, start!.head, p.theirs);
        } else if (m.event === 'complete') {
          check(m.complete.ranges.length === (this.heals ? 1 : 0), 'fingerprints of other ranges');
          const same = !this.heals || resumed || fingerprint(p.came).equals(m.complete.ranges[0].fingerprint);
          check(same, 'a Snapshot that is not what it says'); // SNAP-022
          complete = true;
        } else if (m.event === 'end') {
          this.wire.ended(m.end);
        }
      }
      if (!complete) throw new Failure('retry', '', 'the Snapshot broke off');
    } catch (error) {
      if (!complete || !(error instanceof Failure)) throw error; // else all has come
    }
    const came = new Set(p.came.map((r) => r.key)), lacks = [...store.clean.keys()].filter((key) => !came.has(key));
    this.settle(p.first!.head, p.first!, { ...p, lacks }); // SNAP-017, SNAP-024
  }

  /** Stores what came, and notes where the replica's own record is the greater one (RECON-033, SNAP-032). */
  private gather(records: Rec[], at: Point, theirs: Map<Key, Rec>): void {
    this.store.tx(() => {
      for (const r of records) {
        this.merge(r, at);
        if (compare(this.store.clean.get(r.key)!, r) > 0) theirs.set(r.key, r);
      }
    });
  }

  private merge(r: Rec, at: Point): boolean {
    const news = this.store.merge(r, at);
    if (news) this.replica.verified = false;
    return news;
  }

  /** The end of a reconciliation, in one transaction (RECON-040, SNAP-025). */
  private settle(cursor: Cursor, s: Standing, { lacks, theirs, wanted }: Findings): void {
    const { store, replica } = this, lost = new Set<Key>(theirs.keys());
    const at: Point = { epoch: cursor.epoch, sequence: cursor.sequence };
    const isWanted = (key: Key) => wanted.some((range) => inside(key, range));
    store.tx(() => {
      for (const key of lacks) {
        const old = s.behind && store.clean.get(key)!.time < s.horizon && present(store.points.get(key)!, s);
        if (old && !isWanted(key)) store.drop(key); // HIST-034, MODEL-028
        else lost.add(key);
      }
      for (const key of store.clean.keys()) if (isWanted(key)) lost.add(key); // MODEL-027
      for (const key of lost) {
        const r = store.clean.get(key)!, other = theirs.get(key);
        if (!other || compare(r, other) > 0) this.lost(r, 'NO_ACCESS', other && (() => store.merge(other, cursor)));
      }
      for (const [key, r] of store.clean) {
        if (!lost.has(key) && counts(r, s.horizon)) store.offers.delete(key); // the server has it
        const { epoch, sequence } = store.points.get(key)!, same = epoch === at.epoch && sequence === at.sequence;
        if (!same && !store.offers.has(key)) store.points.set(key, at); // RECON-042
      }
      if (s.behind) for (const [n, w] of [...store.outbox]) this.atHorizon(n, w, s.horizon); // CLIENT-023
      store.update({ cursor, damaged: false });
      if (s.lineage !== LINEAGES[0]) store.update({ newest: undefined }); // PUSH-036
    });
    replica.partial = undefined;
  }

  /** A clean record that the server lost is offered or, where it may not be, kept aside (HIST-037, HIST-038). */
  private lost(r: Rec, reason = 'NO_ACCESS', putOther?: () => void): void {
    const { store } = this, aside = store.quarantine.get(r.key);
    if (reason === 'NO_ACCESS' && this.grants.some((prefix) => r.key.startsWith(prefix))) {
      store.offers.set(r.key, true);
      return;
    }
    store.drop(r.key);
    putOther?.();
    if (!aside || compare(r, aside) > 0) store.quarantine.set(r.key, { ...r, reason });
    this.replica.report(`a record is kept aside: ${reason}`); // HIST-040
  }

  /** An unsent write below the horizon, under whose key nothing stands (section 9.5). */
  private atHorizon(n: number, w: Write, horizon: bigint): void {
    const { store } = this;
    if (w.time >= horizon || w.rejected || store.clean.has(w.key)) return;
    const replaced = store.unsent(w.key).some(([m, later]) => m > n && !later.rejected);
    if (w.tombstone || replaced) store.outbox.delete(n);
    else this.restamp(n, { ...w, inDoubt: w.inDoubt || w.attempted }, horizon); // CLIENT-024
  }

  private restamp(n: number, w: Write, time: bigint): void {
    const r = { ...w, time, replica: this.replica.id, attempted: false };
    this.store.outbox.set(n, { ...r, digest: digest(r) });
  }

  // ---- Push (chapter 5) ----

  private async push(): Promise<void> {
    for (let sent = this.next(); sent.length > 0; sent = this.next()) await this.send(sent);
  }

  /** What is sent next: one batch, or single writes and offers, one for each key (CLIENT-013, CLIENT-014). */
  private next(): Sent[] {
    const { outbox, offers, clean } = this.store, taken = new Set<Key>(), sent: Sent[] = [];
    const most = Math.min(this.replica.limit('max_push_records'), this.atOnce);
    let room = this.replica.limit('max_message_bytes') - 1024; // the rest is for the other fields
    const add = (one: Sent) => {
      const size = sizeOf(one.r), fits = sent.length === 0 || (sent.length < most && size <= room);
      if (fits && !taken.has(one.r.key) && !this.later.has(one.n ?? one.r.key)) sent.push(one), room -= size;
      taken.add(one.r.key); // what comes later under this key waits for it
    };
    for (const [n, write] of outbox) {
      if (write.rejected) continue; // CLIENT-016
      if (write.batch === undefined) {
        add({ r: write, n, write });
        continue;
      }
      const batch = [...outbox].filter(([, w]) => w.batch === write.batch && !w.rejected);
      const free = sent.length === 0 && !batch.some(([m, w]) => taken.has(w.key) || this.later.has(m));
      if (free) return batch.map(([m, w]) => ({ r: w, n: m, write: w }));
      taken.add(write.key);
    }
    for (const key of offers.keys()) add({ r: clean.get(key)! });
    return sent;
  }

  private async send(sent: Sent[]): Promise<void> {
    const { store, replica } = this, atomic = sent[0].write?.batch !== undefined;
    const over = sent.some(({ r }) => r.value.length > replica.limit('max_value_bytes'))
      || sent.reduce((sum, { r }) => sum + sizeOf(r), 1024) > replica.limit('max_message_bytes')
      || sent.length > replica.limit('max_push_records');
    check(sent.every(({ r }) => intact(r)), 'damaged content'); // MODEL-024: the next session looks after it
    store.tx(() => {
      const first = sent.filter(({ write }) => write && !write.attempted); // CLIENT-012
      for (const { n, write } of first) store.outbox.set(n!, { ...write!, attempted: true });
    });
    const records = sent.map(({ r }) => ({
      key: fromKey(r.key), flags: Number(r.tombstone), value: r.value,
      version: { time: String(r.time), replica: String(r.replica) },
    }));
    let a: Message;
    try {
      if (over) throw new Failure('report', 'LIMIT_EXCEEDED', 'over a limit of the last Hello'); // LIMIT-006, LIMIT-009
      a = await this.wire.unary('Push', { ...this.place(), records, atomic });
    } catch (error) {
      const reason = error instanceof Failure ? error.reason : '';
      if (!['MALFORMED', 'LIMIT_EXCEEDED'].includes(reason)) throw error;
      this.atOnce = Math.ceil(sent.length / 2); // so that the record at fault comes to stand alone (section 9.11)
      if (sent.length === 1 || atomic) store.tx(() => sent.forEach((s) => this.reject(s, reason)));
      return;
    }
    const head = a.position?.head, causes: string[] = a.verdicts.map((v: Message) => reasonOf(v.reason));
    check(head && a.verdicts.length === sent.length && a.held.length === 1, 'too few or too many verdicts'); // PUSH-026
    const real = causes.filter((reason) => reason && reason !== 'BATCH_ABORTED');
    const cause = real.find((reason) => MENDED.includes(reason)) ?? real[0]; // of the whole batch
    this.tell(a);
    store.tx(() => {
      sent.forEach((s, i) => this.verdict(s, a.verdicts[i], head.epoch, (atomic && cause) || causes[i] || 'UNKNOWN'));
      const acknowledged = a.verdicts.some((v: Message) => /APPLIED|UNCHANGED/.test(v.outcome));
      if (acknowledged) store.update({ newest: head }); // PUSH-030
    }); // PUSH-028
    this.atOnce *= 2;
    const [{ lineage, behind_compaction }] = a.held, astray = lineage !== LINEAGES[0] || behind_compaction;
    if (astray || causes.includes('BEHIND_COMPACTION')) throw historyChanged(); // PUSH-035
  }

  /** What a verdict means for a write (section 5.5) or an offer (CLIENT-048). */
  private verdict({ r, n, write }: Sent, v: Message, epoch: string, cause: string): void {
    const at = { epoch, sequence: v.sequence }, id = n ?? r.key;
    if (v.outcome === 'OUTCOME_APPLIED' || v.outcome === 'OUTCOME_UNCHANGED') {
      this.merge(r, at); // and the write, or the offer, is settled
      this.wrote ||= write !== undefined;
    } else if (v.outcome === 'OUTCOME_SUPERSEDED') {
      try {
        const winner = this.receive(v.winner ?? { key: '' });
        check(winner.key === r.key && compare(winner, r) > 0, 'a winner that does not win');
        this.merge(winner, at);
        this.replica.report('a write was superseded');
      } catch (error) {
        this.later.add(id);
        this.replica.report((error as Error).message); // CLOCK-011
      }
    } else if (!MENDED.includes(cause)) {
      this.reject({ r, n }, cause);
    } else if (reasonOf(v.reason) === 'CLOCK_SKEW') {
      if (!write || this.restamped.has(n!)) this.later.add(id);
      else if (this.store.outbox.has(n!)) this.restampByServer(n!, write);
    }
  }

  private reject({ r, n }: Sent, reason: string): void {
    const write = this.store.outbox.get(n ?? 0);
    if (write) this.store.outbox.set(n!, { ...write, rejected: reason });
    else if (n === undefined) this.lost(r, `${reason}, said the server`);
  }

  /** A new version for a write that was refused with CLOCK_SKEW, by the server's time (CLIENT-018, CLIENT-019). */
  private restampByServer(n: number, w: Write): void {
    const { store, told } = this, { floor } = store.state, ahead = floor > latest(told.ms, 0);
    const before = store.unsent(w.key).filter(([m]) => m < n).at(-1)?.[1] ?? store.clean.get(w.key);
    const time = issue(told.ms, ahead ? BigInt(told.ms) << 16n : floor, before?.time);
    this.restamped.add(n);
    if (time === undefined) return this.reject({ r: w, n }, 'CLOCK_SKEW');
    this.restamp(n, w, time);
    store.update({ floor: time });
  }

  // ---- Watch (chapter 6) ----

  /** Follows the server, and pushes beside it what the application writes. Says whether the two sides differ. */
  private async watch(): Promise<boolean> {
    const { replica } = this;
    let pushing: Promise<void> | undefined, failure: unknown;
    replica.onWrite = () => {
      const failed = (error: unknown) => ((failure = error), replica.interrupt());
      pushing ??= this.push().catch(failed).finally(() => (pushing = undefined));
    };
    try {
      return await this.follow();
    } finally {
      replica.onWrite = () => {};
      await pushing;
      if (failure) throw failure;
    }
  }

  private async follow(): Promise<boolean> {
    const { replica, store } = this, { epoch } = this.here.head, until_caught_up = !this.live;
    const request = { ...this.place(), max_response_bytes: CHUNK, until_caught_up };
    let pending: Rec[] = [], before = 0n, ended = false;
    const reach = (cursor: Cursor) => {
      if (cursor.epoch !== epoch || sequence(cursor) < before) throw historyChanged(); // WATCH-013, WATCH-014
      before = sequence(cursor);
      store.tx(() => {
        for (const r of pending) if (this.merge(r, cursor)) this.wrote = true;
        if (before > sequence(store.state.cursor!)) store.update({ cursor }); // WATCH-011
      }); // WATCH-009
      if (replica.live && pending.length > 0) replica.options.changed?.(); // WATCH-016
      pending = [];
    };
    for await (const { event, changes, heartbeat, checkpoint, end } of
      this.wire.stream('Watch', request, replica.limit('watchdog_ms'))) {
      if (event === 'changes') {
        pending.push(...changes.records.map((r: Message) => this.receive(r)));
        if (changes.cursor) reach(changes.cursor); // WATCH-010
      } else if (event === 'heartbeat') {
        this.tell(heartbeat);
        if (heartbeat.cursor && pending.length === 0) reach(heartbeat.cursor);
      } else if (event === 'checkpoint') {
        check(checkpoint.position?.head && pending.length === 0, 'a checkpoint within a commit');
        check(checkpoint.ranges.length === (this.heals ? 1 : 0), 'fingerprints of other ranges');
        this.tell(checkpoint);
        this.here = this.standing({ ...this.hello, position: checkpoint.position }); // WATCH-025
        reach(checkpoint.position.head);
        if (this.heals && this.differs(checkpoint)) return true; // WATCH-024
        replica.live = true;
        replica.options.changed?.(); // WATCH-017
      } else if (event === 'end') {
        this.wire.ended(end);
        ended = true;
      }
    }
    check(ended && replica.live, 'the Watch broke off'); // WATCH-038
    return false;
  }

  /** Compares with a checkpoint (WATCH-023), within the bounds of section 9.9. Says whether to heal. */
  private differs({ position: { head }, ranges: [theirs] }: Message): boolean {
    const { store, replica } = this;
    const newer = (p: Point) => p.epoch === head.epoch && sequence(p) > sequence(head);
    if ([...store.points.values()].some(newer)) return false;
    replica.verified = fingerprint(store.covered(this.here.horizon)).equals(theirs.fingerprint);
    if (replica.verified) replica.unequal = 0;
    else if (replica.healed) replica.unequal = this.wrote ? 1 : replica.unequal + 1;
    replica.healed = this.wrote = false;
    if (replica.verified) return false;
    replica.report('the contents differ from the server\'s'); // CLIENT-042
    if (replica.unequal > 2) { // neither two sessions nor a Snapshot helped (RECON-046)
      replica.unequal = 1;
      replica.healAfter = performance.now() + 30_000;
    }
    check(performance.now() >= replica.healAfter, 'the contents cannot be healed at present');
    return true;
  }
}
