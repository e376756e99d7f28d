import { Replica } from "../wasm/gosync_client.js";
import { Batch, Collection, type Change, type Store } from "./collection.js";
import { checkBytes, checkFunction, checkId, checkObject, checkOptions, invalid } from "./check.js";
import { Emitter } from "./emitter.js";
import { GoSyncError } from "./errors.js";
import { assertLoaded } from "./init.js";
import { fromHex, placeOf, prefixOf, type Place } from "./keys.js";
import { parseStatus, StatusFeed } from "./status.js";
import { Records, type StoredRecord } from "./records.js";
import { Sentinel } from "./storage.js";
import { Tabs, type Message } from "./tabs.js";
import type { OpenOptions, PendingWrite, QuarantinedRecord, Verification, Write, WriteResult } from "./types.js";

/** What the WASM module tells: see `Replica::open` there. */
type Listener = (kind: "changed" | "status" | "news", said: string, news?: string) => void;

/** {@link PendingWrite} as the WASM module writes it: the key in hex. */
type StoredWrite = Omit<PendingWrite, "key" | keyof Place> & { key: string };

/** Work that only the leading tab can do, and that another tab waits for. */
interface Call {
  method: "sync" | "verify";
  resolve: (result: string) => void;
  reject: (error: GoSyncError) => void;
}

/**
 * Opens, or creates, a store on this device and begins to sync it. Await {@link init} first. Resolves when the store can
 * be read and written, whether there is a server or not.
 *
 * Rejects with `not-initialised`, with `invalid` (an option is wrong, or the store belongs to another space), with
 * `upgrade-required` (a newer version of this package wrote the store), `quota` or `storage`.
 */
export async function open(options: OpenOptions): Promise<Database> {
  assertLoaded();
  return Database.open(checkOptions(options));
}

/** One space, on this device and in sync with its server. */
export class Database {
  /** Everything about syncing that a page may want to show. */
  readonly status: StatusFeed;
  /** Keys and values of bytes, for applications that encrypt, or whose data are no documents. */
  readonly records: Records;

  #replica: Replica;
  #tabs: Tabs;
  #changes = new Emitter<string[] | null>();
  #open = true;
  /** Whether this tab syncs, so that its own status is the one to be shown in all. */
  #syncs = false;
  #closing = new AbortController();
  #calls = new Map<number, Call>();
  #lastCall = 0;
  /** Writes are handed to the store one after the other, in the order in which they were made. */
  #writing: Promise<unknown> = Promise.resolve();

  /** @internal Use {@link open}. */
  static async open(options: OpenOptions & { url: string }): Promise<Database> {
    const sentinel = new Sentinel(options.name);
    if (options.persist ?? true) void sentinel.askToPersist(); // may ask the user, so nothing waits for it
    let database: Database | undefined;
    const listener: Listener = (kind, said, news) => {
      if (database) database.#event(kind, said, news);
    };
    const { name, url, space, auth, ranges, allowPlaintextTokens } = options;
    try {
      const replica = (await Replica.open(
        name,
        url,
        space,
        auth,
        listener,
        ranges?.map(prefixOf),
        allowPlaintextTokens,
      )) as Replica;
      database = new Database(replica, name, sentinel.check(replica.isNew()));
      return database;
    } catch (error) {
      throw GoSyncError.from(error);
    }
  }

