// Every operation of IndexedDB aborted once, opening and upgrading included, and a process that freezes at each: what
// was told to be saved is there, and the rest wholly or not at all.

import "fake-indexeddb/auto";
import assert from "node:assert/strict";
import { test } from "node:test";
import { GoSyncError, init, open } from "../dist/index.js";

// Nothing listens on this port.
const url = "http://127.0.0.1:9";
/** No step of a life takes longer. */
const PATIENCE_MS = 10_000;

/** Operations so far, and what becomes of the next ones: see `strike`. */
const faults = { passed: 0, at: Infinity, freezes: false, met: 0 };

/** Whether this operation fails. */
function fails() {
  faults.passed++;
  const now = faults.freezes ? faults.passed >= faults.at : faults.passed === faults.at;
  if (now) faults.met++;
  return now;
}

function failure() {
  return new DOMException("on purpose", "UnknownError");
}

/** Lets each call of these methods count as an operation; one that fails aborts its transaction after it was begun. */
function strike(kind, names, transaction) {
  for (const name of names) {
    const original = kind.prototype[name];
    assert.equal(typeof original, "function", `${kind.name}.${name}`);
    kind.prototype[name] = function (...args) {
      const result = original.apply(this, args);
      if (fails()) {
        try {
          transaction(this, result).abort();
        } catch {
          // it is over already
        }
      }
      return result;
    };
  }
}

const READS = ["get", "getAll", "getAllKeys", "count", "openCursor"];
strike(IDBObjectStore, [...READS, "put", "delete", "createIndex"], source => source.transaction);
strike(IDBIndex, READS, source => source.objectStore.transaction);
strike(IDBDatabase, ["transaction"], (_, begun) => begun);
let upgrading;
strike(IDBDatabase, ["createObjectStore"], () => upgrading);
const opening = IDBFactory.prototype.open;
IDBFactory.prototype.open = function (...args) {
  if (fails()) throw failure();
  const request = opening.apply(this, args);
  request.addEventListener("upgradeneeded", () => (upgrading = request.transaction));
  return request;
};

async function within(what, work) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new assert.AssertionError({ message: `${what}: no answer` })), PATIENCE_MS);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function rows(db) {
  const found = await db.collection("notes").list();
  return found.map(({ $id, a, b }) => [$id, a, b]);
}

/** What a user does, and what is there afterwards. */
const LIFE = [
  [db => db.collection("notes").put("n1", { a: 1, b: 1 }).local, [["n1", 1, 1]]],
  [db => db.collection("notes").put("n2", { a: 2, b: 2 }).local, [["n1", 1, 1], ["n2", 2, 2]]],
  [db => db.collection("notes").patch("n1", { a: 3, b: 3 }).local, [["n1", 3, 3], ["n2", 2, 2]]],
  [
    db =>
      db.batch(batch => {
        batch.collection("notes").delete("n2");
        batch.collection("notes").put("n3", { a: 4, b: 4 });
      }).local,
    [["n1", 3, 3], ["n3", 4, 4]],
  ],
  [
    async db => {
      const [first] = await db.pending();
      await db.discard(first.id);
    },
    undefined, // what shows then is read where nothing fails
  ],
  [db => db.collection("notes").put("n1", { a: 5, b: 5 }).local, [["n1", 5, 5], ["n3", 4, 4]]],
];

async function opened(name) {
  return within("open", open({ name, url, space: "crash", persist: false }));
}

/** Lives with the failure that is set; returns what may be there in the end: the content before and after the step
 * that was under way, if there was one. */
async function live(name, contents) {
  let db;
  let step = 0;
  try {
    db = await opened(name);
    for (; step < LIFE.length; step++) await within(`step ${step}`, LIFE[step][0](db));
    return [contents[step]];
  } catch (error) {
    assert.ok(error instanceof GoSyncError, `step ${step}: ${error}`);
    if (!faults.freezes) {
      // one failure is told once, and leaves nothing of the step; then all works again
      faults.at = Infinity;
      db ??= await opened(name);
      assert.deepEqual(await rows(db), contents[step], `step ${step} failed and left something`);
      for (; step < LIFE.length; step++) await within(`step ${step}`, LIFE[step][0](db));
    }
    return [contents[step], contents[step + 1] ?? contents[step]];
  } finally {
    faults.at = faults.freezes ? faults.at : Infinity;
    await db?.close().catch(() => undefined);
  }
}

/** At each operation, until there are no more. How many a life takes depends a little on what syncing does beside. */
async function everywhere(freezes, contents) {
  let told = 0;
  let missed = 0;
  let at = 0;
  while (missed < 3) {
    const name = `${freezes ? "frozen" : "aborted"}-${++at}`;
    Object.assign(faults, { passed: 0, at, freezes, met: 0 });
    const may = await live(name, contents);
    missed = faults.met === 0 ? missed + 1 : 0;
    faults.at = Infinity;
    const db = await opened(name);
    const held = await rows(db);
    assert.ok(
      may.some(content => JSON.stringify(content) === JSON.stringify(held)),
      `operation ${at}: ${JSON.stringify(held)} is none of ${JSON.stringify(may)}`,
    );
    await db.collection("notes").put("later", { a: 9, b: 9 }).local;
    await db.close();
    if (may.length > 1) told++;
  }
  return { operations: at - missed, told };
}

test("a store in IndexedDB survives a failure at every operation", async t => {
  await init();
  // what is there after each step, where nothing fails
  const contents = [[]];
  const db = await opened("never");
  for (const [step, after] of LIFE) {
    await step(db);
    const held = await rows(db);
    if (after) assert.deepEqual(held, after);
    contents.push(held);
  }
  await db.close();

  for (const freezes of [false, true]) {
    await t.test(freezes ? "frozen from there on" : "aborted once", async t => {
      const { operations, told } = await everywhere(freezes, contents);
      t.diagnostic(`${operations} operations, ${told} of them told`);
      assert.ok(operations > 60, `only ${operations} operations`);
      assert.ok(told > 10, `only ${told} were told`);
    });
  }
});
