import { checkBytes, checkFunction, checkObject, subscription } from "./check.js";
import type { Emitter } from "./emitter.js";
import { live } from "./live.js";
import type { Unsubscribe, Write } from "./types.js";

/** A record as the store gives it. */
export interface StoredRecord {
  key: Uint8Array;
  value: Uint8Array;
  /**
   * When it was written: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16. Of two writes of a key
   * the one with the newer time wins, and at the same time the one with the greater writer.
   */
  time: bigint;
  /** Which opening of a store wrote it: a random number. */
  writer: bigint;
  /** Whether it waits to be acknowledged by the server. */
  pending: boolean;
  /** Whether the server refused it: see {@link Database.pending} for why. */
  rejected: boolean;
}

/** A change of one record, as the WASM module takes it: without a value it deletes. */
export type RecordChange = [key: Uint8Array, value?: Uint8Array];

/** What {@link Records} need of their database. */
export interface RecordStore {
  /** Takes what is collected at once. */
  write(collect: () => RecordChange[]): Write;
  get(key: Uint8Array): Promise<StoredRecord | undefined>;
  list(prefix: Uint8Array): Promise<StoredRecord[]>;
  /** Emits when something was written here or elsewhere. */
  readonly changes: Emitter<string[] | null>;
  /** Errors of background reads. */
  fail(error: unknown): void;
}

/**
 * The records themselves: a value of up to 1 MiB under a key of 1 to 512 bytes, both of the application's own making.
 * For applications that encrypt what they store, or whose data are no documents. Of two writes of a key the newer one
 * wins, as a whole.
 *
 * A {@link Collection} is made of records too, with keys like `collection NUL id NUL field`; records with other keys
 * are in no collection, and the two do not get in each other's way.
 */
export class Records {
  #store: RecordStore;

  /** @internal Use {@link Database.records}. */
  constructor(store: RecordStore) {
    this.#store = store;
  }

  /** Sets the value under the key. */
  put(key: Uint8Array, value: Uint8Array): Write {
    return this.batch(b => b.put(key, value));
  }

  /** Deletes what is under the key, whether there is anything or not. */
  delete(key: Uint8Array): Write {
    return this.batch(b => b.delete(key));
  }

  /**
   * Several writes as one: visible together, durable together and pushed together, which the server takes as a whole or
   * not at all. Of two writes of a key the later one counts.
   */
  batch(fill: (batch: RecordBatch) => void): Write {
    return this.#store.write(() => {
      checkFunction(fill, "what fills a batch");
      const batch = new RecordBatch();
      fill(batch);
      return batch.changes;
    });
  }

  /** The record, or undefined where there is none. Never waits for the network. */
  async get(key: Uint8Array): Promise<StoredRecord | undefined> {
    checkBytes(key, "the key");
    return this.#store.get(key);
  }

  /** The records whose key begins with the prefix, in the order of their keys' bytes. Never waits for the network. */
  async list(options: { prefix?: Uint8Array } = {}): Promise<StoredRecord[]> {
    return this.#store.list(prefixOf(options));
  }

  /**
   * Calls back with the records as they are now, and again after each change, whether made here, in another tab or
   * elsewhere.
   */
  subscribe(listener: (records: StoredRecord[]) => void): Unsubscribe;
  subscribe(options: { prefix?: Uint8Array }, listener: (records: StoredRecord[]) => void): Unsubscribe;
  subscribe(
    ...args:
      | [(records: StoredRecord[]) => void]
      | [{ prefix?: Uint8Array }, (records: StoredRecord[]) => void]
  ): Unsubscribe {
    const [options, listener] = subscription(args);
    const prefix = prefixOf(options);
    const { changes } = this.#store;
    const query = {
      read: () => this.#store.list(prefix),
      same,
      changes,
      concerns: () => true,
      fail: (error: unknown) => this.#store.fail(error),
    };
    return live(query, listener);
  }
}

/** Collects the writes of one {@link Records.batch}. */
export class RecordBatch {
  /** @internal */
  readonly changes: RecordChange[] = [];

  /** Sets the value under the key. */
  put(key: Uint8Array, value: Uint8Array): void {
    checkBytes(key, "the key");
    checkBytes(value, "the value");
    // Taken now: the caller may change its bytes afterwards.
    this.changes.push([key.slice(), value.slice()]);
  }

  /** Deletes what is under the key. */
  delete(key: Uint8Array): void {
    checkBytes(key, "the key");
    this.changes.push([key.slice()]);
  }
}

function prefixOf(options: { prefix?: Uint8Array }): Uint8Array {
  checkObject(options, "the options of a list");
  const { prefix = new Uint8Array() } = options;
  checkBytes(prefix, "the prefix of keys");
  return prefix;
}

/** A version stands for its value, so that values need not be compared. */
function same(last: StoredRecord[], next: StoredRecord[]): boolean {
  const names = ["time", "writer", "pending", "rejected"] as const;
  return (
    last.length === next.length &&
    last.every((a, i) => {
      const b = next[i];
      return b !== undefined && names.every(name => a[name] === b[name]) && equal(a.key, b.key);
    })
  );
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
