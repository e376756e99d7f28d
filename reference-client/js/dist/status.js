import { checkFunction } from "./check.js";
import { Emitter } from "./emitter.js";
/** @internal */
export function parseStatus(text) {
    const { switchedOff, lastSyncedAt, healed, ...rest } = JSON.parse(text);
    const status = {
        ...rest,
        lastSyncedAt: lastSyncedAt === null ? null : new Date(lastSyncedAt),
        healed: healed && { ...healed, at: new Date(healed.at) },
    };
    return { status, switchedOff };
}
/** The present {@link Status} and its changes. */
export class StatusFeed {
    #current;
    #listeners = new Emitter();
    /** @internal */
    constructor(status, evicted) {
        this.#current = { ...status, evicted };
    }
    /** The status now. */
    get current() {
        return this.#current;
    }
    /** Calls back with the status now, and again with each change. */
    subscribe(listener) {
        checkFunction(listener, "the listener of a subscription");
        const off = this.#listeners.add(listener);
        listener(this.#current);
        return off;
    }
    /** @internal */
    set(status) {
        this.#current = { ...status, evicted: this.#current.evicted };
        this.#listeners.emit(this.#current);
    }
    /** @internal Errors that no call reports. */
    fail(error) {
        if (error.code === "closed")
            return;
        this.set({ ...this.#current, state: "storage-error", detail: error.message });
    }
    /** @internal */
    close() {
        this.#listeners.clear();
    }
}
