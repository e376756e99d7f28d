/** One session with the server (section 9.7): its stages, Hello (chapter 4), and what all of its calls share. */
import { heal, settle } from './heal.js';
import { Push } from './push.js';
import type { Replica } from './replica.js';
import { check, compare, counts, digest, fingerprint, intact, latest, LINEAGES, present } from './rules.js';
import { sequence, toKey, type Key, type Rec, type Standing } from './rules.js';
import type { Clean } from './store.js';
import { watch } from './watch.js';
import { Failure, type Message, type Wire } from './wire.js';

export const CHUNK = 1 << 20; // what one message of the server's is to hold at most
export const historyChanged = () => new Failure('resync', '', 'the history changed');

export class Session {
  private ahead = 0; // the server's time, less the time that passes here
  heals = false; // FEATURE_RECONCILE is in force
  here!: Standing;
  private grants: Key[] = []; // prefixes of the keys that may be written

  constructor(readonly replica: Replica, readonly wire: Wire, readonly store = replica.store) {}

  /** Ends when both sides hold the same or, live, when the server ends the Watch. Throws when it ends early. */
  async run(live: boolean): Promise<void> {
    const push = new Push(this);
    this.scrub();
    const equal = await this.hello(), { here } = this, { cursor, damaged } = this.store.data;
    if (equal) settle(this, { at: here, received: new Map(), lacks: new Set(), wanted: [] }); // HELLO-029
    else if (!cursor || damaged || here.lineage !== LINEAGES[0] || here.behind) await heal(this); // HIST-020
    else this.replica.partial = undefined; // what a Snapshot left is of no use where Watch goes on
    for (let round = 0; round < 4; round++) {
      await push.all();
      if (await watch(this, push, live)) await heal(this);
      else if (live || push.rests) return;
    }
    throw new Error('the two sides do not come to rest');
  }

  /** Damaged content counts as absent, and is fetched again (section 1.7, CLIENT-047). */
  private scrub(): void {
    const { clean, outbox } = this.store.data, damaged = [...clean.values()].filter((r) => !intact(r));
    const lost = [...outbox.values()].filter((w) => !intact(w)); // nobody else has these
    if (damaged.length + lost.length === 0) return;
    this.store.tx(() => {
      for (const r of damaged) clean.delete(r.key);
      for (const w of lost) w.rejected = 'DAMAGED';
      this.store.data.damaged ||= damaged.length > 0;
    });
    this.replica.report(`damaged: ${damaged.length} records, ${lost.length} writes`); // MODEL-025
  }

  /** Answers whether both sides hold the same. */
  private async hello(turns = 3): Promise<boolean> {
    const { store, replica } = this, { horizon } = store.data;
    const a = await this.wire.unary('Hello', {
      ...this.place(), versions: [1], features: ['FEATURE_RECONCILE', 'FEATURE_LIVE'], client: 'gosync-typescript/1.0',
      horizon: String(horizon), fingerprints: [fingerprint(store.covered())],
    });
    check(a.version === 1, 'a version that was not offered'); // HELLO-008
    store.tx(() => (store.data.limits = a.limits ?? {}));
    const writable = a.grants.filter((grant: Message) => grant.access === 'ACCESS_WRITE'); // HELLO-017
    this.grants = writable.map((grant: Message) => toKey(grant.key_prefix));
    this.heals = a.features.includes('FEATURE_RECONCILE');
    this.tell(a);
    const off = Math.abs(this.serverMs - replica.now()) > replica.limit('max_clock_skew_ms') / 2;
    if (off) replica.report('the clock is off'); // CLIENT-021
    this.here = this.standing(a);
    check(turns > 0, 'the horizon keeps changing');
    if (this.here.horizon !== horizon) return this.hello(turns - 1); // HELLO-027
    this.wire.agree(a.version);
    return this.heals && a.equal.length === 1 && a.equal[0];
  }

  /** What each request says of the replica: one range, all keys. A passed newest commit is not sent (PUSH-039). */
  place(): Message {
    const { cursor, newest } = this.store.data;
    const passed = cursor && newest && cursor.epoch === newest.epoch && sequence(cursor) >= sequence(newest);
    const newest_commit = passed ? undefined : newest;
    return { space: this.replica.options.space, held: [{ ranges: [{}], cursor }], newest_commit };
  }

  /** The server's time, as last told. */
  tell = (m: Message) => (this.ahead = Number(m.server_time_ms) - performance.now());
  get serverMs() { return Math.floor(this.ahead + performance.now()); }

  /** The greatest time that is taken from the server (CLOCK-011). */
  private bound = () => latest(Math.max(this.replica.now(), this.serverMs), this.replica.limit('max_clock_skew_ms'));

  /** Reads where an answer says that the replica stands, and forgets old tombstones (HIST-031, HIST-032). */
  standing({ position, held, restore_points: restorePoints }: Message): Standing {
    check(position?.head && held.length === 1, 'an answer without a position or a status'); // HELLO-021
    const { data } = this.store, [{ lineage, mapped_sequence, behind_compaction: behind }] = held;
    const { head } = position, horizon = BigInt(position.horizon), mapped = BigInt(mapped_sequence);
    const s: Standing = { head, horizon, restorePoints, lineage, mapped, behind };
    check(horizon <= this.bound(), 'a horizon in the future'); // SEC-013
    this.store.tx(() => {
      data.horizon = horizon;
      for (const r of [...data.clean.values()].filter((r) => !counts(r, horizon))) {
        if (present(r.point, s)) data.clean.delete(r.key);
        else this.lost(r);
      }
    });
    return s;
  }

  /** Whether the history, the horizon or the status is another (RECON-034, SNAP-016). */
  differs(s: Standing, from: Standing): boolean {
    return s.head.epoch !== from.head.epoch || s.horizon !== from.horizon || s.lineage !== from.lineage
      || s.behind !== from.behind;
  }

  /** A record of the server's, checked as if an attacker had sent it (SEC-011). */
  receive({ key, version, flags, value }: Message): Rec {
    const legal = key.length > 0 && key.length <= 512 && version && flags <= 1 && !(flags && value.length);
    check(legal, 'a malformed record'); // MODEL-004, MODEL-005, MODEL-013 to MODEL-015
    const r = {
      key: toKey(key), time: BigInt(version.time), replica: BigInt(version.replica), tombstone: flags === 1,
      value: Buffer.from(value),
    };
    check(r.time <= this.bound(), 'a record from the future');
    return { ...r, digest: digest(r) };
  }

  /** A clean record that the server lost is offered or, where it may not be, kept aside (HIST-037, HIST-038). */
  lost(r: Clean): void {
    if (this.grants.some((prefix) => r.key.startsWith(prefix))) r.offer = true;
    else this.setAside(r, 'NO_ACCESS');
  }

  /** Of two records under one key the greater stays aside. */
  setAside(r: Clean, reason: string): void {
    const { clean, quarantine } = this.store.data, other = quarantine.get(r.key);
    clean.delete(r.key);
    if (!other || compare(r, other) > 0) quarantine.set(r.key, { ...r, reason });
    this.replica.report(`a record is kept aside: ${reason}`); // HIST-040
  }
}
