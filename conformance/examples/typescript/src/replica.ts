/** A replica: what an application sees of it, and how it keeps trying (chapter 9). */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { byKey, digest, intact, issue, type Key, type Rec } from './rules.js';
import { Session, type Snapshot } from './session.js';
import { Store, type Write } from './store.js';
import { Failure, Wire } from './wire.js';

/** Default and floor of the limits that a replica needs (section 13.1). */
const LIMITS: Record<string, [number, number]> = {
  max_message_bytes: [4_194_304, 1_048_576], max_value_bytes: [1_048_576, 65_536], max_push_records: [5_000, 100],
  max_clock_skew_ms: [300_000, 1_000], watchdog_ms: [45_000, 300],
};
/** Bytes of a record in a Push, at most. */
export const sizeOf = (r: { key: Key; value?: Buffer }) => r.key.length + (r.value?.length ?? 0) + 64;

export interface Options {
  file: string;
  url: string;
  space: string;
  /** Asked for a token at the start, and once when one was refused. */
  token?: () => string | undefined;
  now?: () => number;
  /** Told what a user or operator may want to know. */
  report?: (what: string) => void;
  /** Told when others changed what the application sees. */
  changed?: () => void;
}

/** A write was refused, by the reason of the protocol where one fits. */
export class WriteRefused extends Error {
  constructor(readonly reason: string, detail: string) { super(detail); }
}

export class Replica {
  readonly id = randomBytes(8).readBigUInt64BE(); // CLOCK-001
  readonly store: Store;
  readonly now: () => number;
  /** Whether the last comparison with the server was equal, and no clean record changed since. */
  verified = false;
  /** Whether the server was followed up to its first checkpoint, and is followed still. */
  live = false;
  onWrite = () => {}; // set by the session that wants to know
  // What one session leaves to the next: a Snapshot that broke off; whether a healing waits to be compared, how many
  // in a row ended unequal, and until when none begins (section 9.9); until when the server wants no call.
  partial?: Snapshot;
  healed = false;
  unequal = 0;
  healAfter = 0;
  private readonly pause = { until: 0 };
  private session = new AbortController();
  private running: Promise<void> = Promise.resolve();
  private stopping = false;
  private online = true;
  private token?: string;
  private refusal?: Failure; // why the token is not to be used again

  constructor(readonly options: Options) {
    this.store = new Store(options.file);
    this.now = options.now ?? Date.now;
    this.token = options.token?.();
  }

  report = (what: string) => this.options.report?.(what);
  /** A limit of the last Hello (LIMIT-007). */
  limit = (name: string) => Math.max(Number(this.store.state.limits[name] ?? LIMITS[name][0]), LIMITS[name][1]);

  put = (key: Key, value: Buffer) => this.batch([{ key, value }]);
  delete = (key: Key) => this.batch([{ key }]);

  /** Writes, all or nothing, and durably. Without a value: a tombstone. Of two writes of one key the later counts. */
  batch(entries: { key: Key; value?: Buffer }[]): void {
    const { store } = this, last = [...new Map(entries.map((e) => [e.key, e])).values()];
    if (last.some((e) => e.key === '')) throw new WriteRefused('MALFORMED', 'an empty key'); // MODEL-004
    const over = last.some((e) => e.key.length > 512 || (e.value?.length ?? 0) > this.limit('max_value_bytes'))
      || last.length > this.limit('max_push_records')
      || last.reduce((sum, e) => sum + sizeOf(e), 1024) > this.limit('max_message_bytes');
    if (over) throw new WriteRefused('LIMIT_EXCEEDED', 'too large or too many'); // LIMIT-008, PUSH-025
    store.tx(() => {
      let { floor, next } = store.state;
      const batch = last.length > 1 ? next : undefined;
      for (const { key, value } of last) {
        const time = issue(this.now(), floor, store.shown(key)?.time);
        if (time === undefined) throw new WriteRefused('', 'no time is left for this key'); // CLOCK-004
        const r = { key, time, replica: this.id, tombstone: !value, value: value ?? Buffer.alloc(0) };
        const [n, old] = store.unsent(key).at(-1) ?? [];
        if (old && !old.attempted && !old.rejected && !old.batch) store.outbox.delete(n!); // never sent (PUSH-005)
        store.outbox.set(next++, { ...r, digest: digest(r), batch, attempted: false, inDoubt: false });
        floor = time;
      }
      store.update({ floor, next }); // CLOCK-003
    });
    this.onWrite();
  }

