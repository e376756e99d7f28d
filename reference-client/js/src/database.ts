import { Replica } from "../wasm/gosync_client.js";
import { Batch, Collection, type Change, type Store } from "./collection.js";
import { Emitter } from "./emitter.js";
import { GoSyncError } from "./errors.js";
import { assertLoaded } from "./init.js";
import { parseStatus, StatusFeed } from "./status.js";
import { Sentinel } from "./storage.js";
import { Tabs, type Message } from "./tabs.js";
import type { OpenOptions, PendingWrite, Status, Verification, Write, WriteResult } from "./types.js";

/** A verdict as the WASM module reports it. */
interface Verdict extends WriteResult {
  /** Of the pending write. */
  id: number;
}

/** Opens, or creates, a store on this device and begins to sync it. Await {@link init} first. */
export async function open(options: OpenOptions): Promise<Database> {
  assertLoaded();
  const url = options.url ?? globalThis.location?.origin;
  if (!url) throw new GoSyncError("invalid", "open() needs a url where there is no page that it could come from");
  if (!options.name) throw new GoSyncError("invalid", "open() needs a name for the store on this device");
  return Database.open({ ...options, url });
}

/** One space, on this device and in sync with its server. */
export class Database {
  /** Everything about syncing that a page may want to show. */
  readonly status: StatusFeed;

  #replica: Replica;
  #tabs: Tabs;
  #changes = new Emitter<string[] | null>();
  #open = true;
  /** Writes of this tab whose verdict is awaited, by the ids of their records. */
  #undecided = new Map<number, (verdict: Verdict) => void>();
  #calls = new Map<number, { resolve: (result: string) => void; reject: (error: GoSyncError) => void }>();
  #lastCall = 0;
  /** Writes are handed to the store one after the other, in the order in which they were made. */
  #writing: Promise<unknown> = Promise.resolve();

  /** @internal Use {@link open}. */
  static async open(options: OpenOptions & { url: string }): Promise<Database> {
    const sentinel = new Sentinel(options.name);
    if (options.persist ?? true) await sentinel.askToPersist();
    const early: [string, string][] = [];
    let deliver = (kind: string, payload: string): void => void early.push([kind, payload]);
    const token = options.auth && (async () => options.auth?.());
    let replica: Replica;
    try {
      replica = await Replica.open(options.name, options.url, options.space, token, (kind: string, payload: string) =>
        deliver(kind, payload),
      );
    } catch (error) {
      throw GoSyncError.from(error);
    }
    const evicted = sentinel.check(replica.isNew());
    const database = new Database(replica, options.name, evicted);
    deliver = (kind, payload) => database.#event(kind, payload);
    for (const [kind, payload] of early) deliver(kind, payload);
    return database;
  }

