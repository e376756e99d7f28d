import { Emitter } from "./emitter.js";
import type { ErrorParts } from "./errors.js";
/**
 * What tabs with the same store tell each other. `news`: what one of them did, and the collections that it touched;
 * `who`: a tab that wants to know where syncing stands; `here`: the leader is awake; `leading`: there is a new
 * one; `gone`: a tab was closed; `status`: what the leader tells; `call`, `reply`: work that only the leader can do. News
 * without words: anything may have changed.
 */
export type Message = {
    type: "news";
    news: string | null;
    collections: string[] | null;
} | {
    type: "status";
    status: string;
} | {
    type: "who";
    from: string;
} | {
    type: "here";
} | {
    type: "leading";
} | {
    type: "gone";
} | {
    type: "call";
    from: string;
    call: number;
    method: "sync" | "verify";
} | {
    type: "reply";
    to: string;
    call: number;
    result?: string;
    error?: ErrorParts;
};
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
export declare class Tabs {
    #private;
    readonly id: `${string}-${string}-${string}-${string}-${string}`;
    /** Whether this tab talks to the server. */
    leading: boolean;
    /** Whether there is no election: another tab may have begun to sync since, and this one is to take that over again. */
    unelected: boolean;
    readonly messages: Emitter<Message>;
    constructor(name: string, onLead: (lead: boolean) => void, poll: () => void);
    /** Joins the other tabs. */
    start(): void;
    /** Tells the other tabs. */
    send(message: Message): void;
    /** Makes sure that somebody leads who is awake; call it when the leader is needed. */
    expectLeader(): void;
    close(): void;
}
