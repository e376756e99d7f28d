/**
 * Browsers may evict IndexedDB without a word. A mark in another kind of storage, which they evict apart from it or
 * not at all, tells an emptied store from a new one.
 */
export class Sentinel {
    #key;
    constructor(name) {
        this.#key = `gosync:${name}`;
    }
    /** Asks the browser to keep what is stored. It may refuse, and some ask the user. */
    async askToPersist() {
        try {
            const storage = globalThis.navigator?.storage;
            if (storage?.persist && !(await storage.persisted?.()))
                await storage.persist();
        }
        catch {
            // Not there, or not allowed here: the store is kept as long as the browser sees fit.
        }
    }
    /** Sets the mark, and says whether a store that is new now was there before. */
    check(isNew) {
        try {
            const marks = globalThis.localStorage;
            const evicted = isNew && marks?.getItem(this.#key) != null;
            marks?.setItem(this.#key, "1");
            return evicted;
        }
        catch {
            return false; // storage that may not be used cannot tell
        }
    }
}
