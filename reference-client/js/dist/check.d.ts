/** What the types say of arguments, for applications that are not compiled against them. */
import { GoSyncError } from "./errors.js";
import type { OpenOptions } from "./types.js";
/** An error about an argument. */
export declare function invalid(message: string, options?: ErrorOptions): GoSyncError;
/** Throws unless the value is well-formed text. */
export declare function checkText(value: unknown, what: string): asserts value is string;
/** Whether text has bytes of its own: with half of a character in it, two texts would become one. */
export declare function isWellFormed(text: string): boolean;
/** Throws unless the value holds bytes. */
export declare function checkBytes(value: unknown, what: string): asserts value is Uint8Array;
/** Throws unless the value can be called. */
export declare function checkFunction(value: unknown, what: string): asserts value is (...args: never[]) => unknown;
/** Throws unless the value can hold options. */
export declare function checkObject(value: unknown, what: string): asserts value is object;
/** The options and the listener of a `subscribe` that may be called without options; throws where there is none. */
export declare function subscription<O extends object, L>(args: [L] | [O, L]): [Partial<O>, L];
/** Throws unless the value can be the id of a write. */
export declare function checkId(value: unknown): asserts value is number;
/** The options with the default of their url; throws unless they can be used. */
export declare function checkOptions(options: OpenOptions): OpenOptions & {
    url: string;
};
/** What a value is, for people. */
export declare function kind(value: unknown): string;
