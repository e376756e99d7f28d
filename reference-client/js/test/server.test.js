// The package against the server's program: what a write comes to, what the status tells, how damage is healed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { corrupt } from "../../demo/corrupt.js";
import { bytes, device, is, later, rows, status, synced } from "./device.js";
import { Link, Server, within } from "./server.js";

const verdict = write => within("a verdict", () => write.server);

test("a write is applied, and others have it at once", async t => {
  const server = await Server.create(t);
  const [alice, bob] = [await device(t, server.url), await device(t, server.url)];
  await Promise.all([is(alice, "online"), is(bob, "online")]);
  const write = alice.collection("todos").put("t1", { title: "Milk" });
  assert.deepEqual(await verdict(write), { status: "applied" });
  const [row] = await rows(bob.collection("todos"), "bob has it", rows => rows.length === 1);
  assert.deepEqual(row, { title: "Milk", $id: "t1", $pending: false, $rejected: false, $unreadable: [] });
  await status(alice, "nothing pending, verified", s => s.pending === 0 && s.verified);
  assert.deepEqual(await alice.pending(), []);
});

test("of two writes the newer one wins, and the author of the older one is told", async t => {
  const server = await Server.create(t);
  const link = await Link.to(t, server);
  const [alice, bob] = [await device(t, server.url), await device(t, link.url)];
  const key = bytes("k");
  await synced(bob);
  link.cut();
  await is(bob, "offline");
  const older = bob.records.put(key, bytes("bob's"));
  await older.local;
  await later();
  assert.deepEqual(await verdict(alice.records.put(key, bytes("alice's"))), { status: "applied" });
  assert.deepEqual((await bob.records.get(key)).value, bytes("bob's"));
  link.mend();
  await synced(bob);
  assert.deepEqual(await verdict(older), { status: "superseded" });
  assert.deepEqual((await bob.records.get(key)).value, bytes("alice's"));
  assert.deepEqual(await bob.pending(), []);
});

test("sync() resolves when everything has been exchanged, in both directions", async t => {
  const server = await Server.create(t);
  const link = await Link.to(t, server);
  const [alice, bob] = [await device(t, server.url), await device(t, link.url)];
  await Promise.all([synced(alice), synced(bob)]);
  link.cut();
  await is(bob, "offline");
  await assert.rejects(bob.sync(), { name: "GoSyncError", code: "offline" });
  for (let i = 0; i < 50; i++) await bob.collection("todos").put(`bob-${i}`, { i });
  for (let i = 0; i < 50; i++) await alice.collection("todos").put(`alice-${i}`, { i });
  await synced(alice);
  link.mend();
  await synced(bob);
  assert.equal((await bob.collection("todos").list()).length, 100);
  assert.deepEqual(await bob.pending(), []);
  await synced(alice);
  assert.equal((await alice.collection("todos").list()).length, 100);
});

test("the status follows the server: online, offline when it dies, online when it is back", async t => {
  const server = await Server.create(t);
  const db = await device(t, server.url);
  const seen = [];
  db.status.subscribe(({ state }) => seen.at(-1) !== state && seen.push(state));
  await is(db, "online");
  assert.deepEqual(seen.slice(-2), ["connecting", "online"]);
  await server.kill();
  const { reason, detail, stopped } = await status(db, "offline", s => s.state === "offline" && s.detail);
  assert.deepEqual([reason, stopped], [null, false]);
  assert.notEqual(detail, "");
  const write = db.collection("todos").put("t1", { title: "Milk" });
  await write.local;
  assert.equal(db.status.current.pending, 2);
  await server.start();
  assert.deepEqual(await verdict(write), { status: "applied" });
  await status(db, "online and verified", s => s.state === "online" && s.verified && s.pending === 0);
});

test("lastSyncedAt is when both sides were last seen to be equal, also after the store was opened again", async t => {
  const server = await Server.create(t);
  const first = await device(t, server.url, { name: "last-synced" });
  const before = Date.now();
  await synced(first);
  const { lastSyncedAt } = await status(first, "synced", s => s.lastSyncedAt !== null);
  assert.ok(lastSyncedAt instanceof Date && lastSyncedAt.getTime() >= before && lastSyncedAt.getTime() <= Date.now());
  await first.close();
  await server.kill();
  const again = await device(t, server.url, { name: "last-synced" });
  assert.ok(again.status.current.lastSyncedAt.getTime() >= lastSyncedAt.getTime());
  const never = await device(t, server.url);
  assert.equal(never.status.current.lastSyncedAt, null);
});

test("progress is told while a device fetches everything for the first time", async t => {
  const server = await Server.create(t);
  const alice = await device(t, server.url);
  const records = 5_000;
  for (let from = 0; from < records; from += 200) {
    await alice.records.batch(b => {
      for (let i = from; i < from + 200; i++) b.put(bytes(`key ${String(i).padStart(5, "0")}`), bytes(`value ${i}`));
    });
  }
  await synced(alice);
  const bob = await device(t, server.url);
  const seen = [];
  bob.status.subscribe(({ progress }) => progress && seen.push(progress));
  await synced(bob);
  assert.equal((await bob.records.list()).length, records);
  const fetched = seen.filter(({ phase }) => phase === "bootstrapping");
  assert.ok(fetched.length > 1, JSON.stringify(seen));
  const done = fetched.map(progress => progress.done);
  assert.deepEqual(done, done.toSorted((a, b) => a - b), "it rises");
  assert.deepEqual(fetched.at(-1), { phase: "bootstrapping", done: records, total: records });
  assert.ok(fetched.every(({ done, total }) => done <= total), JSON.stringify(fetched));
  await status(bob, "nothing under way", s => s.state === "online" && s.progress === null);
});

