// The package as an application on Node uses it, without a server: what must work must work offline.

import "fake-indexeddb/auto";
import assert from "node:assert/strict";
import { test } from "node:test";
import { GoSyncError, init, open } from "../dist/index.js";
import { status, text } from "./device.js";

// Nothing listens on this port.
const url = "http://127.0.0.1:9";
let stores = 0;

/** What a row says of itself while the server has not answered. */
const waiting = { $pending: true, $rejected: false, $unreadable: [] };

async function opened(t, options = {}) {
  const db = await open({ name: `test-${++stores}`, url, space: "test", ...options });
  t.after(() => db.close());
  return db;
}

/** The rows of the first call, and then of each further one, of a subscription. */
function watch(collection, options = {}) {
  const seen = [];
  let wake = () => {};
  const off = collection.subscribe(options, rows => {
    seen.push(rows);
    wake();
  });
  return {
    off,
    seen,
    async until(test) {
      while (!(seen.length > 0 && test(seen.at(-1)))) await new Promise(resolve => (wake = resolve));
      return seen.at(-1);
    },
  };
}

/** Makes a closed store what version 2 of the database was, with the writes in doubt whose key is as wanted. */
async function asVersion2(name, doubted) {
  const done = request =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  const present = await done(indexedDB.open(name));
  const kept = await Promise.all(
    [...present.objectStoreNames].map(async store => {
      const at = present.transaction(store).objectStore(store);
      return [store, ...(await Promise.all([done(at.getAllKeys()), done(at.getAll())]))];
    }),
  );
  present.close();
  await done(indexedDB.deleteDatabase(name));
  const request = indexedDB.open(name, 2);
  request.onupgradeneeded = () => {
    for (const [store, keys, rows] of kept) {
      const at = request.result.createObjectStore(store);
      if (store === "writes") for (const index of ["k", "r"]) at.createIndex(index, index);
      rows.forEach((row, i) => {
        if (store === "writes" && doubted(text(row.k))) row.b[0] |= 2; // the mark of a write in doubt
        at.put(row, keys[i]);
      });
    }
  };
  (await done(request)).close();
}

test("open() before init() says what to do", async () => {
  await assert.rejects(open({ name: "early", url, space: "test" }), { code: "not-initialised" });
});

