/** Where the WASM module comes from. */
export type InitSource = string | URL | Request | Response | BufferSource | WebAssembly.Module;
/**
 * Loads the WASM module; await it once before {@link open}. Calling it again is harmless.
 *
 * Without an argument the module is taken from beside this package's own files, which works unbundled, with
 * bundlers that understand `new URL(…, import.meta.url)`, and on Node. Otherwise say where it is, or hand over its
 * bytes.
 */
export declare function init(source?: InitSource): Promise<void>;
/** Throws unless {@link init} is done. */
export declare function assertLoaded(): void;
