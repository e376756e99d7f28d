import { Emitter } from "./emitter.js";
import type { Unsubscribe } from "./types.js";

/** What a live query asks for. */
export interface Query<V> {
  read(): Promise<V>;
  /** Whether the listener need not hear of `next` after `last`. */
  same(last: V, next: V): boolean;
  /** Emits when something was written; tells the names of the collections that changed, or null when any may have. */
  changes: Emitter<string[] | null>;
  /** Whether such a change may concern this query. */
  concerns(collections: string[] | null): boolean;
  /** Errors of reads, which nobody awaits. */
  fail(error: unknown): void;
}

/** Calls back with what the query reads now, and again whenever it reads otherwise. */
export function live<V>(query: Query<V>, listener: (value: V) => void): Unsubscribe {
  const heard = new Emitter<V>();
  heard.add(listener);
  let last: { value: V } | undefined;
  let running = false;
  let again = false;
  let over = false;
  const refresh = async (): Promise<void> => {
    // One read at a time; what changes meanwhile is read once more afterwards.
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      do {
        again = false;
        const value = await query.read();
        if (over || (last && query.same(last.value, value))) continue;
        last = { value };
        heard.emit(value);
      } while (again && !over);
    } catch (error) {
      if (!over) query.fail(error);
    } finally {
      running = false;
    }
  };
  const off = query.changes.add(collections => {
    if (query.concerns(collections)) void refresh();
  });
  void refresh();
  return () => {
    over = true;
    off();
  };
}
