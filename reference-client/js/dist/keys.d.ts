/** Keys of records, as {@link Collection}s make them: `collection NUL id NUL field`. */
import type { HeldRange } from "./types.js";
/** Where in a collection a record belongs; all null for a key of the application's own. */
export interface Place {
    /** The collection. */
    collection: string | null;
    /** The document's id. */
    document: string | null;
    /** The document's field; the empty string stands for the document's existence. */
    field: string | null;
}
/** The place of a key. */
export declare function placeOf(key: Uint8Array): Place;
/** The beginning that the keys of a range have in common. */
export declare function prefixOf(range: HeldRange): Uint8Array;
/** The bytes of a hex text. */
export declare function fromHex(hex: string): Uint8Array;
