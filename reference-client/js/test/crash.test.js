// Every operation of IndexedDB aborted once, opening and upgrading included, and a process that freezes at each: what
// was told to be saved is there, and the rest wholly or not at all. Likewise while it syncs with a server; and the
// opening of a store that is there, of the present schema and of an older one.

import "fake-indexeddb/auto";
import assert from "node:assert/strict";
import { test } from "node:test";
import { GoSyncError, init, open } from "../dist/index.js";
import { Server } from "./server.js";

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
  request.addEventListener("upgradeneeded", () => {
    upgrading = request.transaction;
    // before the schema is brought up to date, and after: when it is committed
    abortsUpgrade();
    queueMicrotask(abortsUpgrade);
  });
  return request;
};

function abortsUpgrade() {
  if (!fails()) return;
  try {
    upgrading.abort();
  } catch {
    // it is over already
  }
}

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

async function opened(name, { at = url, space = "crash" } = {}) {
  return within("open", open({ name, url: at, space, persist: false }));
}

/** What a user does who has a server, whose space already holds n0, and what is there once all has synced. */
const SYNCED_LIFE = [
  [db => db.collection("notes").put("n1", { a: 1, b: 1 }).local, [["n0", 0, 0], ["n1", 1, 1]]],
  [db => db.sync(), [["n0", 0, 0], ["n1", 1, 1]]],
  [
    db =>
      db.batch(batch => {
        batch.collection("notes").patch("n1", { a: 3, b: 3 });
        batch.collection("notes").delete("n0");
        batch.collection("notes").put("n2", { a: 2, b: 2 });
      }).local,
    [["n1", 3, 3], ["n2", 2, 2]],
  ],
  [db => db.sync(), [["n1", 3, 3], ["n2", 2, 2]]],
];

/** Lives with the failure that is set; returns what may be there in the end: the content before and after the step
 * that was under way, if there was one. */