test("verify() tells what is there, finds damage, and has it healed by the server", async t => {
  const server = await Server.create(t);
  const name = "verified";
  const db = await device(t, server.url, { name });
  const todos = db.collection("todos");
  for (let i = 0; i < 10; i++) await todos.put(`t${i}`, { n: i });
  await synced(db);
  const held = 20; // each document's existence, and its field
  const sound = { equal: true, healedRanges: [], rounds: 0, checked: held, damaged: 0 };
  assert.deepEqual(await db.verify(), sound);

  const spoiled = await corrupt(name, 3);
  assert.equal(spoiled.length, 3);
  const found = await db.verify();
  assert.deepEqual([found.equal, found.checked, found.damaged], [false, held, 3]);
  assert.ok(found.rounds >= 1);
  for (const key of spoiled) {
    assert.ok(found.healedRanges.some(range => holds(range, key)), `${key} in ${found.healedRanges}`);
  }
  assert.deepEqual((await todos.list()).map(({ n }) => n), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  const { healed, damaged, verified } = await status(db, "healed", s => s.healed && s.verified);
  assert.deepEqual([damaged, verified, healed.records], [0, true, 3]);
  assert.ok(healed.at instanceof Date);

  assert.deepEqual(await db.verify(), sound);
});

/** Whether a readable range, `a` or `a … b`, holds a readable key. */
function holds(range, key) {
  const [from, to = from] = range.split(" … ");
  return from <= key && key <= to;
}

test("a batch becomes visible, durable and pushed together", async t => {
  const server = await Server.create(t);
  const name = "batches";
  const [alice, bob] = [await device(t, server.url, { name }), await device(t, server.url)];
  await Promise.all([is(alice, "online"), is(bob, "online")]);
  const seen = { alice: new Set(), bob: new Set() };
  alice.records.subscribe(records => seen.alice.add(records.length));
  bob.records.subscribe({}, records => seen.bob.add(records.length));
  let writes;
  for (let round = 1; round <= 5; round++) {
    writes = alice.records.batch(b => {
      for (let i = 0; i < 40; i++) b.put(bytes(`${round}/${i}`), bytes(`${i}`));
      b.delete(bytes(`${round}/0`));
    });
    await writes.local;
    assert.equal((await alice.records.list()).length, round * 39);
  }
  assert.deepEqual(await verdict(writes), { status: "applied" });
  await rows(bob.records, "bob has all", records => records.length === 5 * 39);
  for (const who of ["alice", "bob"]) {
    assert.deepEqual([...seen[who]].filter(count => count % 39 !== 0), [], `${who} saw a part of a batch`);
  }
  await server.kill();
  await is(alice, "offline");
  await alice.batch(b => {
    b.collection("todos").put("t1", { title: "Milk" });
    b.collection("archive").put("t0", { title: "Bread" });
  }).local;
  await alice.close();
  const again = await device(t, server.url, { name });
  const pending = await again.pending();
  assert.equal(pending.length, 4);
  assert.deepEqual(new Set(pending.map(write => write.batch)), new Set([pending[0].id]));
});

test("only the ranges that were asked for are held, and writes outside of them arrive all the same", async t => {
  const server = await Server.create(t);
  const alice = await device(t, server.url);
  const ids = async (db, collection) => (await db.collection(collection).list()).map(row => row.$id);
  await alice.collection("todos").put("work/1", { n: 1 });
  await alice.collection("todos").put("home/1", { n: 2 });
  await alice.collection("notes").put("n1", { n: 3 });
  await alice.records.put(bytes("\x01raw"), bytes("4"));
  await synced(alice);
  const ranges = [{ collection: "todos", idPrefix: "work/" }, { keyPrefix: bytes("\x01") }];
  const name = "part";
  const bob = await device(t, server.url, { name, ranges });
  await synced(bob);
  assert.deepEqual([await ids(bob, "todos"), await ids(bob, "notes")], [["work/1"], []]);
  assert.deepEqual((await bob.records.get(bytes("\x01raw"))).value, bytes("4"));
  assert.equal((await bob.verify()).equal, true);
  assert.deepEqual(await verdict(bob.collection("notes").put("n2", { n: 5 })), { status: "applied" });
  await rows(alice.collection("notes"), "alice has bob's note", rows => rows.length === 2);
  await bob.close();

  const all = await device(t, server.url, { name });
  await synced(all);
  assert.deepEqual([await ids(all, "todos"), await ids(all, "notes")], [["home/1", "work/1"], ["n1", "n2"]]);

  for (const ranges of [[], [{ collection: "" }], [{ collection: "a\0b" }], [{ keyPrefix: new Uint8Array(600) }]]) {
    await assert.rejects(device(t, server.url, { ranges }), { code: "invalid" });
  }
});
