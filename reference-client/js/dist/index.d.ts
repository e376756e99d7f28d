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
export { open, type Database } from "./database.js";
export type { Batch, Collection, Writer } from "./collection.js";
export type { RecordBatch, Records, StoredRecord } from "./records.js";
export type { StatusFeed } from "./status.js";
export { GoSyncError, type ErrorCode } from "./errors.js";
export type { Place } from "./keys.js";
export type { Reason } from "./reasons.js";
export type { Healed, HeldRange, OpenOptions, PendingWrite, Progress, QuarantinedRecord, Row, State, Status, Unsubscribe, Verification, Write, WriteResult, } from "./types.js";
