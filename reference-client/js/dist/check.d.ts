/** What the types say of arguments, for applications that are not compiled against them. */
import { GoSyncError } from "./errors.js";
import type { OpenOptions } from "./types.js";
/** An error about an argument. */
export declare function invalid(message: string, options?: ErrorOptions): GoSyncError;
/** Throws unless the value is well-formed text. */
export declare function checkText(value: unknown, what: string): asserts value is string;
/** Throws unless the value holds bytes. */
export declare function checkBytes(value: unknown, what: string): asserts value is Uint8Array;
/** Throws unless the value has fields. */
export declare function checkFields(value: unknown): asserts value is object;
/** Throws unless the value can be the id of a write. */
export declare function checkId(value: unknown): asserts value is number;
/** Throws unless the options can be used. */
export declare function checkOptions({ name, space, url, auth, ranges }: OpenOptions): void;
/** The value as JSON; throws where it has none. */
export declare function toJson(value: unknown): string;
