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
export class GoSyncError extends Error {
    /** What it is about, for programs; the message is for people. */
    code;
    /** The protocol's reason, where the server gave one or a rule of the protocol is broken. */
    reason;
    constructor(code, message, options = {}) {
        super(message, "cause" in options ? { cause: options.cause } : undefined);
        this.name = "GoSyncError";
        this.code = code;
        this.reason = options.reason;
    }
    /** @internal The same error as the WASM module, or another tab, tells it. */
    static from(thrown) {
        if (thrown instanceof GoSyncError)
            return thrown;
        const { code, message, reason } = (thrown ?? {});
        return new GoSyncError(code ?? "internal", message ?? String(thrown), { cause: thrown, reason });
    }
}
