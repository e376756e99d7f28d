// Openings of the package on Node, as if each were a device of its own, and what tests wait for.

import "fake-indexeddb/auto";
import { init, open } from "../dist/index.js";
import { within } from "./server.js";

let stores = 0;

/** Opens a store of its own, or the one that `options` name; closed when the test ends. */
export async function device(t, url, options = {}) {
  await init();
  const db = await open({ name: `device-${++stores}`, url, space: "test", ...options });
  t.after(() => db.close());
  return db;
}

/** Resolves with the first status that is as wanted, the present one included. */
export function status(db, what, wanted) {
  let off = () => undefined;
  const found = within(`the status: ${what}, not ${JSON.stringify(db.status.current)}`, signal => {
    return new Promise(resolve => {
      off = db.status.subscribe(status => wanted(status) && resolve(status));
      signal.addEventListener("abort", () => off());
    });
  });
  return found.finally(() => off());
}

/** Resolves when the device is in that state. */
export function is(db, state) {
  return status(db, state, status => status.state === state);
}

/** Resolves with the rows of a collection, or the records, when they are as wanted. */
export function rows(source, what, wanted, options = {}) {
  let off = () => undefined;
  const found = within(what, signal => {
    return new Promise(resolve => {
      off = source.subscribe(options, rows => wanted(rows) && resolve(rows));
      signal.addEventListener("abort", () => off());
    });
  });
  return found.finally(() => off());
}

/** Syncs, as often as it takes until the server is there. */
export function synced(db) {
  return within("in sync", async signal => {
    while (!signal.aborted) {
      try {
        return await db.sync();
      } catch (error) {
        if (error.code !== "offline") throw error;
        await new Promise(resolve => setTimeout(resolve, 50));
      }
    }
  });
}

/** Waits until the clock has moved, so that what is written next is newer. */
export async function later() {
  const now = Date.now();
  while (Date.now() <= now) await new Promise(setImmediate);
}

export function bytes(text) {
  return new TextEncoder().encode(text);
}

export function text(bytes) {
  return new TextDecoder().decode(bytes);
}
