/**
 * What a {@link GoSyncError} is about:
 *
 * - `not-initialised`: `init()` was not awaited before `open()`.
 * - `invalid`: an argument is wrong; the message says which and why.
 * - `closed`: the database was closed.
 * - `offline`: the server cannot be reached now; try again when the status is online.
 * - `needs-auth`, `upgrade-required`: as in {@link Status.state}.
 * - `quota`: the browser's storage is full; nothing of the write was kept.
 * - `storage`: the browser's storage failed otherwise.
 * - `internal`: a fault of this library.
 */
export type ErrorCode = "not-initialised" | "invalid" | "closed" | "offline" | "needs-auth" | "upgrade-required" | "quota" | "storage" | "internal";
/** Every error that this package throws or rejects with. */
export declare class GoSyncError extends Error {
    /** For programs; the message is for people. */
    readonly code: ErrorCode;
    constructor(code: ErrorCode, message: string, options?: ErrorOptions);
    /** The same error as the WASM module reports it: `{code, message}`. */
    static from(thrown: unknown): GoSyncError;
}
