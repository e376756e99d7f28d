import { live } from "./live.js";
/**
 * The records themselves: a value of up to 1 MiB under a key of 1 to 512 bytes, both of the application's own making.
 * For applications that encrypt what they store, or whose data are no documents. Of two writes of a key the newer one
 * wins, as a whole.
 *
 * A {@link Collection} is made of records too, with keys like `collection NUL id NUL field`; records with other keys
 * are in no collection, and the two do not get in each other's way.
 */
export class Records {
    #store;
    /** @internal Use {@link Database.records}. */
    constructor(store) {
        this.#store = store;
    }
    /** Sets the value under the key. */
    put(key, value) {
        // Taken now: the caller may change its bytes afterwards.
        return this.#store.put(key.slice(), value.slice());
    }
    /** Deletes what is under the key. */
    delete(key) {
        return this.#store.delete(key.slice());
    }
    /** The record, or undefined where there is none. Never waits for the network. */
    get(key) {
        return this.#store.get(key);
    }
    /** The records whose key begins with the prefix, in the order of their keys' bytes. Never waits for the network. */
    list(options = {}) {
        return this.#store.list(options.prefix ?? new Uint8Array());
    }
    /**
     * Calls back with the records as they are now, and again after each change, whether made here, in another tab or
     * elsewhere.
     */
    subscribe(options, listener) {
        const { changes } = this.#store;
        const query = {
            read: () => this.list(options),
            same,
            changes,
            concerns: () => true,
            fail: (error) => this.#store.fail(error),
        };
        return live(query, listener);
    }
}
/** A version stands for its value, so that values need not be compared. */
function same(last, next) {
    const names = ["time", "writer", "pending", "rejected"];
    return (last.length === next.length &&
        last.every((a, i) => {
            const b = next[i];
            return b !== undefined && names.every(name => a[name] === b[name]) && equal(a.key, b.key);
        }));
}
function equal(a, b) {
    return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
