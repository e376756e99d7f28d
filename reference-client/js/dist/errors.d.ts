import type { Reason } from "./reasons.js";
/**
 * What a {@link GoSyncError} is about:
 *
 * - `not-initialised`: `init()` was not awaited before `open()`.
 * - `invalid`: an argument is wrong; the message says which and why, and `reason` which rule of the protocol it breaks.
 * - `not-found`: no pending write has this id any more, or no quarantined record this key.
 * - `closed`: the database was closed.
 * - `offline`: the server cannot be reached now; try again when the status is online.
 * - `needs-auth`, `upgrade-required`: as in {@link Status.state}.
 * - `quota`: the browser's storage is full; nothing of the write was kept.
 * - `storage`: the browser's storage failed otherwise.
 * - `internal`: a fault of this library.
 */
export type ErrorCode = "not-initialised" | "invalid" | "not-found" | "closed" | "offline" | "needs-auth" | "upgrade-required" | "quota" | "storage" | "internal";
/** An error as the WASM module, and another tab, tell it. */
export interface ErrorParts {
    code?: ErrorCode;
    message?: string;
    reason?: Reason;
}
/**
 * Every error that this package throws or rejects with.
 *
 * ```ts
 * try {
 *   await todos.put(id, todo);
 * } catch (error) {
 *   if (error instanceof GoSyncError && error.code === "quota") askToFreeSpace();
 *   else throw error;
 * }
 * ```
 */
export declare class GoSyncError extends Error {
    /** What it is about, for programs; the message is for people. */
    readonly code: ErrorCode;
    /** The protocol's reason, where the server gave one or a rule of the protocol is broken. */
    readonly reason: Reason | undefined;
    constructor(code: ErrorCode, message: string, options?: ErrorOptions & {
        reason?: Reason | undefined;
    });
}