  /** Gives writes up (CLIENT-011). The server may have got one that was attempted; then it comes back. */
  discard(key: Key): void {
    this.store.tx(() => this.store.unsent(key).forEach(([n]) => this.store.outbox.delete(n)));
  }

  /** Has rejected writes sent again. */
  retry(key: Key): void {
    const { store } = this;
    store.tx(() => store.unsent(key).forEach(([n, w]) => store.outbox.set(n, { ...w, rejected: undefined })));
    this.onWrite();
  }

  /** What the application sees, in key order. */
  entries(): Rec[] {
    const { clean, outbox, quarantine } = this.store;
    const keys = new Set([...[...outbox.values()].map((w) => w.key), ...clean.keys(), ...quarantine.keys()]);
    return [...keys].map((key) => this.store.shown(key)!).filter((r) => !r.tombstone && intact(r)).sort(byKey);
  }

  /** Writes that have no verdict yet, and those that were rejected, in order (CLIENT-010). */
  pending = (): Write[] => [...this.store.outbox.values()];
  /** Live, and nothing waits to be sent. */
  idle = () => this.live && this.store.offers.size === 0 && this.pending().every((w) => w.rejected);

  setOnline(online: boolean): void {
    this.online = online;
    this.session.abort();
  }

  /** Ends the session that is under way; the next one begins after a delay. */
  interrupt = () => this.session.abort();

  stop = () => {
    this.stopping = true;
    this.session.abort();
  };

  async close(): Promise<void> {
    this.stop();
    await this.running.catch(() => {});
    this.store.close();
  }

  /** Synchronises until both sides hold the same or, live, for ever. Throws when time is up or only others can help. */
  sync(timeoutMs?: number, live = false): Promise<void> {
    const timer = timeoutMs === undefined ? undefined : setTimeout(this.stop, timeoutMs);
    this.stopping = false;
    return (this.running = this.run(live).finally(() => clearTimeout(timer)));
  }

  private async run(live: boolean): Promise<void> {
    let delay = 250, resynced = -Infinity, refused = false, last = new Failure('retry', '', 'no answer in time');
    for (;;) {
      if (this.refusal) this.token = this.options.token?.(); // CLIENT-038
      if (this.refusal && !this.token) throw this.refusal;
      this.refusal = undefined;
      this.session = new AbortController();
      const { signal } = this.session, wire = new Wire(this.options.url, this.token, signal, this.pause);
      try {
        if (!this.online) throw new Failure('retry', '', 'offline');
        await new Session(this, wire, live).run();
        if (!live) return;
      } catch (error) {
        if (signal.aborted || error instanceof Failure) this.healed = false; // cut short: no healing that counts
        else this.partial = undefined; // what the server got wrong begins anew (SNAP-022)
        if (this.stopping) throw last;
        last = error instanceof Failure ? error : new Failure('retry', '', (error as Error).message);
        this.report(last.message);
      } finally {
        if (this.live) delay = 250; // CLIENT-036
        if (wire.version) refused = false; // the token was good for a Hello
        this.live = false;
        wire.close();
      }
      if (['no-access', 'upgrade', 'stop'].includes(last.action)) throw last;
      if (last.action === 'authenticate') {
        this.refusal = last;
        if (refused) throw last; // CLIENT-039
        refused = true;
        continue;
      }
      if (last.action === 'resync') {
        const again = performance.now() - resynced < 60_000;
        resynced = performance.now();
        if (!again) continue;
      }
      const least = Math.max(delay, this.pause.until - Date.now());
      await sleep(least * (1 + Math.random()), undefined, { signal }).catch(() => {}); // CLIENT-032 to CLIENT-034
      if (this.stopping) throw last;
      delay = Math.min(delay * 2, 15_000);
    }
  }
}
