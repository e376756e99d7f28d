import type { GoSyncError } from "./errors.js";
import type { Status, Unsubscribe } from "./types.js";
/** @internal */
export type SyncStatus = Omit<Status, "evicted">;
/** @internal */
export declare function parseStatus(text: string): SyncStatus;
/** The present {@link Status} and its changes. */
export declare class StatusFeed {
    #private;
    /** @internal */
    constructor(status: SyncStatus, evicted: boolean);
    /** The status now. */
    get current(): Status;
    /** Calls back with the status now, and again with each change. */
    subscribe(listener: (status: Status) => void): Unsubscribe;
    /** @internal */
    set(status: SyncStatus): void;
    /** @internal Errors that no call reports. */
    fail(error: GoSyncError): void;
    /** @internal */
    close(): void;
}
