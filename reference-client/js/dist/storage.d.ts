/**
 * Browsers may evict IndexedDB without a word. A mark in another kind of storage, which they evict apart from it or
 * not at all, tells an emptied store from a new one.
 */
export declare class Sentinel {
    #private;
    constructor(name: string);
    /** Asks the browser to keep what is stored. It may refuse, and some ask the user. */
    askToPersist(): Promise<void>;
    /** Sets the mark, and says whether a store that is new now was there before. */
    check(isNew: boolean): boolean;
}
