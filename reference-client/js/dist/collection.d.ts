import type { Emitter } from "./emitter.js";
import type { Row, Unsubscribe, Write } from "./types.js";
/** One change of a batch, as the text of the JSON that the WASM module takes. */
export type Change = string;
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
    patch(id: string, fields: Partial<{
        [K in keyof T]: T[K] | undefined;
    }>): W;
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
export declare class Collection<T extends object> implements Writer<T, Write> {
    #private;
    /** The collection's name. */
    readonly name: string;
    put(id: string, fields: T): Write;
    patch(id: string, fields: Partial<{
        [K in keyof T]: T[K] | undefined;
    }>): Write;
    delete(id: string): Write;
    /** The document, or undefined where there is none. Never waits for the network. */
    get(id: string): Promise<Row<T> | undefined>;
    /** The documents whose id begins with the prefix, in the order of their ids. Never waits for the network. */
    list(options?: {
        prefix?: string;
    }): Promise<Row<T>[]>;
    /**
     * Calls back with the documents as they are now, and again after each change, whether made here, in another tab
     * or elsewhere.
     */
    subscribe(listener: (rows: Row<T>[]) => void): Unsubscribe;
    subscribe(options: {
        prefix?: string;
    }, listener: (rows: Row<T>[]) => void): Unsubscribe;
}
/** Collects the writes of one {@link Database.batch}. */
export declare class Batch {
    /** The collection to write to within this batch. */
    collection<T extends object>(name: string): Writer<T, void>;
}
