import type { Status, Unsubscribe } from "./types.js";
/** The present {@link Status} and its changes. */
export declare class StatusFeed {
    #private;
    /** The status now. */
    get current(): Status;
    /** Calls back with the status now, and again with each change. */
    subscribe(listener: (status: Status) => void): Unsubscribe;
}
