import type { Unsubscribe } from "./types.js";

/** Listeners of one kind of event. A listener that throws does not keep the others from hearing. */
export class Emitter<T> {
  #listeners = new Set<(value: T) => void>();

  add(listener: (value: T) => void): Unsubscribe {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  emit(value: T): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(value);
      } catch (error) {
        reportError(error);
      }
    }
  }

  clear(): void {
    this.#listeners.clear();
  }
}

/** Errors of the application's own callbacks go where uncaught errors go. */
function reportError(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}
