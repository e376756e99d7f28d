/** Every error that this package throws or rejects with. */
export class GoSyncError extends Error {
    /** For programs; the message is for people. */
    code;
    constructor(code, message, options) {
        super(message, options);
        this.name = "GoSyncError";
        this.code = code;
    }
    /** The same error as the WASM module reports it: `{code, message}`. */
    static from(thrown) {
        if (thrown instanceof GoSyncError)
            return thrown;
        const { code, message } = (thrown ?? {});
        return new GoSyncError(code ?? "internal", message ?? String(thrown), { cause: thrown });
    }
}
