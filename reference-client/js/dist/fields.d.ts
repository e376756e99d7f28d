/**
 * The fields of a document, as they go to the store: JSON, and the application's own.
 *
 * What JSON cannot hold is refused rather than made into what it can: `JSON.stringify` turns a Map into `{}`, NaN into
 * null, and a Date into text that nothing turns back.
 */
/**
 * The fields to set, as the text of a JSON object, and the names of those that are undefined, without what a row tells
 * beside them. The text holds what was given exactly, apart from members that are undefined: they are left out, as
 * fields are. Throws where that cannot be, and says which value of which document it is.
 */
export declare function fieldsOf(document: string, value: unknown): {
    set: string;
    unset: string[];
};