test("with the module loaded", async t => {
  await init();

  await t.test("init() may be called again", () => init());

  await t.test("a document is there as soon as its write is durable, and waits for the server", async t => {
    const todos = (await opened(t)).collection("todos");
    await todos.put("t1", { title: "Milk", done: false }).local;
    assert.deepEqual(await todos.get("t1"), { title: "Milk", done: false, $id: "t1", ...waiting });
    assert.equal(await todos.get("t2"), undefined);
  });

  await t.test("awaiting a write is awaiting that it is durable", async t => {
    const todos = (await opened(t)).collection("todos");
    await todos.put("t1", { n: 1 });
    assert.equal((await todos.get("t1")).n, 1);
  });

  await t.test("fields hold whatever JSON holds", async t => {
    const things = (await opened(t)).collection("things");
    const fields = { text: "ä\0\"🟢", list: [1, [true, null]], object: { deep: { er: 0.5 } }, nothing: null, no: false };
    await things.put("t", fields);
    assert.deepEqual(await things.get("t"), { ...fields, $id: "t", ...waiting });
  });

  await t.test("a field of another application that is no JSON is kept, and told as unreadable", async t => {
    const db = await opened(t);
    const things = db.collection("things");
    await things.put("t", { fine: 1 });
    const key = new TextEncoder().encode("things\0t\0broken");
    await db.records.put(key, new TextEncoder().encode("{"));
    assert.deepEqual(await things.get("t"), { fine: 1, $id: "t", ...waiting, $unreadable: ["broken"] });
    assert.equal((await db.records.get(key)).value.length, 1);
  });

  await t.test("patch changes some fields, put replaces all, delete removes", async t => {
    const todos = (await opened(t)).collection("todos");
    await todos.put("t1", { title: "Milk", done: false, note: "2 l" });
    await todos.patch("t1", { done: true });
    assert.deepEqual(await todos.get("t1"), { title: "Milk", done: true, note: "2 l", $id: "t1", ...waiting });
    await todos.patch("t1", { note: undefined });
    assert.deepEqual(await todos.get("t1"), { title: "Milk", done: true, $id: "t1", ...waiting });
    await todos.put("t1", { title: "Bread" });
    assert.deepEqual(await todos.get("t1"), { title: "Bread", $id: "t1", ...waiting });
    await todos.delete("t1");
    assert.equal(await todos.get("t1"), undefined);
    assert.deepEqual(await todos.list(), []);
    await assert.rejects(todos.patch("t1", { done: true }).local, { code: "invalid", message: /t1/ });
  });

  await t.test("list gives the documents of a collection in the order of their ids, by prefix", async t => {
    const db = await opened(t);
    const todos = db.collection("todos");
    await db.collection("other").put("a", {});
    for (const id of ["b/2", "a/1", "b/1", "b"]) await todos.put(id, {});
    const ids = async options => (await todos.list(options)).map(row => row.$id);
    assert.deepEqual(await ids(), ["a/1", "b", "b/1", "b/2"]);
    assert.deepEqual(await ids({ prefix: "b/" }), ["b/1", "b/2"]);
  });

  await t.test("a subscription gets the rows now and after each change", async t => {
    const todos = (await opened(t)).collection("todos");
    await todos.put("t1", { n: 1 });
    const { until, off, seen } = watch(todos);
    await until(rows => rows.length === 1);
    await todos.put("t2", { n: 2 });
    await until(rows => rows.length === 2);
    await todos.patch("t1", { n: 3 });
    assert.deepEqual((await until(rows => rows[0].n === 3)).map(row => row.n), [3, 2]);
    off();
    const calls = seen.length;
    await todos.delete("t1");
    await todos.list();
    assert.equal(seen.length, calls);
  });

  await t.test("writes are kept in the order in which they were made, awaited or not", async t => {
    const todos = (await opened(t)).collection("todos");
    let last;
    for (let n = 0; n < 50; n++) last = todos.put("t", { n });
    await last.local;
    assert.equal((await todos.get("t")).n, 49);
  });

  await t.test("a batch becomes visible as a whole, or not at all", async t => {
    const db = await opened(t);
    const [from, to] = [db.collection("from"), db.collection("to")];
    await from.put("x", { n: 1 });
    await db.batch(b => {
      b.collection("from").delete("x");
      b.collection("to").put("x", { n: 1 });
    });
    assert.deepEqual([(await from.list()).length, (await to.list()).length], [0, 1]);

    const refused = db.batch(b => {
      b.collection("to").put("y", { n: 2 });
      b.collection("to").put("z\0", { n: 3 });
    });
    await assert.rejects(refused.local, { code: "invalid" });
    assert.deepEqual((await to.list()).map(row => row.$id), ["x"]);
  });

  await t.test("pending writes can be looked at and discarded", async t => {
    const db = await opened(t);
    const todos = db.collection("todos");
    const write = todos.put("t1", { title: "Milk" });
    await write.local;
    const pending = await db.pending();
    assert.deepEqual(
      pending.map(({ collection, document, field, state, deletes }) => [collection, document, field, state, deletes]),
      [
        ["todos", "t1", "", "waiting", false],
        ["todos", "t1", "title", "waiting", false],
      ],
    );
    assert.equal(db.status.current.pending, 2);
    assert.deepEqual(pending.map(({ batch }) => batch), [pending[0].id, pending[0].id]);
    await db.retry(pending[0].id); // waits already
    assert.equal((await db.pending()).length, 2);
    await db.discard(pending[1].id); // a document's records go together
    assert.deepEqual(await db.pending(), []);
    await assert.rejects(db.discard(pending[0].id), { code: "not-found", message: /no write 1 / });
    assert.equal(await todos.get("t1"), undefined);
    assert.equal((await write.server).status, "discarded");
  });

  await t.test("the status counts the writes in doubt, also those of a store of an earlier version", async t => {
    const name = `doubt-${++stores}`;
    const first = await open({ name, url, space: "test" });
    for (const id of ["t1", "t2", "t3"]) await first.collection("todos").put(id, {});
    assert.equal(first.status.current.inDoubt, 0);
    await first.close();
    await asVersion2(name, key => !key.startsWith("todos\0t3"));

    const second = await open({ name, url, space: "test" });
    assert.equal(second.status.current.inDoubt, 2);
    const doubted = async db => (await db.pending()).map(({ document, inDoubt }) => [document, inDoubt]);
    assert.deepEqual(await doubted(second), [["t1", true], ["t2", true], ["t3", false]]);
    assert.equal(second.status.current.pending, 3);
    await second.discard((await second.pending())[0].id);
    await status(second, "one in doubt", ({ inDoubt }) => inDoubt === 1);
    await second.close();
    const third = await opened(t, { name });
    assert.deepEqual([third.status.current.inDoubt, third.status.current.pending], [1, 2]);
  });

  await t.test("records hold bytes under keys of bytes", async t => {
    const db = await opened(t);
    const key = (...bytes) => Uint8Array.of(...bytes);
    await db.records.put(key(1, 255), key(0, 1, 2));
    await db.records.put(key(2), key());
    const { time, writer, ...rest } = await db.records.get(key(1, 255));
    assert.deepEqual(rest, { key: key(1, 255), value: key(0, 1, 2), pending: true, rejected: false });
    assert.equal(typeof time, "bigint");
    assert.equal(typeof writer, "bigint");
    assert.equal(await db.records.get(key(1)), undefined);
    const keys = records => records.map(record => [...record.key]);
    assert.deepEqual(keys(await db.records.list()), [[1, 255], [2]]);
    assert.deepEqual(keys(await db.records.list({ prefix: key(1) })), [[1, 255]]);

    const { until } = watch(db.records, { prefix: key(2) });
    await until(records => records.length === 1);
    await db.records.put(key(2, 0), key(9));
    await until(records => records.length === 2);
    await db.records.delete(key(2));
    assert.deepEqual(keys(await until(records => records.length === 1)), [[2, 0]]);

    const [write] = await db.pending();
    assert.deepEqual([write.key, write.collection], [key(1, 255), null]);
    await assert.rejects(db.records.put(key(), key()).local, { code: "invalid" });
    await assert.rejects(db.records.put(new Uint8Array(513), key()).local, { code: "invalid", message: /512/ });
  });

  await t.test("what was written is there after the store was closed and opened again", async t => {
    const name = `again-${++stores}`;
    const first = await open({ name, url, space: "test" });
    await first.collection("todos").put("t1", { n: 1 });
    await first.close();
    const second = await opened(t, { name });
    assert.equal((await second.collection("todos").get("t1")).n, 1);
    assert.equal((await second.pending()).length, 2);
  });

  await t.test("close() can discard what is pending", async t => {
    const name = `discarded-${++stores}`;
    const first = await open({ name, url, space: "test" });
    await first.collection("todos").put("t1", { n: 1 });
    await first.close({ discardPending: true });
    const second = await opened(t, { name });
    assert.deepEqual(await second.collection("todos").list(), []);
    assert.deepEqual(await second.pending(), []);
  });

  await t.test("two openings of one store see each other's writes", async t => {
    const name = `shared-${++stores}`;
    const [first, second] = [await opened(t, { name }), await opened(t, { name })];
    const { until } = watch(second.collection("todos"));
    await first.collection("todos").put("t1", { n: 1 });
    await until(rows => rows.length === 1);
    await second.collection("todos").patch("t1", { n: 2 });
    assert.equal((await first.collection("todos").get("t1")).n, 2);
  });

  await t.test("without a server the status becomes offline, and says why", async t => {
    const db = await opened(t);
    const status = await new Promise(resolve => {
      db.status.subscribe(s => s.state === "offline" && s.detail && resolve(s));
    });
    assert.equal(status.verified, false);
    await assert.rejects(db.sync(), { code: "offline" });
    await assert.rejects(db.verify(), { code: "offline" });
  });

  await t.test("a store that the browser threw away is noticed", async t => {
    const marks = new Map();
    const storage = { getItem: key => marks.get(key) ?? null, setItem: (key, value) => marks.set(key, value) };
    Object.defineProperty(globalThis, "localStorage", { value: storage, configurable: true });
    t.after(() => delete globalThis.localStorage);
    const name = `evicted-${++stores}`;
    const evicted = async () => {
      const db = await open({ name, url, space: "test" });
      const found = db.status.current.evicted;
      await db.collection("todos").put("t1", {});
      await db.close();
      return found;
    };
    assert.deepEqual([await evicted(), await evicted()], [false, false]);
    await new Promise(resolve => (indexedDB.deleteDatabase(name).onsuccess = resolve));
    assert.equal(await evicted(), true);
  });

  await t.test("wrong arguments are refused with a sentence that names them", async t => {
    await assert.rejects(open({ name: "x", url, space: "no spaces" }), { code: "invalid", message: /space/ });
    await assert.rejects(open({ name: "", url, space: "s" }), { code: "invalid", message: /name/ });
    await assert.rejects(open({ name: "x", space: "s" }), { code: "invalid", message: /url/ });
    const todos = (await opened(t)).collection("todos");
    await assert.rejects(todos.put("", {}).local, GoSyncError);
    await assert.rejects(todos.put("x".repeat(600), {}).local, { code: "invalid" });
    await assert.rejects(todos.put("big", { text: "x".repeat(2 << 20) }).local, { code: "invalid" });
  });

  await t.test("arguments that the types forbid are refused as well, by the promise where there is one", async t => {
    const [right, db] = [{ name: "x", url, space: "s" }, await opened(t)];
    const [todos, { records }] = [db.collection("todos"), db];
    const key = Uint8Array.of(1);
    const refused = {
      "open: nothing": () => open(),
      "open: null": () => open(null),
      "open: no url": () => open({ ...right, url: "somewhere" }),
      "open: a file": () => open({ ...right, url: "file:///etc/passwd" }),
      "open: name": () => open({ ...right, name: 5 }),
      "open: space": () => open({ ...right, space: null }),
      "open: auth": () => open({ ...right, auth: "token" }),
      "open: ranges": () => open({ ...right, ranges: "todos" }),
      "open: a range": () => open({ ...right, ranges: ["todos"] }),
      "open: a prefix": () => open({ ...right, ranges: [{ keyPrefix: "todos" }] }),
      "put: id": () => todos.put(5, {}).local,
      "put: half of a character": () => todos.put("\ud83d", {}).local,
      "put: no fields": () => todos.put("t", null).local,
      "put: a list": () => todos.put("t", [1]).local,
      "patch: no fields": () => todos.patch("t").local,
      "delete: no id": () => todos.delete().local,
      "get: id": () => todos.get(5),
      "list: null": () => todos.list(null),
      "list: prefix": () => todos.list({ prefix: 5 }),
      "batch: nothing": () => db.batch().local,
      "batch: id": () => db.batch(b => b.collection("todos").put(5, {})).local,
      "records.put: key": () => records.put("k", key).local,
      "records.put: no value": () => records.put(key).local,
      "records.delete: no key": () => records.delete().local,
      "records.get: key": () => records.get("k"),
      "records.batch: nothing": () => records.batch().local,
      "records.list: null": () => records.list(null),
      "records.list: prefix": () => records.list({ prefix: "k" }),
      "retry: half": () => db.retry(1.5),
      "discard: text": () => db.discard("1"),
      "offerAgain: key": () => db.offerAgain("k").local,
      "dropQuarantined: no key": () => db.dropQuarantined(),
      "close: null": () => db.close(null),
      "close: text": () => db.close({ discardPending: "false" }),
    };
    for (const [what, call] of Object.entries(refused)) {
      await assert.rejects(call, { name: "GoSyncError", code: "invalid" }, what);
    }
    const write = todos.put("t", { n: 1n });
    await Promise.all([write.local, write.server].map(promise => assert.rejects(promise, { code: "invalid" })));
    assert.throws(() => db.collection(), { name: "GoSyncError", code: "invalid" });
    // what the application itself throws is its own
    assert.throws(() => db.batch(() => { throw new RangeError("mine"); }), { name: "RangeError", message: "mine" });
    assert.deepEqual([await records.list(), await db.pending()], [[], []]);
  });

  await t.test("a subscription that the types forbid is refused at once, and the status stays what it is", async t => {
    const db = await opened(t);
    const [todos, { records, status }] = [db.collection("todos"), db];
    const ignore = () => {};
    const refused = [
      [/listener/, () => todos.subscribe()],
      [/listener/, () => todos.subscribe({ prefix: "t" })],
      [/listener/, () => todos.subscribe({}, "render")],
      [/options/, () => todos.subscribe(null, ignore)],
      [/options/, () => todos.subscribe("t", ignore)],
      [/prefix of ids/, () => todos.subscribe({ prefix: 5 }, ignore)],
      [/prefix of ids/, () => todos.subscribe({ prefix: null }, ignore)],
      [/listener/, () => records.subscribe()],
      [/listener/, () => records.subscribe({}, {})],
      [/options/, () => records.subscribe(null, ignore)],
      [/prefix of keys/, () => records.subscribe({ prefix: "k" }, ignore)],
      [/listener/, () => status.subscribe()],
    ];
    for (const [message, call] of refused) {
      assert.throws(call, { name: "GoSyncError", code: "invalid", message }, String(call));
    }
    await Promise.all([todos.list(), records.list()]); // behind whatever a subscription read
    assert.notEqual(status.current.state, "storage-error");
  });

  await t.test("what fields hold is read back exactly, also after the store was opened again", async t => {
    const name = `exact-${++stores}`;
    const first = await open({ name, url, space: "test" });
    const shared = { of: ["both"] };
    let seed = 1;
    const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
    const fields = {
      zero: -0,
      zeros: [0, -0, { deep: -0 }],
      ends: [Number.MAX_VALUE, Number.MIN_VALUE, Number.EPSILON, 2 ** 53 - 1, -(2 ** 63), 2 ** 64, 1e20, 1e21, 1e-7],
      fractions: Array.from({ length: 1000 }, () => random() * 10 ** Math.floor(random() * 40 - 20)),
      fraction: 0.09107548670615007,
      text: ["", "\0\u2028\ud83d\ude00\uffff", "\u007f\"\\/"],
      names: { "": 1, "\0": 2, "a b": 3, 7: 4 },
      bare: [Object.assign(Object.create(null), { a: 1 }), shared, shared, [], {}],
      ["__proto__"]: { ["__proto__"]: 1, constructor: 2, toString: "3" },
    };
    await first.collection("things").put("t", fields);
    const expected = JSON.parse(JSON.stringify(fields));
    [expected.zero, expected.zeros] = [-0, [0, -0, { deep: -0 }]];
    const same = async db => {
      const { $id, $pending, $rejected, $unreadable, ...row } = await db.collection("things").get("t");
      assert.deepStrictEqual(row, expected);
    };
    await same(first);
    await first.close();
    await same(await opened(t, { name }));
  });

  await t.test("a member that is undefined is left out, as a field is", async t => {
    const things = (await opened(t)).collection("things");
    await things.put("t", { gone: undefined, object: { gone: undefined, kept: null } });
    assert.deepEqual(await things.get("t"), { object: { kept: null }, $id: "t", ...waiting });
  });

  await t.test("what JSON would change is refused with the path of the value, in every kind of write", async t => {
    const db = await opened(t);
    const things = db.collection("things");
    await things.put("there", {});
    class Own {}
    class Tags extends Array {}
    const loop = { list: [] };
    loop.list.push({ again: loop });
    const refused = [
      [{ tags: ["a", "b", new Map([["a", 1]])] }, "fields.tags[2] is a Map:"],
      [{ m: new Map() }, "fields.m is a Map:"],
      [{ s: { in: new Set([1]) } }, "fields.s.in is a Set:"],
      [{ due: new Date(0) }, "fields.due is a Date:"],
      [{ own: [new Own()] }, "fields.own[0] is an Own:"],
      [{ rootless: Object.create((class Rootless extends null {}).prototype) }, "fields.rootless is a Rootless:"],
      [{ pattern: /a/ }, "fields.pattern is a RegExp:"],
      [{ bytes: Uint8Array.of(1) }, "fields.bytes is a Uint8Array:"],
      [{ buffer: new ArrayBuffer(1) }, "fields.buffer is an ArrayBuffer:"],
      [{ boxed: new Number(1) }, "fields.boxed is a Number:"],
      [{ error: new TypeError("no") }, "fields.error is a TypeError:"],
      [{ later: Promise.resolve() }, "fields.later is a Promise:"],
      [{ address: new URL("http://a/") }, "fields.address is a URL:"],
      [{ list: Tags.from([1]) }, "fields.list is a Tags:"],
      [{ given: (function () { return arguments; })(1) }, "fields.given is "],
      [{ list: [1, , 3] }, "fields.list[1] is missing:"], // eslint-disable-line no-sparse-arrays
      [{ list: new Array(1e9) }, "fields.list[0] is missing:"],
      [{ list: [[undefined]] }, "fields.list[0][0] is undefined:"],
      [{ list: Object.assign([1], { more: 2 }) }, "fields.list.more is no item of its list"],
      [{ n: NaN }, "fields.n is NaN:"],
      [{ n: [{ "a b": -Infinity }] }, 'fields.n[0]["a b"] is -Infinity:'],
      [{ n: [1n] }, "fields.n[0] is a bigint:"],
      [{ call: { it() {} } }, "fields.call.it is a function:"],
      [{ made: { toJSON: () => 1 } }, "fields.made.toJSON is a function:"],
      [{ mark: [Symbol("s")] }, "fields.mark[0] is a symbol:"],
      [{ in: { [Symbol("s")]: 1 } }, "fields.in[Symbol(s)] has a symbol for a name"],
      [{ [Symbol("s")]: 1 }, "fields[Symbol(s)] has a symbol for a name"],
      [{ half: ["\ud83d"] }, "fields.half[0] is no well-formed text"],
      [{ half: { "x\ude00": 1 } }, 'fields.half has the name "x\\ude00"'],
      [{ loop }, "fields.loop.list[0].again is circular:"],
      [{ trap: { get it() { throw new RangeError("mine"); } } }, "fields.trap cannot be read: mine"],
    ];
    for (const [fields, message] of refused) {
      for (const write of [
        things.put("there", { fine: 1, ...fields }),
        things.patch("there", { fine: 1, ...fields }),
        db.batch(b => b.collection("things").put("there", { fine: 1, ...fields })),
      ]) {
        const error = await write.local.then(() => assert.fail(`accepted: ${message}`), thrown => thrown);
        assert.ok(error instanceof GoSyncError, error);
        assert.equal(error.code, "invalid");
        assert.ok(error.message.startsWith(`the document "there": ${message}`), error.message);
      }
    }
    assert.deepEqual(await things.get("there"), { $id: "there", ...waiting });
  });

  await t.test("fields that are no JSON are refused with a sentence that names document and field", async t => {
    const things = (await opened(t)).collection("things");
    const nested = levels => (levels === 0 ? 0 : levels % 2 ? [nested(levels - 1)] : { in: nested(levels - 1) });
    const loop = {};
    loop.self = loop;
    const documents = [[new Date(), /Date/], [new Map([["a", 1]]), /Map/], [new (class Own {})(), /Own/], [null, /null/]];
    const fields = [
      ["half of a character", "\ud83d", /well-formed/],
      ["half of one inside", [{ a: "x\ude00" }], /well-formed/],
      ["half of one in a name", { "\ud83d": 1 }, /well-formed/],
      ["a loop", loop, /circular/],
      ["a bigint", 1n, /bigint/],
      ["a function", () => 1, /function/],
      ["a symbol", Symbol("s"), /symbol/],
      ["too deep", nested(125), /124 levels/],
      ["much too deep", nested(300), /124 levels/],
    ];
    await things.put("there", {});
    const says = async (write, ...parts) => {
      const error = await write.local.then(() => assert.fail("accepted"), thrown => thrown);
      assert.ok(error instanceof GoSyncError, error);
      assert.equal(error.code, "invalid");
      for (const part of parts) assert.match(error.message, part);
    };
    for (const [document, message] of documents) {
      await says(things.put("there", document), /"there"/, message);
      await says(things.patch("there", document), /"there"/, message);
    }
    for (const [name, value, message] of fields) {
      await says(things.put("there", { fine: 1, [name]: value }), /"there"/, new RegExp(`"${name}"`), message);
      await says(things.patch("there", { fine: 1, [name]: value }), /"there"/, new RegExp(`"${name}"`), message);
    }
    await says(things.put("there", { "\ud83d": 1 }), /"there"/, /"\\ud83d"/);
    assert.deepEqual(await things.get("there"), { $id: "there", ...waiting });

    const deepest = Object.assign(Object.create(null), { list: nested(124), ["__proto__"]: 1 });
    await things.put("fine", deepest);
    assert.deepEqual((await things.get("fine")).list, nested(124));
  });

  await t.test("a row can be spread back: what it tells beside its fields does not become fields", async t => {
    const db = await opened(t);
    const todos = db.collection("todos");
    await todos.put("t1", { title: "Milk", done: false });
    await todos.put("t1", { ...(await todos.get("t1")), done: true });
    await todos.patch("t1", { ...(await todos.get("t1")), title: "Bread", $id: undefined });
    await db.batch(b => b.collection("todos").put("t2", { $id: "t1", $pending: 1, $rejected: 1, $unreadable: 1, $own: 1 }));
    assert.deepEqual(await todos.get("t1"), { title: "Bread", done: true, $id: "t1", ...waiting });
    const written = (await db.pending()).map(({ document, field }) => `${document}/${field}`);
    assert.deepEqual([...new Set(written)].sort(), ["t1/", "t1/done", "t1/title", "t2/", "t2/$own"]);
  });

  await t.test("a store of another space is refused", async t => {
    const name = `space-${++stores}`;
    const db = await opened(t, { name });
    await db.collection("todos").put("t1", {});
    await assert.rejects(open({ name, url, space: "other" }), { code: "invalid", message: /test.*other/ });
  });

  await t.test("a closed database says so", async () => {
    const db = await open({ name: `closed-${++stores}`, url, space: "test" });
    await db.close();
    await db.close();
    await assert.rejects(db.collection("todos").list(), { code: "closed" });
    await assert.rejects(db.collection("todos").put("t", {}).local, { code: "closed" });
  });
});
