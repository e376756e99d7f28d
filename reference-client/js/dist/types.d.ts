import type { Place } from "./keys.js";
import type { Reason } from "./reasons.js";
/**
 * A part of a space: a collection, or those of its documents whose id begins with `idPrefix`; or, for applications with
 * keys of their own, the records whose key begins with `keyPrefix`.
 */
export type HeldRange = {
    collection: string;
    idPrefix?: string;
} | {
    keyPrefix: Uint8Array;
};
/** What {@link open} needs to know. */
export interface OpenOptions {
    /** Names the store on this device: one for each space. Tabs that open the same name share it. */
    name: string;
    /** The server's address, such as `https://sync.example.com`. Default: where the page came from. */
    url?: string;
    /** The space to sync: 1 to 128 characters of `[A-Za-z0-9._-]`. */
    space: string;
    /**
     * Hold these parts of the space only. Default: all of it.
     *
     * What lies outside is not fetched, and not compared with the server's. Writes to it are sent all the same. Opening the
     * store with other ranges fetches what is missing, and leaves on the device what is no longer held, as it was.
     */
    ranges?: HeldRange[];
    /**
     * Gives the bearer token, or nothing when the user has to sign in: the status becomes `needs-auth` then. Asked at the
     * first connection, and again, with `refused` set, when the server refuses the token it gave before, as it does once
     * that one has expired; if the next is refused too, the status becomes `needs-auth`. {@link Database.sync} tries again.
     * What it throws counts as "not now": it is asked again after a pause.
     */
    auth?: (refused: boolean) => string | undefined | Promise<string | undefined>;
    /**
     * Send the token even where others can read it on the way: to a server that is neither on this device nor reached
     * by `https:`. Default: false; without it the status is `needs-auth` there.
     */
    allowPlaintextTokens?: boolean;
    /** Ask the browser not to evict the store when space runs short. Default: true. */
    persist?: boolean;
}
/**
 * A document as the store gives it: its fields, and what is known of it. The names that begin with `$` are no fields:
 * {@link Collection.put} and {@link Collection.patch} leave these four out, so that a row may be spread back:
 * `todos.put(row.$id, { ...row, done: true })`.
 */
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
     * - `applied`: the server holds it, or it deletes what the server does not hold.
     * - `superseded`: a newer write won, somebody else's or a later one from here; this device shows that one.
     * - `rejected`: the server refuses it; it stays visible here, and in {@link Database.pending}, until it is
     *   retried or discarded.
     * - `discarded`: it was withdrawn on this device before it was acknowledged.
     */
    status: "applied" | "superseded" | "rejected" | "discarded";
    /** Why it was rejected; only where it was. */
    reason?: Reason;
    /** The server's sentence about it; only where it was rejected. */
    detail?: string;
}
/**
 * A write on its way. Awaiting it is awaiting {@link Write.local}.
 *
 * It is visible on this device at once, and stays so whatever happens to the network or the tab.
 */
export interface Write extends PromiseLike<void> {
    /**
     * Resolves when the write is durable on this device. Rejects when it cannot be, and then nothing of it was kept: with
     * `invalid` (the message says which argument, or which limit), `quota`, `storage` or `closed`.
     */
    readonly local: Promise<void>;
    /**
     * Resolves when the server has decided, which may be days later; for a batch, and for a document with several fields,
     * when it has decided about all of it. Never rejects because of the network; rejects with `closed` when the database is
     * closed before there is a verdict, and like {@link Write.local} when there is nothing to decide about.
     */
    readonly server: Promise<WriteResult>;
}
/** A write of one record that the server has not acknowledged. A document's existence and its fields are one each. */
export interface PendingWrite extends Place {
    /** For {@link Database.retry} and {@link Database.discard}. Rises with the order of writing. */
    id: number;
    /** The key of the record. */
    key: Uint8Array;
    /** `waiting`: to be sent; `sent`: sent, no answer yet; `rejected`: refused, waits for you. */
    state: "waiting" | "sent" | "rejected";
    /** Whether it deletes. */
    deletes: boolean;
    /**
     * The writes that were made together, and are sent, retried and discarded together, have the same number here: the id
     * of the first of them. Null for a write by itself.
     */
    batch: number | null;
    /** Whether it may have been applied, and deleted by somebody, before it got its present version. */
    inDoubt: boolean;
    /** Why it was refused; only where it was. */
    reason?: Reason;
    /** The server's sentence about it; only where it was refused. */
    detail?: string;
}
/**
 * A record that this device holds, that the server lost, and that it does not get back from here. It is kept and
 * shown, and leaves quarantine when the server comes to hold a record under its key, or by {@link Database.offerAgain} or
 * {@link Database.dropQuarantined}.
 */
