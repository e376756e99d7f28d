/** The fields of a document, as they go to the store: JSON, and the application's own. */
/**
 * The fields to set, as JSON holds them, and the names of those that are undefined, without what a row tells beside
 * them. Throws where the value is no plain object, or a field is no JSON that the store can read, and names which.
 */
export declare function fieldsOf(document: string, value: unknown): {
    set: Record<string, unknown>;
    unset: string[];
};
