/**
 * Local-first data that syncs.
 *
 * ```ts
 * import { init, open } from "@gosync/client";
 *
 * await init();
 * const db = await open({ name: "todos", url: "https://sync.example.com", space: "team-1", auth: async () => token() });
 * const todos = db.collection<Todo>("todos");
 *
 * const w = todos.put("t1", { title: "Milk", done: false });
 * await w.local;              // durable on this device
 * const r = await w.server;   // what the server decided
 *
 * const off = todos.subscribe(rows => render(rows));
 * ```
 *
 * @module
 */
export { init, type InitSource } from "./init.js";
export { Database, open } from "./database.js";
export { Batch, Collection, type Writer } from "./collection.js";
export { Records, type StoredRecord } from "./records.js";
export { StatusFeed } from "./status.js";
export { GoSyncError, type ErrorCode } from "./errors.js";
export type {
  Healed,
  Json,
  OpenOptions,
  PendingWrite,
  Row,
  State,
  Status,
  Unsubscribe,
  Verification,
  Write,
  WriteResult,
} from "./types.js";
