/** Keys of records, as {@link Collection}s make them: `collection NUL id NUL field`. */
import { checkBytes, checkText, invalid } from "./check.js";
/** The place of a key. */
export function placeOf(key) {
    const first = key.indexOf(0);
    const second = first < 0 ? -1 : key.indexOf(0, first + 1);
    if (second < 0)
        return { collection: null, document: null, field: null };
    const text = (from, to) => decoder.decode(key.subarray(from, to));
    return { collection: text(0, first), document: text(first + 1, second), field: text(second + 1) };
}
/** The beginning that the keys of a range have in common. */
export function prefixOf(range) {
    if (typeof range !== "object" || range === null)
        throw invalid("ranges: each is an object");
    if ("keyPrefix" in range) {
        checkBytes(range.keyPrefix, "ranges: a keyPrefix");
        return range.keyPrefix;
    }
    const { collection, idPrefix = "" } = range;
    checkText(collection, "ranges: the name of a collection");
    checkText(idPrefix, "ranges: an idPrefix");
    if (collection === "" || collection.includes("\0") || idPrefix.includes("\0")) {
        throw invalid("ranges: a collection has a name, and neither it nor an id contains U+0000");
    }
    return new TextEncoder().encode(`${collection}\0${idPrefix}`);
}
/** The bytes of a hex text. */
export function fromHex(hex) {
    return Uint8Array.from({ length: hex.length / 2 }, (_, i) => parseInt(hex.slice(2 * i, 2 * i + 2), 16));
}
// A byte order mark is part of a name like any other character.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
