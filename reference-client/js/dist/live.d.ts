import { Emitter } from "./emitter.js";
import type { Unsubscribe } from "./types.js";
/** What a live query asks for. */
export interface Query<V> {
    read(): Promise<V>;
    /** Whether the listener need not hear of `next` after `last`. */
    same(last: V, next: V): boolean;
    /** Emits when something was written; tells the names of the collections that changed, or null when any may have. */
    changes: Emitter<string[] | null>;
    /** Whether such a change may concern this query. */
    concerns(collections: string[] | null): boolean;
    /** Errors of reads, which nobody awaits. */
    fail(error: unknown): void;
}
/** Calls back with what the query reads now, and again whenever it reads otherwise. */
export declare function live<V>(query: Query<V>, listener: (value: V) => void): Unsubscribe;
