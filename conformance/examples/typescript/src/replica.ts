/** A replica: what an application sees of it, and how it keeps trying (chapter 9). */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Findings } from './heal.js';
import { byKey, digest, fingerprint, intact, issue, type Key, type Rec } from './rules.js';
import { Session } from './session.js';
import { Store, type Write } from './store.js';
import { Failure, Wire } from './wire.js';

/** Default, floor and ceiling of the limits that a replica needs (section 13.1). */
const LIMITS: Record<string, [number, number, number?]> = {
  max_message_bytes: [4_194_304, 1_048_576], max_value_bytes: [1_048_576, 65_536, 16 << 20],
  max_push_records: [5_000, 100], max_clock_skew_ms: [300_000, 1_000], watchdog_ms: [45_000, 300],
};

export interface Options {
  file: string;
  url: string;
  space: string;
  token?: () => string | undefined; // asked at the start, and once when a token was refused
  now?: () => number;
  report?: (what: string) => void; // told what a user or operator may want to know
  changed?: () => void; // told when others changed what the application sees
}

/** A record that is written; without a value it is deleted. */
export interface Entry { key: Key; value?: Buffer }

/** A write was refused, by the reason of the protocol where one fits. */
export class WriteRefused extends Error {
  constructor(readonly reason: string, detail: string) { super(detail); }
}

export class Replica {
  readonly id = randomBytes(8).readBigUInt64BE(); // CLOCK-001
  readonly store: Store;
  readonly now: () => number;
  proof?: Buffer; // the server's fingerprint when the two sides were last compared
  /** Whether the server was followed up to its first checkpoint, and is followed still. */
  live = false;
  onWrite = () => {}; // set by the session that wants to know
  // What one session leaves to the next: a Snapshot that broke off; how many healings there were since the two sides
  // were equal or an application wrote; and until when none begins (section 9.9).
  partial?: Findings;
  inVain = 0;
  healAfter = 0;
  private readonly pause = { until: 0 }; // until when the server wants no call
  private token?: string;
  private refusal?: Failure; // why the token is not to be used again

  constructor(readonly options: Options) {
    this.store = new Store(options.file);
    this.now = options.now ?? Date.now;
    this.token = options.token?.();
  }

  /** Whether the last comparison with the server was equal, and no clean record changed since (WATCH-026). */
  get verified() { return this.proof?.equals(fingerprint(this.store.covered())) ?? false; }
  close = () => this.store.close();
  report = (what: string) => this.options.report?.(what);

  /** A limit of the last Hello (LIMIT-007, LIMIT-016). */
  limit = (name: string, [usual, floor, ceiling = Infinity] = LIMITS[name]) =>
    Math.min(Math.max(Number(this.store.data.limits[name] ?? usual), floor), ceiling);

  /** Whether one Push may hold these. */
  fits(entries: Entry[]): boolean {
    const sizes = entries.map((e) => e.value?.length ?? 0);
    const total = entries.reduce((sum, e, i) => sum + e.key.length + sizes[i] + 64, 1024);
    return entries.length <= this.limit('max_push_records') && total <= this.limit('max_message_bytes')
      && sizes.every((size) => size <= this.limit('max_value_bytes')) && entries.every((e) => e.key.length <= 512);
  }

  /** Writes, all or nothing, and durably. Of two entries with one key the later counts. */
  write(...entries: Entry[]): void {
    const { store } = this, { data } = store, last = [...new Map(entries.map((e) => [e.key, e])).values()];
    if (last.some((e) => e.key === '')) throw new WriteRefused('MALFORMED', 'an empty key'); // MODEL-004
    if (!this.fits(last)) throw new WriteRefused('LIMIT_EXCEEDED', 'too large or too many'); // LIMIT-008, PUSH-025
    store.tx(() => {
      const batch = last.length > 1 ? data.next : undefined;
      for (const { key, value } of last) {
        const time = issue(this.now(), data.floor, store.shown(key)?.time);
        if (time === undefined) throw new WriteRefused('', 'no time is left for this key'); // CLOCK-004
        const r = { key, time, replica: this.id, tombstone: !value, value: value ?? Buffer.alloc(0) };
        const old = store.unsent(key).at(-1);
        if (old && !old.attempted && !old.rejected && !old.batch) data.outbox.delete(old.number); // PUSH-005
        data.outbox.set(data.next, { ...r, digest: digest(r), batch, number: data.next });
        data.next++;
        data.floor = time; // CLOCK-003
      }
    });
    this.onWrite();
  }

  /** Gives writes up (CLIENT-011). The server may have got one that was attempted; then it comes back. */
  discard(key: Key): void {
    this.store.tx(() => this.store.unsent(key).forEach((w) => this.store.data.outbox.delete(w.number)));
  }

  /** Has rejected writes sent again (CLIENT-051). */
  retry(key: Key): void {
    this.store.tx(() => this.store.unsent(key).forEach((w) => (w.rejected = undefined)));
    this.onWrite();
  }

  /** What the application sees, in key order. */
  entries(): Rec[] {
    const { clean, outbox, quarantine } = this.store.data;
    const keys = new Set([...[...outbox.values()].map((w) => w.key), ...clean.keys(), ...quarantine.keys()]);
    return [...keys].map((key) => this.store.shown(key)!).filter((r) => !r.tombstone && intact(r)).sort(byKey);
  }

  /** Writes that have no verdict yet, and those that were rejected, in order (CLIENT-010). */
  pending = (): Write[] => [...this.store.data.outbox.values()];

  /** Synchronises until both sides hold the same or, live, until aborted. Throws when only others can help. */
  async sync(signal: AbortSignal, live = false): Promise<void> {
    let delay = 250, resynced = -Infinity, refused = false, last = new Failure('retry', '', 'no answer in time');
    for (;;) {
      if (this.refusal) this.token = this.options.token?.(); // CLIENT-038
      if (this.refusal && !this.token) throw this.refusal;
      this.refusal = undefined;
      const wire = new Wire(this.options.url, this.token, signal, this.pause), failure = await this.attempt(wire, live);
      if (this.live) delay = 250; // CLIENT-036
      if (wire.agreed) refused = false; // the token was good for a Hello
      this.live = false;
      if (!failure) return;
      if (signal.aborted) throw last;
      last = failure;
      this.report(last.message);
      if (['no-access', 'upgrade', 'stop'].includes(last.action)) throw last;
      if (last.action === 'authenticate') {
        this.refusal = last;
        if (refused) throw last; // CLIENT-039
        refused = true;
        continue;
      }
      const again = performance.now() - resynced < 60_000;
      if (last.action === 'resync') resynced = performance.now();
      if (last.action === 'resync' && !again) continue;
      const least = Math.max(delay, this.pause.until - Date.now());
      await sleep(least * (1 + Math.random()), undefined, { signal }).catch(() => {}); // CLIENT-032 to CLIENT-034
      delay = Math.min(delay * 2, 15_000);
    }
  }

  private async attempt(wire: Wire, live: boolean): Promise<Failure | undefined> {
    try {
      await new Session(this, wire).run(live);
      return live ? new Failure('retry', '', 'the server ended the Watch') : undefined;
    } catch (error) {
      if (error instanceof Failure) return error;
      if (!wire.signal.aborted) this.partial = undefined; // what the server got wrong begins anew (SNAP-022)
      return new Failure('retry', '', (error as Error).message);
    } finally {
      wire.close();
    }
  }
}
