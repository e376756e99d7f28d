import type { Emitter } from "./emitter.js";
import type { Unsubscribe, Write } from "./types.js";
/** A record as the store gives it. */
export interface StoredRecord {
    key: Uint8Array;
    value: Uint8Array;
    /** When it was written, and by which opening of a store: the newer time wins, then the greater writer. */
    time: bigint;
    writer: bigint;
    /** Whether it waits to be acknowledged by the server. */
    pending: boolean;
    /** Whether the server refused it: see {@link Database.pending} for why. */
    rejected: boolean;
}
/** What {@link Records} need of their database. */
export interface RecordStore {
    put(key: Uint8Array, value: Uint8Array): Write;
    delete(key: Uint8Array): Write;
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
export declare class Records {
    #private;
    /** @internal Use {@link Database.records}. */
    constructor(store: RecordStore);
    /** Sets the value under the key. */
    put(key: Uint8Array, value: Uint8Array): Write;
    /** Deletes what is under the key. */
    delete(key: Uint8Array): Write;
    /** The record, or undefined where there is none. Never waits for the network. */
    get(key: Uint8Array): Promise<StoredRecord | undefined>;
    /** The records whose key begins with the prefix, in the order of their keys' bytes. Never waits for the network. */
    list(options?: {
        prefix?: Uint8Array;
    }): Promise<StoredRecord[]>;
    /**
     * Calls back with the records as they are now, and again after each change, whether made here, in another tab or
     * elsewhere.
     */
    subscribe(options: {
        prefix?: Uint8Array;
    }, listener: (records: StoredRecord[]) => void): Unsubscribe;
}
