import { checkObject, checkText, subscription } from "./check.js";
import { fieldsOf } from "./fields.js";
import { live } from "./live.js";
/**
 * Documents of one kind. A document has an id and fields; two people who change different fields of it both keep
 * their change.
 *
 * Collection names and ids are text without the character U+0000. Fields hold what JSON holds, and are read back as they
 * were written: well-formed text, finite numbers, booleans, null, and lists and plain objects of these, at most 124 levels
 * of them within each other. A member that is undefined is left out. Anything else (a Date, a Map, a gap in a list) is
 * refused with `invalid` and its path. No field is named `$id`, `$pending`, `$rejected` or `$unreadable`.
 */
export class Collection {
    /** The collection's name. */
    name;
    #store;
    /** @internal Use {@link Database.collection}. */
    constructor(store, name) {
        checkText(name, "the name of a collection");
        this.#store = store;
        this.name = name;
    }
    put(id, fields) {
        return this.#store.write(() => [put(this.name, id, fields)]);
    }
    patch(id, fields) {
        return this.#store.write(() => [patch(this.name, id, fields)]);
    }
    delete(id) {
        return this.#store.write(() => [remove(this.name, id)]);
    }
    /** The document, or undefined where there is none. Never waits for the network. */
    async get(id) {
        checkText(id, "the id of a document");
        const stored = await this.#store.get(this.name, id);
        return stored === undefined ? undefined : toRow(JSON.parse(stored));
    }
    /** The documents whose id begins with the prefix, in the order of their ids. Never waits for the network. */
    async list(options = {}) {
        const prefix = prefixOf(options);
        const stored = await this.#store.list(this.name, prefix);
        return JSON.parse(stored).map(row => toRow(row));
    }
    subscribe(...args) {
        const [options, listener] = subscription(args);
        const prefix = prefixOf(options);
        const query = {
            read: () => this.#store.list(this.name, prefix),
            same: (last, next) => last === next,
            changes: this.#store.changes,
            concerns: (collections) => collections === null || collections.includes(this.name),
            fail: (error) => this.#store.fail(error),
        };
        return live(query, stored => listener(JSON.parse(stored).map(row => toRow(row))));
    }
}
function prefixOf(options) {
    checkObject(options, "the options of a list");
    const { prefix = "" } = options;
    checkText(prefix, "the prefix of ids");
    return prefix;
}
function put(collection, id, fields) {
    checkText(id, "the id of a document");
    return change({ op: "put", collection, id }, fieldsOf(id, fields).set);
}
function patch(collection, id, fields) {
    checkText(id, "the id of a document");
    const { set, unset } = fieldsOf(id, fields);
    return change({ op: "patch", collection, id, remove: unset }, set);
}
function remove(collection, id) {
    checkText(id, "the id of a document");
    return change({ op: "delete", collection, id });
}
/** The fields are text by now: `JSON.stringify` would lose the sign of -0. */
function change(what, fields) {
    const text = JSON.stringify(what);
    return fields === undefined ? text : `${text.slice(0, -1)},"fields":${fields}}`;
}
function toRow(stored) {
    const { fields, id, pending, rejected, unreadable } = stored;
    return { ...fields, $id: id, $pending: pending, $rejected: rejected, $unreadable: unreadable };
}
/** Collects the writes of one {@link Database.batch}. */
export class Batch {
    /** @internal */
    changes = [];
    /** The collection to write to within this batch. */
    collection(name) {
        checkText(name, "the name of a collection");
        const add = (change) => void this.changes.push(change);
        return {
            put: (id, fields) => add(put(name, id, fields)),
            patch: (id, fields) => add(patch(name, id, fields)),
            delete: id => add(remove(name, id)),
        };
    }
}