  private constructor(replica: Replica, name: string, evicted: boolean) {
    this.#replica = replica;
    this.status = new StatusFeed(parseStatus(replica.status()), evicted);
    this.#tabs = new Tabs(
      name,
      lead => this.#lead(lead),
      () => void this.#storeChanged(null),
    );
    this.#tabs.messages.add(message => void this.#receive(message));
    this.#tabs.send({ type: "who", from: this.#tabs.id });
  }

  /** Documents of one kind. */
  collection<T extends object>(name: string): Collection<T> {
    const store: Store = {
      write: changes => this.#write(changes),
      get: (collection, id) => this.#run(() => this.#replica.get(collection, id)),
      list: (collection, prefix) => this.#run(() => this.#replica.list(collection, prefix)),
      changes: this.#changes,
      fail: error => this.status.fail(GoSyncError.from(error)),
    };
    return new Collection<T>(store, name);
  }

  /**
   * Several writes as one: visible together, durable together and pushed together, which the server takes as a whole
   * or not at all.
   *
   * ```ts
   * const moved = db.batch(b => {
   *   b.collection<Todo>("todos").delete("t1");
   *   b.collection<Todo>("archive").put("t1", todo);
   * });
   * await moved.local;
   * ```
   */
  batch(fill: (batch: Batch) => void): Write {
    const batch = new Batch();
    fill(batch);
    return this.#write(batch.changes);
  }

  /** The writes that the server has not acknowledged, oldest first. */
  async pending(): Promise<PendingWrite[]> {
    return JSON.parse(await this.#run(() => this.#replica.pending())) as PendingWrite[];
  }

  /** Sends a rejected write again. */
  async retry(id: number): Promise<void> {
    await this.#run(() => this.#replica.retry(id));
    this.#announce(null);
  }

  /** Withdraws a write that was not acknowledged; what the server holds comes to the fore again. */
  async discard(id: number): Promise<void> {
    await this.#run(() => this.#replica.discard(id));
    this.#announce(null);
  }

  /**
   * Syncs now rather than when the next try is due. Resolves when this device holds what the server holds and every
   * write was answered; rejects with `offline` when the server cannot be reached.
   */
  async sync(): Promise<void> {
    await this.#byLeader("sync");
  }

  /**
   * Hashes every stored record again, compares the whole with the server, mends what differs on either side, and
   * reports. Rejects with `offline` when the server cannot be reached.
   */
  async verify(): Promise<Verification> {
    return JSON.parse(await this.#byLeader("verify")) as Verification;
  }

  /**
   * Closes this tab's use of the store. Writes that were not acknowledged stay on the device and are sent after the
   * next {@link open}; with `discardPending` they are withdrawn.
   */
  async close(options: { discardPending?: boolean } = {}): Promise<void> {
    if (!this.#open) return;
    await this.#writing;
    this.#open = false;
    this.#tabs.close();
    try {
      await this.#replica.close(options.discardPending ?? false);
    } catch (error) {
      throw GoSyncError.from(error);
    } finally {
      this.#changes.clear();
      this.status.close();
      this.#replica.free();
    }
  }

  #write(changes: Change[]): Write {
    const decided = deferred<WriteResult>();
    // Taken now: the caller may change its objects afterwards.
    const text = JSON.stringify(changes);
    const local = this.#writing.then(async () => {
      const ids = await this.#run(() => this.#replica.write(text));
      this.#decide([...ids], decided.resolve);
      this.#announce([...new Set(changes.map(change => change.collection))]);
      this.#tabs.expectLeader();
    });
    this.#writing = local.catch(() => undefined);
    // A write that never became durable never gets a verdict: `local` says why.
    return {
      local,
      server: decided.promise,
      then: (onFulfilled, onRejected) => local.then(onFulfilled, onRejected),
    };
  }

  /** Resolves when there is a verdict for each of the records; the worst one counts. */
  #decide(ids: number[], resolve: (result: WriteResult) => void): void {
    const severity = ["applied", "superseded", "discarded", "rejected"];
    let worst: WriteResult = { status: "applied" };
    let left = ids.length;
    if (left === 0) return resolve(worst);
    for (const id of ids) {
      this.#undecided.set(id, ({ id: _, ...result }) => {
        if (severity.indexOf(result.status) > severity.indexOf(worst.status)) worst = result;
        if (--left === 0) resolve(worst);
      });
    }
  }

  /** Tells the subscriptions of this tab, and the other tabs, that the store holds something new. */
  #announce(collections: string[] | null): void {
    this.#changes.emit(collections);
    this.#tabs.send({ type: "changed", collections });
  }

  /** What the WASM module tells. */
  #event(kind: string, payload: string): void {
    switch (kind) {
      case "changed":
        this.#announce(JSON.parse(payload) as string[] | null);
        break;
      case "verdict":
        this.#verdict(payload);
        this.#tabs.send({ type: "verdict", verdict: payload });
        break;
      case "status":
        this.#showStatus(payload);
        break;
    }
  }

  /** The leading tab knows where syncing stands; the number of pending writes every tab knows by itself. */
  #showStatus(own: string): void {
    const status = parseStatus(own);
    if (this.#tabs.leading) {
      this.status.set(status);
      this.#tabs.send({ type: "status", status: own });
    } else {
      this.status.set({ ...this.status.current, pending: status.pending, rejected: status.rejected });
    }
  }

  #verdict(payload: string): void {
    const verdict = JSON.parse(payload) as Verdict;
    this.#undecided.get(verdict.id)?.(verdict);
    // A rejected write can be retried and then gets another verdict, but its promise is settled already.
    this.#undecided.delete(verdict.id);
  }

  #lead(lead: boolean): void {
    if (!this.#open) return;
    this.#replica.setNetworking(lead);
    if (lead) void this.#storeChanged(null);
  }

  async #storeChanged(collections: string[] | null): Promise<void> {
    if (!this.#open) return;
    try {
      await this.#replica.storeChanged();
    } catch (error) {
      this.status.fail(GoSyncError.from(error));
    }
    this.#changes.emit(collections);
    await this.#askOutcomes();
  }

  /** Verdicts may have come to a tab that closed before it could tell. */
  async #askOutcomes(): Promise<void> {
    const ids = [...this.#undecided.keys()];
    if (ids.length === 0 || !this.#open) return;
    const verdicts = JSON.parse(await this.#replica.outcomes(Float64Array.from(ids))) as Verdict[];
    for (const verdict of verdicts) this.#verdict(JSON.stringify(verdict));
  }

  async #receive(message: Message): Promise<void> {
    switch (message.type) {
      case "changed":
        await this.#storeChanged(message.collections);
        break;
      case "verdict":
        this.#verdict(message.verdict);
        break;
      case "status":
        if (!this.#tabs.leading) this.status.set(parseStatus(message.status));
        break;
      case "who":
        if (this.#tabs.leading) this.#tabs.send({ type: "status", status: this.#replica.status() });
        break;
      case "call":
        if (this.#tabs.leading) await this.#answer(message);
        break;
      case "reply":
        if (message.to === this.#tabs.id) this.#settle(message);
        break;
    }
  }

  /** Runs here when this tab leads, else asks the one that does. */
  async #byLeader(method: "sync" | "verify"): Promise<string> {
    await this.#writing;
    if (this.#tabs.leading) return this.#run(() => this.#leaderOnly(method));
    return new Promise((resolve, reject) => {
      const call = ++this.#lastCall;
      this.#calls.set(call, { resolve, reject });
      this.#tabs.expectLeader();
      this.#tabs.send({ type: "call", from: this.#tabs.id, call, method, args: [] });
    });
  }

  async #leaderOnly(method: string): Promise<string> {
    if (method === "verify") return this.#replica.verify();
    await this.#replica.sync();
    return "";
  }

  async #answer({ from, call, method }: Message & { type: "call" }): Promise<void> {
    try {
      const result = await this.#run(() => this.#leaderOnly(method));
      this.#tabs.send({ type: "reply", to: from, call, result });
    } catch (thrown) {
      const { code, message } = GoSyncError.from(thrown);
      this.#tabs.send({ type: "reply", to: from, call, error: { code, message } });
    }
  }

  #settle({ call, result, error }: Message & { type: "reply" }): void {
    const waiting = this.#calls.get(call);
    this.#calls.delete(call);
    if (error) waiting?.reject(GoSyncError.from(error));
    else waiting?.resolve(result ?? "");
  }

  async #run<R>(work: () => Promise<R>): Promise<R> {
    if (!this.#open) throw new GoSyncError("closed", "this database was closed");
    try {
      return await work();
    } catch (error) {
      throw GoSyncError.from(error);
    }
  }
}

function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>(done => (resolve = done));
  return { promise, resolve };
}
