import { Emitter } from "./emitter.js";
import type { ErrorParts } from "./errors.js";

/**
 * What tabs with the same store tell each other. `news`: what one of them did, and the collections that it touched;
 * `who`: a tab that wants to know where syncing stands; `here`: the leader is awake; `leading`: there is a new
 * one; `gone`: a tab was closed; `status`: what the leader tells; `call`, `reply`: work that only the leader can do. News
 * without words: anything may have changed.
 */
export type Message =
  | { type: "news"; news: string | null; collections: string[] | null }
  | { type: "status"; status: string }
  | { type: "who"; from: string }
  | { type: "here" }
  | { type: "leading" }
  | { type: "gone" }
  | { type: "call"; from: string; call: number; method: "sync" | "verify" }
  | { type: "reply"; to: string; call: number; result?: string; error?: ErrorParts };

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
  readonly id = crypto.randomUUID();
  /** Whether this tab talks to the server. */
  leading = false;
  /** Whether there is no election: another tab may have begun to sync since, and this one is to take that over again. */
  unelected = false;
  readonly messages = new Emitter<Message>();

  #name: string;
  #onLead: (lead: boolean) => void;
  #poll: () => void;
  #channel: BroadcastChannel | undefined;
  #closed = new AbortController();
  #release: (() => void) | undefined;
  #frozenTimer: ReturnType<typeof setTimeout> | undefined;
  #pollTimer: ReturnType<typeof setInterval> | undefined;

  constructor(name: string, onLead: (lead: boolean) => void, poll: () => void) {
    this.#name = `gosync:${name}`;
    this.#onLead = onLead;
    this.#poll = poll;
  }

  /** Joins the other tabs. */
  start(): void {
    if (typeof BroadcastChannel === "function") {
      this.#channel = new BroadcastChannel(this.#name);
      this.#channel.onmessage = event => this.#receive(event.data as Message);
      (this.#channel as { unref?: () => void }).unref?.(); // Node: an open channel keeps no process alive
    } else {
      this.#pollTimer = setInterval(this.#poll, 1_000);
    }
    const locks = globalThis.navigator?.locks;
    this.unelected = !locks || !this.#channel;
    if (locks && this.#channel) void this.#campaign(locks, false);
    else this.#lead(true);
  }

  /** Tells the other tabs. */
  send(message: Message): void {
    this.#channel?.postMessage(message);
  }

  /** Makes sure that somebody leads who is awake; call it when the leader is needed. */
  expectLeader(): void {
    const locks = globalThis.navigator?.locks;
    if (this.leading || this.#frozenTimer !== undefined || !this.#channel || !locks) return;
    this.send({ type: "who", from: this.id });
    this.#frozenTimer = setTimeout(() => {
      this.#frozenTimer = undefined;
      if (!this.leading) void this.#campaign(locks, true);
    }, FROZEN_AFTER_MS);
  }

  close(): void {
    this.#closed.abort();
    this.#release?.();
    clearTimeout(this.#frozenTimer);
    clearInterval(this.#pollTimer);
    this.#channel?.close();
    this.messages.clear();
  }

  async #campaign(locks: LockManager, steal: boolean): Promise<void> {
    const options: LockOptions = steal ? { steal } : { signal: this.#closed.signal };
    try {
      await locks.request(this.#name, options, async () => {
        if (this.#closed.signal.aborted) return;
        const released = new Promise<void>(resolve => (this.#release = resolve));
        this.#lead(true);
        await released;
      });
    } catch {
      // closed while waiting, or the lock was taken away
    }
    this.#lead(false);
    // Where the lock was lost rather than given up, stand again; a lock that was taken comes back when that tab goes.
    if (!this.#closed.signal.aborted && !steal) void this.#campaign(locks, false);
  }

  #lead(lead: boolean): void {
    if (this.leading === lead) return;
    this.leading = lead;
    this.#onLead(lead && !this.#closed.signal.aborted);
  }

  #receive(message: Message): void {
    if (message.type === "who" && this.leading) this.send({ type: "here" });
    if (message.type === "here" || message.type === "status") {
      clearTimeout(this.#frozenTimer);
      this.#frozenTimer = undefined;
    }
    this.messages.emit(message);
  }
}
