import { checkFunction } from "./check.js";
import { Emitter } from "./emitter.js";
import type { GoSyncError } from "./errors.js";
import type { Healed, Status, Unsubscribe } from "./types.js";

/** {@link Status} as the WASM module writes it: dates as milliseconds. */
type StatusText = Omit<Status, "lastSyncedAt" | "healed" | "evicted"> & {
  lastSyncedAt: number | null;
  healed: (Omit<Healed, "at"> & { at: number }) | null;
  /** Whether this opening is not to talk to the server, or another one has taken that over. */
  switchedOff: boolean;
};

/** @internal */
export type SyncStatus = Omit<Status, "evicted">;

/** @internal */
export function parseStatus(text: string): { status: SyncStatus; switchedOff: boolean } {
  const { switchedOff, lastSyncedAt, healed, ...rest } = JSON.parse(text) as StatusText;
  const status = {
    ...rest,
    lastSyncedAt: lastSyncedAt === null ? null : new Date(lastSyncedAt),
    healed: healed && { ...healed, at: new Date(healed.at) },
  };
  return { status, switchedOff };
}

/** The present {@link Status} and its changes. */
export class StatusFeed {
  #current: Status;
  #listeners = new Emitter<Status>();

  /** @internal */
  constructor(status: SyncStatus, evicted: boolean) {
    this.#current = { ...status, evicted };
  }

  /** The status now. */
  get current(): Status {
    return this.#current;
  }

  /** Calls back with the status now, and again with each change. */
  subscribe(listener: (status: Status) => void): Unsubscribe {
    checkFunction(listener, "the listener of a subscription");
    const off = this.#listeners.add(listener);
    listener(this.#current);
    return off;
  }

  /** @internal */
  set(status: SyncStatus): void {
    this.#current = { ...status, evicted: this.#current.evicted };
    this.#listeners.emit(this.#current);
  }

  /** @internal Errors that no call reports. */
  fail(error: GoSyncError): void {
    if (error.code === "closed") return;
    this.set({ ...this.#current, state: "storage-error", detail: error.message });
  }

  /** @internal */
  close(): void {
    this.#listeners.clear();
  }
}