export interface QuarantinedRecord extends Place {
    /** The key of the record. */
    key: Uint8Array;
    /** Its value; null where it is a deletion. A field's value is the JSON of it. */
    value: Uint8Array | null;
    /** When it was written: see {@link StoredRecord.time}. */
    time: bigint;
    /** Which opening of a store wrote it. */
    writer: bigint;
    /** Why: `NO_ACCESS` where the token may not write it, or what the server refused it for. */
    reason: Reason;
    /** A sentence about it: the server's, where it refused the record. */
    detail: string;
}
/**
 * Where syncing stands, in one word. Reading and writing work in each of them.
 *
 * - `connecting`: the server is asked, or differences are exchanged.
 * - `online`: this device has what the server has, and gets what others write within milliseconds.
 * - `offline`: not in touch; it is tried again by itself, unless {@link Status.stopped}.
 * - `needs-auth`: the token is refused, or there is none: the user has to sign in.
 * - `upgrade-required`: the server speaks no version of the protocol that this package knows.
 * - `storage-error`: the browser's storage failed; it is tried again by itself.
 */
export type State = "connecting" | "online" | "offline" | "needs-auth" | "upgrade-required" | "storage-error";
/** How far a long step has come. */
export interface Progress {
    /** `bootstrapping`: the first fetch of everything; `catching-up`: what was written while this device was away. */
    phase: "bootstrapping" | "catching-up";
    /** Records so far. */
    done: number;
    /** Records expected; an estimate, since others go on writing. */
    total: number;
}
/** What {@link Status} tells about a repair. */
export interface Healed {
    /** When it was finished. */
    at: Date;
    /** The key ranges that differed, readable: `todos/t1/title` or `todos/a … todos/k`. */
    ranges: string[];
    /** Records that were fetched again, given back to the server, or removed. */
    records: number;
    /** Round trips it took to find and mend them. */
    rounds: number;
}
/** Everything a page may want to show about syncing. */
export interface Status {
    state: State;
    /** Records that wait for the server's acknowledgement, without the rejected ones. */
    pending: number;
    /** Writes that the server refused; they wait for {@link Database.retry} or {@link Database.discard}. */
    rejected: number;
    /**
     * Of both, the writes that are in doubt: they may have been applied, and deleted by somebody, before they got their
     * present version. {@link PendingWrite.inDoubt} tells which; whoever looks after the data may want to look at them.
     */
    inDoubt: number;
    /** Records that the server lost and that this device may not write back: see {@link Database.quarantined}. */
    quarantined: number;
    /** How far a long step has come; null when none is under way. */
    progress: Progress | null;
    /** When this device last held everything that the server held, by its own clock; null when it never did. */
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
    /** Why the state is what it is, where the server gave a reason. */
    reason: Reason | null;
    /** Why the state is what it is, for people; null when there is nothing to say. */
    detail: string | null;
}
/** What {@link Database.verify} found. Afterwards this device and the server hold the same. */
export interface Verification {
    /** Whether they held the same before anything was mended. */
    equal: boolean;
    /** The key ranges that differed and were mended, readable. */
    healedRanges: string[];
    /** Round trips it took to find and mend them; 0 where the first look at the fingerprints showed that all is equal. */
    rounds: number;
    /** Records whose stored bytes were hashed again: all that are held and acknowledged. */
    checked: number;
    /** Records whose stored bytes did not match their digest. */
    damaged: number;
}
/** Ends a subscription. */
export type Unsubscribe = () => void;