  private constructor(replica: Replica, name: string, evicted: boolean) {
    this.#replica = replica;
    this.status = new StatusFeed(parseStatus(replica.status()).status, evicted);
    this.records = new Records({
      write: collect =>
        this.#write(() => {
          const changes = collect();
          return () => replica.writeRecords(changes);
        }),
      get: key => this.#run(() => replica.getRecord(key)) as Promise<StoredRecord | undefined>,
      list: prefix => this.#run(() => replica.records(prefix)) as Promise<StoredRecord[]>,
      changes: this.#changes,
      fail: error => this.status.fail(GoSyncError.from(error)),
    });
    this.#tabs = new Tabs(
      name,
      lead => this.#lead(lead),
      () => this.#hear(null),
    );
    this.#tabs.messages.add(message => this.#receive(message));
    this.#tabs.start();
    this.#tabs.send({ type: "who", from: this.#tabs.id });
    // What the browser knows of the network spares waiting for the next try.
    const { signal } = this.#closing;
    globalThis.addEventListener?.("online", () => this.#tryAgain(), { signal });
    globalThis.document?.addEventListener("visibilitychange", () => this.#tryAgain(), { signal });
  }

  /** Documents of one kind. */
  collection<T extends object>(name: string): Collection<T> {
    const store: Store = {
      write: collect => this.#writeAll(collect),
      get: (collection, id) => this.#run(() => this.#replica.get(collection, id)) as Promise<string | undefined>,
      list: (collection, prefix) => this.#run(() => this.#replica.list(collection, prefix)) as Promise<string>,
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
    return this.#writeAll(() => {
      checkFunction(fill, "what fills a batch");
      const batch = new Batch();
      fill(batch);
      return batch.changes;
    });
  }

  /** The writes that the server has not acknowledged, the rejected ones among them, oldest first. */
  async pending(): Promise<PendingWrite[]> {
    const stored = (await this.#run(() => this.#replica.pending())) as string;
    return (JSON.parse(stored) as StoredWrite[]).map(write => {
      const key = fromHex(write.key);
      return { ...write, key, ...placeOf(key) };
    });
  }

  /**
   * Sends a rejected write again, with the other writes of its batch: after the user signed in with more rights, for
   * instance, or something was deleted from a space that was full. A write that waits already goes on waiting.
   *
   * Rejects with `not-found` when no such write is pending: it was acknowledged or withdrawn meanwhile.
   */
  async retry(id: number): Promise<void> {
    checkId(id);
    await this.#run(() => this.#replica.retry(id));
  }

  /**
   * Withdraws a write that was not acknowledged, with the other writes of its batch; what the server holds comes to the
   * fore again. If it was already sent, it may have reached the server all the same, and then comes back.
   *
   * Rejects with `not-found` when no such write is pending: it was acknowledged, or withdrawn by itself or with another
   * write of its batch.
   */
  async discard(id: number): Promise<void> {
    checkId(id);
    await this.#run(() => this.#replica.discard(id));
  }

  /** The records that the server lost and that this device may not write back, in the order of their keys. */
  async quarantined(): Promise<QuarantinedRecord[]> {
    const records = (await this.#run(() => this.#replica.quarantined())) as Omit<QuarantinedRecord, keyof Place>[];
    return records.map(record => ({ ...record, ...placeOf(record.key) }));
  }

  /**
   * Has a quarantined record offered to the server again, as it was: after the user signed in with more rights, for
   * instance. From then on it is a pending write; refused again, a rejected one.
   *
   * `local` rejects with `not-found` where no record is in quarantine under the key.
   */
  offerAgain(key: Uint8Array): Write {
    return this.#write(() => {
      checkBytes(key, "the key");
      const copy = key.slice();
      return () => this.#replica.offerAgain(copy);
    });
  }

  /**
   * Gives a quarantined record up: this device may be the last that has it. Rejects with `not-found` where no record is
   * in quarantine under the key.
   */
  async dropQuarantined(key: Uint8Array): Promise<void> {
    checkBytes(key, "the key");
    await this.#run(() => this.#replica.dropQuarantined(key));
  }

  /**
   * Syncs now rather than when the next try is due. Resolves when this device holds what the server holds and every
   * write was answered.
   *
   * Rejects with `offline` when the server cannot be reached, with `needs-auth`, `upgrade-required` or `storage` where
   * the status says so; `reason` is the server's.
   */
  async sync(): Promise<void> {
    await this.#byLeader("sync");
  }

  /**
   * Hashes every stored record again, compares the whole with the server, mends what differs on either side, and
   * reports. Rejects as {@link Database.sync} does; damage that was found by then is mended when the server is back.
   */
  async verify(): Promise<Verification> {
    return JSON.parse(await this.#byLeader("verify")) as Verification;
  }

  /**
   * Closes this tab's use of the store. Writes that were not acknowledged stay on the device and are sent after the
   * next {@link open}; with `discardPending` they are withdrawn.
   */
  async close(options: { discardPending?: boolean } = {}): Promise<void> {
    checkObject(options, "the options of close()");
    const { discardPending = false } = options;
    // whatever else counts as true would lose writes
    if (typeof discardPending !== "boolean") throw invalid("discardPending is true or false");
    if (!this.#open) return;
    await this.#writing;
    this.#open = false;
    this.#closing.abort();
    try {
      await this.#replica.close(discardPending);
    } catch (error) {
      throw GoSyncError.from(error);
    } finally {
      this.#tabs.send({ type: "news", news: null, collections: null });
      this.#tabs.send({ type: "gone" });
      this.#tabs.close(); // lets another tab talk to the server, now that this one no longer does
      this.#changes.clear();
      this.status.close();
      this.#replica.free();
      for (const { reject } of this.#calls.values()) reject(new GoSyncError("closed", "this database was closed"));
    }
  }

  #writeAll(collect: () => Change[]): Write {
    return this.#write(() => {
      const text = `[${collect().join()}]`;
      return () => this.#replica.write(text);
    });
  }

  /**
   * Queues a write. What prepares it looks at the arguments at once, since their owner may change them afterwards, and
   * returns what hands them to the store. What it finds wrong with them is the write's error.
   */
  #write(prepare: () => () => Promise<unknown>): Write {
    let write: () => Promise<unknown>;
    try {
      write = prepare();
    } catch (error) {
      if (!(error instanceof GoSyncError)) throw error; // the application's own, from a batch that it fills
      write = () => Promise.reject(error);
    }
    const durable = this.#writing.then(() => this.#run(write)) as Promise<{
      server: Promise<string>;
    }>;
    this.#writing = durable.catch(() => undefined);
    const local = durable.then(() => this.#tabs.expectLeader());
    const server = durable.then(async ({ server }) => {
      try {
        return JSON.parse(await server) as WriteResult;
      } catch (error) {
        throw GoSyncError.from(error);
      }
    });
    server.catch(() => undefined); // who does not ask for the verdict need not handle its absence
    return {
      local,
      server,
      then: (onFulfilled, onRejected) => local.then(onFulfilled, onRejected),
    };
  }

  /** What the WASM module tells. */
  #event(kind: Parameters<Listener>[0], said: string, news: string | undefined): void {
    if (kind === "status") return this.#showStatus(said);
    const collections = kind === "changed" ? (JSON.parse(said) as string[] | null) : [];
    this.#changes.emit(collections);
    if (news !== undefined) this.#tabs.send({ type: "news", news, collections });
  }

  /** The tab that syncs knows where that stands; what waits every tab knows by itself. */
  #showStatus(own: string): void {
    const { status, switchedOff } = parseStatus(own);
    const synced = this.#syncs;
    this.#syncs = this.#tabs.leading && !switchedOff;
    if (this.#syncs) {
      this.status.set(status);
      this.#tabs.send({ type: "status", status: own });
    } else {
      const { pending, rejected, inDoubt, quarantined } = status;
      this.status.set({ ...this.status.current, pending, rejected, inDoubt, quarantined });
      if (synced) this.#tabs.send({ type: "who", from: this.#tabs.id });
    }
  }

  #tryAgain(): void {
    const waiting = this.status.current.state === "offline" && globalThis.document?.visibilityState !== "hidden";
    if (this.#open && waiting && this.#tabs.leading) this.#replica.setNetworking(true);
    if (waiting) this.#tabs.expectLeader();
  }

  #lead(lead: boolean): void {
    if (!this.#open) return;
    this.#replica.setNetworking(lead);
    if (!lead) return;
    this.#hear(null);
    this.#tabs.send({ type: "leading" });
    for (const [id, { method, resolve, reject }] of this.#calls) {
      this.#calls.delete(id);
      this.#leaderOnly(method).then(resolve, reject);
    }
  }

  /** What another tab did; null: it may have done anything. */
  #hear(news: string | null, collections: string[] | null = null): void {
    if (!this.#open) return;
    this.#replica.hear(news);
    this.#changes.emit(collections);
  }

  #receive(message: Message): void {
    switch (message.type) {
      case "news":
        this.#hear(message.news, message.collections);
        break;
      case "status":
        if (!this.#syncs) this.status.set(parseStatus(message.status).status);
        break;
      case "gone":
        if (this.#open && this.#tabs.unelected) this.#replica.takeOver();
        break;
      case "who":
        if (this.#syncs) this.#tabs.send({ type: "status", status: this.#replica.status() });
        break;
      case "leading": // the leader that was asked before may have gone without an answer
        for (const [call, { method }] of this.#calls) this.#ask(call, method);
        break;
      case "call":
        if (this.#tabs.leading) void this.#answer(message);
        break;
      case "reply":
        if (message.to === this.#tabs.id) this.#settle(message);
        break;
    }
  }

  /** Runs here when this tab leads, else asks the one that does. */
  async #byLeader(method: Call["method"]): Promise<string> {
    await this.#writing;
    if (this.#tabs.leading) return this.#leaderOnly(method);
    return new Promise((resolve, reject) => {
      const call = ++this.#lastCall;
      this.#calls.set(call, { method, resolve, reject });
      this.#tabs.expectLeader();
      this.#ask(call, method);
    });
  }

  #ask(call: number, method: Call["method"]): void {
    this.#tabs.send({ type: "call", from: this.#tabs.id, call, method });
  }

  async #leaderOnly(method: Call["method"]): Promise<string> {
    if (this.#open && this.#tabs.unelected) this.#replica.takeOver();
    try {
      return ((await this.#run(() => this.#replica[method]())) as string | undefined) ?? "";
    } finally {
      // whoever waited for it sees the status that it led to
      if (this.#open) this.#showStatus(this.#replica.status());
    }
  }

  async #answer({ from, call, method }: Message & { type: "call" }): Promise<void> {
    try {
      const result = await this.#leaderOnly(method);
      this.#tabs.send({ type: "reply", to: from, call, result });
    } catch (thrown) {
      const { code, message, reason } = GoSyncError.from(thrown);
      this.#tabs.send({ type: "reply", to: from, call, error: { code, message, ...(reason && { reason }) } });
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
