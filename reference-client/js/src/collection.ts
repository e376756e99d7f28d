import { checkObject, checkText, subscription } from "./check.js";
import type { Emitter } from "./emitter.js";
import { fieldsOf } from "./fields.js";
import { live } from "./live.js";
import type { Row, Unsubscribe, Write } from "./types.js";

/** One change of a batch, as the text of the JSON that the WASM module takes. */
export type Change = string;

/** What the WASM module gives for a document. */
interface StoredRow {
  id: string;
  pending: boolean;
  rejected: boolean;
  fields: Record<string, unknown>;
  unreadable: string[];
}

/** The writes that a {@link Collection} and a {@link Batch} have in common. */
export interface Writer<T extends object, W> {
  /**
   * Creates the document, or replaces all of it. The fields are a plain object's. A row may be spread back into them:
   * what a {@link Row} tells beside the fields is left out.
   */
  put(id: string, fields: T): W;
  /**
   * Changes the given fields of a document that is there, and leaves the others as they are, here and in what other
   * people change meanwhile. A field that is given as `undefined` is removed. What a {@link Row} tells beside the fields
   * is left out. Rejected with `invalid` where there is no such document.
   */
  patch(id: string, fields: Partial<{ [K in keyof T]: T[K] | undefined }>): W;
  /** Deletes the document. */
  delete(id: string): W;
}

/** What a collection needs of its database. */
export interface Store {
  /** Takes what is collected at once. */
  write(collect: () => Change[]): Write;
  get(collection: string, id: string): Promise<string | undefined>;
  list(collection: string, prefix: string): Promise<string>;
  /** Emits the names of the collections that changed, or null when any may have. */
  readonly changes: Emitter<string[] | null>;
  /** Errors of background reads. */
  fail(error: unknown): void;
}

/**
 * Documents of one kind. A document has an id and fields; two people who change different fields of it both keep
 * their change.
 *
 * Collection names and ids are text without the character U+0000. Fields hold what JSON holds, and are read back as they
 * were written: well-formed text, finite numbers, booleans, null, and lists and plain objects of these, at most 124 levels
 * of them within each other. A member that is undefined is left out. Anything else (a Date, a Map, a gap in a list) is
 * refused with `invalid` and its path. No field is named `$id`, `$pending`, `$rejected` or `$unreadable`.
 */
export class Collection<T extends object> implements Writer<T, Write> {
  /** The collection's name. */
  readonly name: string;
  #store: Store;

  /** @internal Use {@link Database.collection}. */
  constructor(store: Store, name: string) {
    checkText(name, "the name of a collection");
    this.#store = store;
    this.name = name;
  }

  put(id: string, fields: T): Write {
    return this.#store.write(() => [put(this.name, id, fields)]);
  }

  patch(id: string, fields: Partial<{ [K in keyof T]: T[K] | undefined }>): Write {
    return this.#store.write(() => [patch(this.name, id, fields)]);
  }

  delete(id: string): Write {
    return this.#store.write(() => [remove(this.name, id)]);
  }

  /** The document, or undefined where there is none. Never waits for the network. */
  async get(id: string): Promise<Row<T> | undefined> {
    checkText(id, "the id of a document");
    const stored = await this.#store.get(this.name, id);
    return stored === undefined ? undefined : toRow<T>(JSON.parse(stored) as StoredRow);
  }

  /** The documents whose id begins with the prefix, in the order of their ids. Never waits for the network. */
  async list(options: { prefix?: string } = {}): Promise<Row<T>[]> {
    const prefix = prefixOf(options);
    const stored = await this.#store.list(this.name, prefix);
    return (JSON.parse(stored) as StoredRow[]).map(row => toRow<T>(row));
  }

  /**
   * Calls back with the documents as they are now, and again after each change, whether made here, in another tab
   * or elsewhere.
   */
  subscribe(listener: (rows: Row<T>[]) => void): Unsubscribe;
  subscribe(options: { prefix?: string }, listener: (rows: Row<T>[]) => void): Unsubscribe;
  subscribe(
    ...args: [(rows: Row<T>[]) => void] | [{ prefix?: string }, (rows: Row<T>[]) => void]
  ): Unsubscribe {
    const [options, listener] = subscription(args);
    const prefix = prefixOf(options);
    const query = {
      read: () => this.#store.list(this.name, prefix),
      same: (last: string, next: string) => last === next,
      changes: this.#store.changes,
      concerns: (collections: string[] | null) => collections === null || collections.includes(this.name),
      fail: (error: unknown) => this.#store.fail(error),
    };
    return live(query, stored => listener((JSON.parse(stored) as StoredRow[]).map(row => toRow<T>(row))));
  }
}

function prefixOf(options: { prefix?: string }): string {
  checkObject(options, "the options of a list");
  const { prefix = "" } = options;
  checkText(prefix, "the prefix of ids");
  return prefix;
}

function put(collection: string, id: string, fields: object): Change {
  checkText(id, "the id of a document");
  return change({ op: "put", collection, id }, fieldsOf(id, fields).set);
}

function patch(collection: string, id: string, fields: object): Change {
  checkText(id, "the id of a document");
  const { set, unset } = fieldsOf(id, fields);
  return change({ op: "patch", collection, id, remove: unset }, set);
}

function remove(collection: string, id: string): Change {
  checkText(id, "the id of a document");
  return change({ op: "delete", collection, id });
}

/** The fields are text by now: `JSON.stringify` would lose the sign of -0. */
function change(what: { op: string; collection: string; id: string; remove?: string[] }, fields?: string): Change {
  const text = JSON.stringify(what);
  return fields === undefined ? text : `${text.slice(0, -1)},"fields":${fields}}`;
}

function toRow<T>(stored: StoredRow): Row<T> {
  const { fields, id, pending, rejected, unreadable } = stored;
  return { ...fields, $id: id, $pending: pending, $rejected: rejected, $unreadable: unreadable } as Row<T>;
}

/** Collects the writes of one {@link Database.batch}. */
export class Batch {
  /** @internal */
  readonly changes: Change[] = [];

  /** The collection to write to within this batch. */
  collection<T extends object>(name: string): Writer<T, void> {
    checkText(name, "the name of a collection");
    const add = (change: Change): void => void this.changes.push(change);
    return {
      put: (id, fields) => add(put(name, id, fields)),
      patch: (id, fields) => add(patch(name, id, fields)),
      delete: id => add(remove(name, id)),
    };
  }
}