async function live(name, contents, life = LIFE, place = {}) {
  let db;
  let step = 0;
  try {
    db = await opened(name, place);
    for (; step < life.length; step++) await within(`step ${step}`, life[step][0](db));
    return [contents[step]];
  } catch (error) {
    assert.ok(error instanceof GoSyncError, `step ${step}: ${error}`);
    if (!faults.freezes) {
      // one failure is told once, and leaves nothing of the step; then all works again
      faults.at = Infinity;
      db ??= await opened(name, place);
      if (life === LIFE) assert.deepEqual(await rows(db), contents[step], `step ${step} failed and left something`);
      for (; step < life.length; step++) await within(`step ${step}`, life[step][0](db));
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

/** The rows of a device that has nothing but what the server holds. */
async function heldBy(place, name) {
  const db = await opened(name, place);
  await within("sync", db.sync());
  const held = await rows(db);
  await db.close();
  return held;
}

test("a store that syncs survives a failure at every operation, and loses nothing between itself and the server", async t => {
  await init();
  const server = await Server.create(t);
  const contents = [[["n0", 0, 0]], ...SYNCED_LIFE.map(([, after]) => after)];
  for (const freezes of [false, true]) {
    await t.test(freezes ? "frozen from there on" : "aborted once", async t => {
      let missed = 0;
      let at = 0;
      while (missed < 3) {
        const name = `synced-${freezes}-${++at}`;
        const place = { at: server.url, space: name };
        faults.at = Infinity;
        const before = await opened(`${name}-before`, place);
        await before.collection("notes").put("n0", { a: 0, b: 0 }).local;
        await within("sync", before.sync());
        await before.close();

        Object.assign(faults, { passed: 0, at, freezes, met: 0 });
        const may = await live(name, contents, SYNCED_LIFE, place);
        missed = faults.met === 0 ? missed + 1 : 0;
        faults.at = Infinity;
        const db = await opened(name, place);
        await within("sync", db.sync());
        const held = await rows(db);
        assert.ok(
          may.some(content => JSON.stringify(content) === JSON.stringify(held)),
          `operation ${at}: ${JSON.stringify(held)} is none of ${JSON.stringify(may)}`,
        );
        const { equal } = await within("verify", db.verify());
        assert.ok(equal, `operation ${at}: not equal`);
        await db.close();
        assert.deepEqual(await heldBy(place, `${name}-after`), held, `operation ${at}`);
      }
      t.diagnostic(`${at - missed} operations`);
      assert.ok(at - missed > 60, `only ${at - missed} operations`);
    });
  }
});

/** The present schema, and the present version of the database: with the third came an index of the writes in doubt. */
const SCHEMA = 3;
const VERSION = 4;
const indexesOf = version => (version < 3 ? ["k", "r"] : ["d", "k", "r"]);
const STORES = ["clean", "meta", "offers", "quarantine", "writes"];
/** Of a write's row: the record begins behind its flags, two numbers and two empty texts. */
const RECORD_AT = 25;
/** Among these flags. */
const IN_DOUBT = 2;

/** The result of a request of IndexedDB. */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** All that lies in the database, past the client: its schema, and each row. */
async function raw(name) {
  const db = await result(indexedDB.open(name));
  const stores = [...db.objectStoreNames];
  const tx = db.transaction(stores);
  const rows = {};
  for (const name of stores) {
    const store = tx.objectStore(name);
    const [keys, values] = await Promise.all([result(store.getAllKeys()), result(store.getAll())]);
    // a key of bytes comes back as a buffer
    rows[name] = keys.map((key, i) => [key instanceof ArrayBuffer ? new Uint8Array(key) : key, values[i]]);
  }
  const indexes = [...tx.objectStore("writes").indexNames];
  const { version } = db;
  db.close();
  return { version, stores, indexes, rows };
}

/** The rows as that version has them. */
function rowsOf(version, rows) {
  const marked = ([key, write]) => [key, write.b[0] & IN_DOUBT ? { ...write, d: 1 } : write];
  return version < 3 ? rows : { ...rows, writes: rows.writes.map(marked) };
}

/** Lays rows down as the client of a schema would have left them. */
async function lay(name, version, rows) {
  const request = indexedDB.open(name, version);
  request.onupgradeneeded = () => {
    for (const name of STORES) request.result.createObjectStore(name);
    for (const index of indexesOf(version)) request.transaction.objectStore("writes").createIndex(index, index);
  };
  const db = await result(request);
  const tx = db.transaction(STORES, "readwrite");
  for (const name of STORES) {
    for (const [key, value] of rowsOf(version, rows)[name]) tx.objectStore(name).put(value, key);
  }
  await new Promise((resolve, reject) => {
    tx.oncomplete = resolve;
    tx.onabort = () => reject(tx.error);
  });
  db.close();
}

/** The rows of a store of schema 1 with a bit of everything: clean records, unsent writes, a batch among them, an
 * offer, and a record in quarantine, which stood there without a reason. */
async function older() {
  const db = await opened("older");
  for (const id of ["n1", "n2", "n3"]) await db.collection("notes").put(id, { a: id, b: 1 }).local;
  await LIFE[3][0](db);
  await db.collection("notes").patch("n1", { a: "later" }).local;
  await db.close();
  const { version, stores, indexes, rows } = await raw("older");
  assert.deepEqual([version, stores, indexes], [VERSION, STORES, indexesOf(VERSION)], "schema 1 was otherwise the same");
  const [written, ...writes] = rows.writes.map(([, write]) => write);
  const records = [written, ...writes].map(write => write.b.slice(RECORD_AT));
  const meta = JSON.parse(new TextDecoder().decode(rows.meta[0][1]));
  assert.equal(meta.schema, SCHEMA);
  writes.at(-1).b[0] |= IN_DOUBT;
  return {
    // each put is two fields: n1.a, n1.b, n2.a, ...
    clean: [[new Uint8Array([0]), Uint8Array.from([...records[0], ...records[1]])]],
    meta: [["meta", new TextEncoder().encode(JSON.stringify({ ...meta, schema: 1 }))]],
    offers: [[written.k, 1]],
    quarantine: [[writes[4].k, records[5]]],
    writes: rows.writes.slice(2),
  };
}

/** What an application sees of it. */
async function shown(db) {
  const [notes, pending, quarantined] = [await rows(db), await db.pending(), await db.quarantined()];
  const told = pending.map(({ id, key, batch, inDoubt }) => [id, key, batch, inDoubt]);
  return { notes, pending: told, inDoubt: db.status.current.inDoubt, quarantined };
}

/** Opens stores of a version with a failure at each operation, until there are no more. */
async function openedEverywhere(version, freezes, rows, expected) {
  const told = [];
  for (let at = 1; ; at++) {
    const name = `schema-${version}-${freezes ? "frozen" : "aborted"}-${at}`;
    const about = `operation ${at}`;
    faults.at = Infinity;
    await lay(name, version, rows);
    Object.assign(faults, { passed: 0, at, freezes, met: 0 });
    let db;
    try {
      db = await opened(name);
    } catch (error) {
      assert.ok(error instanceof GoSyncError, `${about}: ${error}`);
      told.push(error);
    }
    if (freezes) await db?.close().catch(() => undefined);
    const { met } = faults;
    faults.at = Infinity;
    const left = await raw(name);
    assert.ok(left.version === version || left.version === VERSION, `${about}: version ${left.version}`);
    assert.deepEqual([left.stores, left.indexes], [STORES, indexesOf(left.version)], about);
    // an opening numbers itself in the meta row, and touches nothing else
    for (const store of STORES.filter(store => store !== "meta")) {
      assert.deepEqual(left.rows[store], rowsOf(left.version, rows)[store], `${about}: ${store}`);
    }
    if (freezes || db === undefined) db = await opened(name);
    assert.deepEqual(await shown(db), expected, about);
    await db.collection("notes").put("later", { a: 9, b: 9 }).local;
    await db.close();
    assert.equal((await raw(name)).version, VERSION, about);
    if (met === 0) return { operations: at - 1, told: told.length };
  }
}

test("a store that is there survives a failure at every operation of its opening, whatever its schema", async t => {
  await init();
  const rows = await older();
  await lay("expected", 1, rows);
  const db = await opened("expected");
  const expected = await shown(db);
  await db.close();
  assert.deepEqual(expected.notes, [["n1", "later", 1], ["n3", 4, 4]]);
  assert.deepEqual([expected.quarantined.length, expected.inDoubt], [1, 1]);

  const counts = {};
  for (const version of [1, 2, 3, VERSION]) {
    for (const freezes of [false, true]) {
      await t.test(`version ${version}, ${freezes ? "frozen from there on" : "aborted once"}`, async t => {
        const { operations, told } = await openedEverywhere(version, freezes, rows, expected);
        t.diagnostic(`${operations} operations, ${told} of them told`);
        assert.ok(told > 0, "no failure was told");
        if (!freezes) counts[version] = operations;
      });
    }
  }
  const steps = counts[1] - counts[VERSION];
  assert.ok(steps >= 2, `the step between the versions is not among them: ${JSON.stringify(counts)}`);
});
