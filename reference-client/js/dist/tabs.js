import { Emitter } from "./emitter.js";
/** A leader that says nothing for this long is taken to be frozen. */
const FROZEN_AFTER_MS = 5_000;
/**
 * Elects, among the tabs that have one store open, the one that talks to the server, and carries messages between
 * them. Every tab reads and writes the store itself: only the network is elected.
 *
 * The lock of a tab that closes or crashes passes to another tab at once. A tab that is frozen in the background
 * keeps its lock, so a tab that needs the leader and hears nothing takes the lock away from it.
 *
 * Without Web Locks nobody can be elected, and without BroadcastChannel nobody could ask the one that is: then each tab
 * leads for itself, and the store lets the one sync that began last; when a tab is closed, another one begins. Without
 * BroadcastChannel tabs notice each other's writes by looking from time to time (see `poll` of the constructor), and
 * begin to sync again when they are asked to.
 */
export class Tabs {
    id = crypto.randomUUID();
    /** Whether this tab talks to the server. */
    leading = false;
    /** Whether there is no election: another tab may have begun to sync since, and this one is to take that over again. */
    unelected = false;
    messages = new Emitter();
    #name;
    #onLead;
    #poll;
    #channel;
    #closed = new AbortController();
    #release;
    #frozenTimer;
    #pollTimer;
    constructor(name, onLead, poll) {
        this.#name = `gosync:${name}`;
        this.#onLead = onLead;
        this.#poll = poll;
    }
    /** Joins the other tabs. */
    start() {
        if (typeof BroadcastChannel === "function") {
            this.#channel = new BroadcastChannel(this.#name);
            this.#channel.onmessage = event => this.#receive(event.data);
            this.#channel.unref?.(); // Node: an open channel keeps no process alive
        }
        else {
            this.#pollTimer = setInterval(this.#poll, 1_000);
        }
        const locks = globalThis.navigator?.locks;
        this.unelected = !locks || !this.#channel;
        if (locks && this.#channel)
            void this.#campaign(locks, false);
        else
            this.#lead(true);
    }
    /** Tells the other tabs. */
    send(message) {
        this.#channel?.postMessage(message);
    }
    /** Makes sure that somebody leads who is awake; call it when the leader is needed. */
    expectLeader() {
        const locks = globalThis.navigator?.locks;
        if (this.leading || this.#frozenTimer !== undefined || !this.#channel || !locks)
            return;
        this.send({ type: "who", from: this.id });
        this.#frozenTimer = setTimeout(() => {
            this.#frozenTimer = undefined;
            if (!this.leading)
                void this.#campaign(locks, true);
        }, FROZEN_AFTER_MS);
    }
    close() {
        this.#closed.abort();
        this.#release?.();
        clearTimeout(this.#frozenTimer);
        clearInterval(this.#pollTimer);
        this.#channel?.close();
        this.messages.clear();
    }
    async #campaign(locks, steal) {
        const options = steal ? { steal } : { signal: this.#closed.signal };
        try {
            await locks.request(this.#name, options, async () => {
                if (this.#closed.signal.aborted)
                    return;
                const released = new Promise(resolve => (this.#release = resolve));
                this.#lead(true);
                await released;
            });
        }
        catch {
            // closed while waiting, or the lock was taken away
        }
        this.#lead(false);
        // Where the lock was lost rather than given up, stand again; a lock that was taken comes back when that tab goes.
        if (!this.#closed.signal.aborted && !steal)
            void this.#campaign(locks, false);
    }
    #lead(lead) {
        if (this.leading === lead)
            return;
        this.leading = lead;
        this.#onLead(lead && !this.#closed.signal.aborted);
    }
    #receive(message) {
        if (message.type === "who" && this.leading)
            this.send({ type: "here" });
        if (message.type === "here" || message.type === "status") {
            clearTimeout(this.#frozenTimer);
            this.#frozenTimer = undefined;
        }
        this.messages.emit(message);
    }
}
