import { Batch, Collection } from "./collection.js";
import { StatusFeed } from "./status.js";
import { Records } from "./records.js";
import type { OpenOptions, PendingWrite, QuarantinedRecord, Verification, Write } from "./types.js";
/**
 * Opens, or creates, a store on this device and begins to sync it. Await {@link init} first. Resolves when the store can
 * be read and written, whether there is a server or not.
 *
 * Rejects with `not-initialised`, with `invalid` (an option is wrong, or the store belongs to another space), with
 * `upgrade-required` (a newer version of this package wrote the store), `quota` or `storage`.
 */
export declare function open(options: OpenOptions): Promise<Database>;
/** One space, on this device and in sync with its server. */
export declare class Database {
    #private;
    /** Everything about syncing that a page may want to show. */
    readonly status: StatusFeed;
    /** Keys and values of bytes, for applications that encrypt, or whose data are no documents. */
    readonly records: Records;
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
    /** The writes that the server has not acknowledged, the rejected ones among them, oldest first. */
    pending(): Promise<PendingWrite[]>;
    /**
     * Sends a rejected write again, with the other writes of its batch: after the user signed in with more rights, for
     * instance, or something was deleted from a space that was full. A write that waits already goes on waiting.
     *
     * Rejects with `not-found` when no such write is pending: it was acknowledged or withdrawn meanwhile.
     */
    retry(id: number): Promise<void>;
    /**
     * Withdraws a write that was not acknowledged, with the other writes of its batch; what the server holds comes to the
     * fore again. If it was already sent, it may have reached the server all the same, and then comes back.
     *
     * Rejects with `not-found` when no such write is pending: it was acknowledged, or withdrawn by itself or with another
     * write of its batch.
     */
    discard(id: number): Promise<void>;
    /** The records that the server lost and that this device may not write back, in the order of their keys. */
    quarantined(): Promise<QuarantinedRecord[]>;
    /**
     * Has a quarantined record offered to the server again, as it was: after the user signed in with more rights, for
     * instance. From then on it is a pending write; refused again, a rejected one.
     *
     * `local` rejects with `not-found` where no record is in quarantine under the key.
     */
    offerAgain(key: Uint8Array): Write;
    /**
     * Gives a quarantined record up: this device may be the last that has it. Rejects with `not-found` where no record is
     * in quarantine under the key.
     */
    dropQuarantined(key: Uint8Array): Promise<void>;
    /**
     * Syncs now rather than when the next try is due. Resolves when this device holds what the server holds and every
     * write was answered.
     *
     * Rejects with `offline` when the server cannot be reached, with `needs-auth`, `upgrade-required` or `storage` where
     * the status says so; `reason` is the server's.
     */
    sync(): Promise<void>;
    /**
     * Hashes every stored record again, compares the whole with the server, mends what differs on either side, and
     * reports. Rejects as {@link Database.sync} does; damage that was found by then is mended when the server is back.
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
