/** What the types say of arguments, for applications that are not compiled against them. */
import { GoSyncError } from "./errors.js";
/** An error about an argument. */
export function invalid(message, options) {
    return new GoSyncError("invalid", message, options);
}
/** Throws unless the value is well-formed text. */
export function checkText(value, what) {
    if (typeof value !== "string")
        throw invalid(`${what} is text, not ${kind(value)}`);
    if (!isWellFormed(value))
        throw invalid(`${what} is no well-formed text`);
}
/** Whether text has bytes of its own: with half of a character in it, two texts would become one. */
export function isWellFormed(text) {
    return !/\p{Surrogate}/u.test(text);
}
/** Throws unless the value holds bytes. */
export function checkBytes(value, what) {
    if (!(value instanceof Uint8Array))
        throw invalid(`${what} is a Uint8Array, not ${kind(value)}`);
}
/** Throws unless the value can be called. */
export function checkFunction(value, what) {
    if (typeof value !== "function")
        throw invalid(`${what} is a function, not ${kind(value)}`);
}
/** Throws unless the value can hold options. */
export function checkObject(value, what) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
        throw invalid(`${what} are an object, not ${kind(value)}`);
    }
}
/** The options and the listener of a `subscribe` that may be called without options; throws where there is none. */
export function subscription(args) {
    const [options = {}, listener] = args.length < 2 ? [{}, args[0]] : args;
    checkFunction(listener, "the listener of a subscription");
    return [options, listener];
}
/** Throws unless the value can be the id of a write. */
export function checkId(value) {
    if (!Number.isSafeInteger(value) || value < 0) {
        throw invalid(`the id of a write is a number that pending() told, not ${String(value)}`);
    }
}
/** The options with the default of their url; throws unless they can be used. */
export function checkOptions(options) {
    checkObject(options, "the options of open()");
    const { name, space, auth, ranges } = options;
    const url = options.url ?? globalThis.location?.origin ?? "";
    checkText(name, "the name of the store");
    if (name === "")
        throw invalid("open() needs a name for the store on this device");
    checkText(space, "the space");
    if (url === "") {
        throw invalid("open() needs a url where there is no page that it could come from");
    }
    checkText(url, "the url");
    if (!/^https?:$/.test(parsed(url)?.protocol ?? "")) {
        throw invalid(`the url is an address that begins with https: or http:, not ${JSON.stringify(url)}`);
    }
    if (auth !== undefined)
        checkFunction(auth, "auth");
    if (ranges !== undefined && !Array.isArray(ranges))
        throw invalid(`ranges are a list, not ${kind(ranges)}`);
    if (ranges?.length === 0)
        throw invalid("ranges: an empty list holds nothing; leave it out to hold everything");
    return { ...options, url };
}
function parsed(url) {
    try {
        return new URL(url);
    }
    catch {
        return undefined;
    }
}
/** What a value is, for people. */
export function kind(value) {
    if (value === null)
        return "null";
    return Array.isArray(value) ? "a list" : typeof value;
}
