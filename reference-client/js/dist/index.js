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
export { init } from "./init.js";
export { open } from "./database.js";
export { GoSyncError } from "./errors.js";
