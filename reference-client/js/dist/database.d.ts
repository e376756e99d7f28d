import { Batch, Collection } from "./collection.js";
import { StatusFeed } from "./status.js";
import { Records } from "./records.js";
import type { OpenOptions, PendingWrite, Verification, Write } from "./types.js";
/** Opens, or creates, a store on this device and begins to sync it. Await {@link init} first. */
export declare function open(options: OpenOptions): Promise<Database>;
/** One space, on this device and in sync with its server. */
export declare class Database {
    #private;
    /** Everything about syncing that a page may want to show. */
    readonly status: StatusFeed;
    /** Keys and values of bytes, for applications that encrypt, or whose data are no documents. */
    readonly records: Records;
    /** @internal Use {@link open}. */
    static open(options: OpenOptions & {
        url: string;
    }): Promise<Database>;
    private constructor();
    /** Documents of one kind. */
    collection<T extends object>(name: string): Collection<T>;
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
    batch(fill: (batch: Batch) => void): Write;
    /** The writes that the server has not acknowledged, oldest first. */
    pending(): Promise<PendingWrite[]>;
    /** Sends a rejected write again. */
    retry(id: number): Promise<void>;
    /** Withdraws a write that was not acknowledged; what the server holds comes to the fore again. */
    discard(id: number): Promise<void>;
    /**
     * Syncs now rather than when the next try is due. Resolves when this device holds what the server holds and every
     * write was answered; rejects with `offline` when the server cannot be reached.
     */
    sync(): Promise<void>;
    /**
     * Hashes every stored record again, compares the whole with the server, mends what differs on either side, and
     * reports. Rejects with `offline` when the server cannot be reached.
     */
    verify(): Promise<Verification>;
    /**
     * Closes this tab's use of the store. Writes that were not acknowledged stay on the device and are sent after the
     * next {@link open}; with `discardPending` they are withdrawn.
     */
    close(options?: {
        discardPending?: boolean;
    }): Promise<void>;
}
