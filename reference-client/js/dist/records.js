import { checkBytes, checkFunction, checkObject, subscription } from "./check.js";
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
        return this.batch(b => b.put(key, value));
    }
    /** Deletes what is under the key, whether there is anything or not. */
    delete(key) {
        return this.batch(b => b.delete(key));
    }
    /**
     * Several writes as one: visible together, durable together and pushed together, which the server takes as a whole or
     * not at all. Of two writes of a key the later one counts.
     */
    batch(fill) {
        return this.#store.write(() => {
            checkFunction(fill, "what fills a batch");
            const batch = new RecordBatch();
            fill(batch);
            return batch.changes;
        });
    }
    /** The record, or undefined where there is none. Never waits for the network. */
    async get(key) {
        checkBytes(key, "the key");
        return this.#store.get(key);
    }
    /** The records whose key begins with the prefix, in the order of their keys' bytes. Never waits for the network. */
    async list(options = {}) {
        return this.#store.list(prefixOf(options));
    }
    subscribe(...args) {
        const [options, listener] = subscription(args);
        const prefix = prefixOf(options);
        const { changes } = this.#store;
        const query = {
            read: () => this.#store.list(prefix),
            same,
            changes,
            concerns: () => true,
            fail: (error) => this.#store.fail(error),
        };
        return live(query, listener);
    }
}
/** Collects the writes of one {@link Records.batch}. */
export class RecordBatch {
    /** @internal */
    changes = [];
    /** Sets the value under the key. */
    put(key, value) {
        checkBytes(key, "the key");
        checkBytes(value, "the value");
        // Taken now: the caller may change its bytes afterwards.
        this.changes.push([key.slice(), value.slice()]);
    }
    /** Deletes what is under the key. */
    delete(key) {
        checkBytes(key, "the key");
        this.changes.push([key.slice()]);
    }
}
function prefixOf(options) {
    checkObject(options, "the options of a list");
    const { prefix = new Uint8Array() } = options;
    checkBytes(prefix, "the prefix of keys");
    return prefix;
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
