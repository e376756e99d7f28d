import { default as load } from "../wasm/gosync_client.js";
import { GoSyncError } from "./errors.js";
let loading;
let loaded = false;
/**
 * Loads the WASM module; await it once before {@link open}. Calling it again is harmless.
 *
 * Without an argument the module is taken from beside this package's own files, which works unbundled, with
 * bundlers that understand `new URL(…, import.meta.url)`, and on Node. Otherwise say where it is, or hand over its
 * bytes.
 */
export function init(source) {
    loading ??= start(source).catch(error => {
        loading = undefined; // the next call may do better
        throw error;
    });
    return loading;
}
/** Throws unless {@link init} is done. */
export function assertLoaded() {
    if (!loaded)
        throw new GoSyncError("not-initialised", "await init() before open()");
}
async function start(source = new URL("../wasm/gosync_client_bg.wasm", import.meta.url)) {
    try {
        await load({ module_or_path: await fetchable(source) });
    }
    catch (error) {
        const where = source instanceof URL || typeof source === "string" ? ` from ${source}` : "";
        throw new GoSyncError("internal", `the WASM module could not be loaded${where}: ${String(error)}`, { cause: error });
    }
    loaded = true;
}
/** Node's fetch does not read files. */
async function fetchable(source) {
    const isFile = source instanceof URL && source.protocol === "file:";
    if (!isFile || !("process" in globalThis))
        return source;
    const files = "node:fs/promises"; // in a variable, so that bundlers for the browser leave it alone
    const { readFile } = (await import(files));
    return readFile(source);
}
