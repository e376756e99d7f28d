/** What the types say of arguments, for applications that are not compiled against them. */

import { GoSyncError } from "./errors.js";
import type { OpenOptions } from "./types.js";

/** An error about an argument. */
export function invalid(message: string, options?: ErrorOptions): GoSyncError {
  return new GoSyncError("invalid", message, options);
}

/** Throws unless the value is well-formed text. */
export function checkText(value: unknown, what: string): asserts value is string {
  if (typeof value !== "string") throw invalid(`${what} is text, not ${kind(value)}`);
  // such text has no bytes of its own: two of them would be one name
  if (/\p{Surrogate}/u.test(value)) throw invalid(`${what} is no well-formed text`);
}

/** Throws unless the value holds bytes. */
export function checkBytes(value: unknown, what: string): asserts value is Uint8Array {
  if (!(value instanceof Uint8Array)) throw invalid(`${what} is a Uint8Array, not ${kind(value)}`);
}

/** Throws unless the value has fields. */
export function checkFields(value: unknown): asserts value is object {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalid(`a document's fields are those of an object, not of ${kind(value)}`);
  }
}

/** Throws unless the value can be the id of a write. */
export function checkId(value: unknown): asserts value is number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) {
    throw invalid(`the id of a write is a number that pending() told, not ${String(value)}`);
  }
}

/** Throws unless the options can be used. */
export function checkOptions({ name, space, url, auth, ranges }: OpenOptions): void {
  checkText(name, "the name of the store");
  if (name === "") throw invalid("open() needs a name for the store on this device");
  checkText(space, "the space");
  if (url === undefined || url === "") {
    throw invalid("open() needs a url where there is no page that it could come from");
  }
  checkText(url, "the url");
  if (!/^https?:$/.test(parsed(url)?.protocol ?? "")) {
    throw invalid(`the url is an address that begins with https: or http:, not ${JSON.stringify(url)}`);
  }
  if (auth !== undefined && typeof auth !== "function") throw invalid(`auth is a function, not ${kind(auth)}`);
  if (ranges === undefined) return;
  if (!Array.isArray(ranges)) throw invalid(`ranges are a list, not ${kind(ranges)}`);
  if (ranges.length === 0) throw invalid("ranges: an empty list holds nothing; leave it out to hold everything");
}

/** The value as JSON; throws where it has none. */
export function toJson(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch (error) {
    throw invalid(`fields hold JSON: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

function parsed(url: string): URL | undefined {
  try {
    return new URL(url);
  } catch {
    return undefined;
  }
}

function kind(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "a list" : typeof value;
}
