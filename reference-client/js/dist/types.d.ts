/** A value that JSON can hold. */
export type Json = null | boolean | number | string | Json[] | {
    [key: string]: Json;
};
/** What {@link open} needs to know. */
export interface OpenOptions {
    /** Names the store on this device. Tabs that open the same name share it. */
    name: string;
    /** The server's address, such as `https://sync.example.com`. Default: where the page came from. */
    url?: string;
    /** The space to sync: 1 to 128 characters of `[A-Za-z0-9._-]`. */
    space: string;
    /**
     * Gives the bearer token, or nothing when the user has to sign in. Asked again, with `refused` set, when the server
     * refuses the token it gave before; if that one is refused too, the status becomes `needs-auth`, and
     * {@link Database.sync} tries again.
     */
    auth?: (refused: boolean) => string | undefined | Promise<string | undefined>;
    /**
     * Send the token even where others can read it on the way: to a server that is neither on this device nor reached
     * by `https:`. Default: false; the status is `needs-auth` then.
     */
    allowPlaintextTokens?: boolean;
    /** Ask the browser not to evict the store when space runs short. Default: true. */
    persist?: boolean;
}
/** A document as the store gives it: its fields, and what is known of it. */
export type Row<T> = T & {
    /** The document's id within its collection. */
    readonly $id: string;
    /** Whether some of it waits to be acknowledged by the server. */
    readonly $pending: boolean;
    /** Whether the server refused some of it: see {@link Database.pending} for why. */
    readonly $rejected: boolean;
    /** Fields that hold what is no JSON, from another application perhaps: kept as they are, and not shown. */
    readonly $unreadable: readonly string[];
};
/** What became of a write at the server. */
export interface WriteResult {
    /**
     * - `applied`: the server holds it.
     * - `superseded`: somebody's newer write won; this device shows that one now.
     * - `rejected`: the server refuses it; it stays visible here, and in {@link Database.pending}, until it is
     *   retried or discarded.
     * - `discarded`: it was withdrawn on this device before it was acknowledged.
     */
    status: "applied" | "superseded" | "rejected" | "discarded";
    /** Why it was rejected, such as `QUOTA_EXCEEDED`: a name from the protocol's closed list. */
    reason?: string;
    /** The server's sentence about it. */
    detail?: string;
}
/**
 * A write on its way. Awaiting it is awaiting {@link Write.local}.
 *
 * It is visible on this device at once, and stays so whatever happens to the network or the tab.
 */
export interface Write extends PromiseLike<void> {
    /** Resolves when the write is durable on this device; rejects with a {@link GoSyncError} when it cannot be. */
    readonly local: Promise<void>;
    /**
     * Resolves when the server has decided, which may be days later. Never rejects because of the network; rejects with
     * `closed` when the database is closed before there is a verdict.
     */
    readonly server: Promise<WriteResult>;
}
/** A write that the server has not acknowledged. */
export interface PendingWrite {
    /** For {@link Database.retry} and {@link Database.discard}. */
    id: number;
    /** The key of the record. */
    key: Uint8Array;
    /** The collection it belongs to; null for a record with a key of the application's own. */
    collection: string | null;
    /** The document it belongs to. */
    document: string | null;
    /** The field; the empty string stands for the document's existence. */
    field: string | null;
    /** `waiting`: to be sent; `sent`: sent, no answer yet; `rejected`: refused, waits for you. */
    state: "waiting" | "sent" | "rejected";
    /** Whether it deletes. */
    deletes: boolean;
    /** Whether it may have been applied, and deleted by somebody, before it got its present version. */
    inDoubt: boolean;
    /** Why it was refused. */
    reason?: string;
    /** The server's sentence about it. */
    detail?: string;
}
/** Where syncing stands, in one word. */
export type State = "connecting" | "online" | "offline" | "needs-auth" | "upgrade-required" | "storage-error";
/** What {@link Status} tells about a repair. */
export interface Healed {
    /** When it was finished. */
    at: Date;
    /** The key ranges that differed, readable: `todos/t1/title` or `todos/a … todos/k`. */
    ranges: string[];
    /** Records that were replaced or fetched again. */
    records: number;
    /** Round trips it took to find and mend them. */
    rounds: number;
}
/** Everything a page may want to show about syncing. */
export interface Status {
    state: State;
    /** Writes that the server has not acknowledged, without the rejected ones. */
    pending: number;
    /** Writes that the server refused; they wait for `retry` or `discard`. */
    rejected: number;
    /** Records that the server lost and that this device may not write back. */
    quarantined: number;
    /** How far a long step has come; null when none is under way. */
    progress: {
        phase: string;
        done: number;
        total: number;
    } | null;
    /** When this device last held everything that the server held. */
    lastSyncedAt: Date | null;
    /**
     * Whether this device's records were compared with the server's, by fingerprint, and found equal, and nothing
     * has come in between since. Pending writes are beside it, not in it.
     */
    verified: boolean;
    /** The latest repair. */
    healed: Healed | null;
    /** Records on this device whose stored bytes are damaged and not yet mended. */
    damaged: number;
    /** The store was evicted by the browser since it was last opened: unsynced writes may be lost. */
    evicted: boolean;
    /** Whether it is offline for good, for instance because the space was retired. */
    stopped: boolean;
    /** Why the state is what it is: a name from the protocol's closed list, where the server gave one. */
    reason: string | null;
    /** Why the state is what it is, for people; null when there is nothing to say. */
    detail: string | null;
}
/** What {@link Database.verify} found. Afterwards this device and the server hold the same. */
export interface Verification {
    /** Whether they held the same before anything was mended. */
    equal: boolean;
    /** The key ranges that differed and were mended, readable. */
    healedRanges: string[];
    /** Round trips it took. */
    rounds: number;
    /** Records whose stored bytes were hashed again. */
    checked: number;
    /** Records whose stored bytes did not match their digest. */
    damaged: number;
}
/** Ends a subscription. */
export type Unsubscribe = () => void;
