// The package against the server's program, where that refuses: writes over a quota, tokens, records that it lost and
// does not take back.

import assert from "node:assert/strict";
import { test } from "node:test";
import { GoSyncError } from "../dist/index.js";
import { bytes, device, is, rows, status, synced, text } from "./device.js";
import { Server, within } from "./server.js";

const verdict = write => within("a verdict", () => write.server);

/** Arguments for a server that takes so many records in a space. */
const room = records => ["--set", `limits.max_space_records=${records}`];

test("a rejected write says why, stays visible, and can be retried and discarded", async t => {
  const server = await Server.create(t, ...room(2));
  const [alice, bob] = [await device(t, server.url), await device(t, server.url)];
  const key = name => bytes(name);
  assert.equal((await verdict(alice.records.put(key("a"), bytes("1")))).status, "applied");
  assert.equal((await verdict(alice.records.put(key("b"), bytes("1")))).status, "applied");
  const { status: fate, reason, detail } = await verdict(alice.records.put(key("c"), bytes("1")));
  assert.deepEqual([fate, reason], ["rejected", "QUOTA_EXCEEDED"]);
  assert.match(detail, /full/);
  await status(alice, "one rejected", s => s.rejected === 1 && s.pending === 0);
  const [refused, ...others] = await alice.pending();
  assert.deepEqual(others, []);
  const { state, reason: why, detail: sentence, batch } = refused;
  assert.deepEqual([state, why, sentence, batch], ["rejected", "QUOTA_EXCEEDED", detail, null]);
  const seen = await alice.records.get(key("c"));
  assert.deepEqual([seen.value, seen.pending, seen.rejected], [bytes("1"), false, true]);
  // others are not held up
  assert.equal((await verdict(alice.records.put(key("a"), bytes("2")))).status, "applied");

  await t.test("retried while nothing has changed, it is refused again", async () => {
    await alice.retry(refused.id);
    await status(alice, "one rejected", s => s.rejected === 1 && s.pending === 0);
    assert.equal((await alice.pending())[0].reason, "QUOTA_EXCEEDED");
  });

  await t.test("retried when there is room, it arrives", async () => {
    await server.kill();
    await server.start(...room(3));
    await alice.retry(refused.id);
    await rows(bob.records, "bob has c", records => records.length === 3);
    await status(alice, "nothing left", s => s.rejected === 0 && s.pending === 0);
    assert.deepEqual(await alice.pending(), []);
  });

  await t.test("discarded, it is gone, and what the server holds is seen again", async () => {
    await server.kill();
    await server.start("--set", "limits.max_space_bytes=8");
    const write = alice.records.put(key("a"), bytes("far too long for it"));
    assert.deepEqual((await verdict(write)).reason, "QUOTA_EXCEEDED");
    const [{ id }] = await alice.pending();
    await alice.discard(id);
    assert.deepEqual((await alice.records.get(key("a"))).value, bytes("2"));
    await status(alice, "nothing left", s => s.rejected === 0);
    for (const gone of [id, refused.id, 12_345]) {
      await assert.rejects(alice.discard(gone), { name: "GoSyncError", code: "not-found", message: /no write/ });
      await assert.rejects(alice.retry(gone), { name: "GoSyncError", code: "not-found", message: /no write/ });
    }
  });
});

test("a batch is refused, retried and discarded as a whole", async t => {
  const server = await Server.create(t, ...room(2));
  const [alice, bob] = [await device(t, server.url), await device(t, server.url)];
  const write = () =>
    alice.records.batch(b => {
      for (const name of ["a", "b", "c"]) b.put(bytes(name), bytes("1"));
    });
  const first = await verdict(write());
  assert.equal(first.status, "rejected");
  await status(alice, "three rejected", s => s.rejected === 3);
  const pending = await alice.pending();
  assert.deepEqual(pending.map(({ batch }) => batch), Array(3).fill(pending[0].id));
  assert.ok(pending.some(({ reason }) => reason === "QUOTA_EXCEEDED"));
  assert.ok(pending.every(({ reason }) => reason === "QUOTA_EXCEEDED" || reason === "BATCH_ABORTED"));
  await synced(bob);
  assert.deepEqual(await bob.records.list(), []);

  await alice.discard(pending[1].id);
  assert.deepEqual([await alice.pending(), await alice.records.list()], [[], []]);
  await assert.rejects(alice.discard(pending[2].id), { code: "not-found", message: /batch/ });

  await verdict(write());
  const [, , last] = await alice.pending();
  await server.kill();
  await server.start(...room(3));
  await alice.retry(last.id);
  await rows(bob.records, "bob has all three", records => records.length === 3);
});

test("errors of arguments carry the protocol's reason", async t => {
  const server = await Server.create(t, "--set", "limits.max_push_records=100");
  const db = await device(t, server.url);
  await synced(db);
  const large = { name: "GoSyncError", code: "invalid", reason: "LIMIT_EXCEEDED" };
  await assert.rejects(db.records.put(bytes("k"), new Uint8Array(2 << 20)).local, large);
  const many = db.records.batch(b => {
    for (let i = 0; i < 101; i++) b.put(bytes(`${i}`), bytes(""));
  });
  await assert.rejects(many.local, large);
  await assert.rejects(many.server, large);
  await assert.rejects(db.records.put("text", bytes("")).local, { code: "invalid", reason: undefined });
  assert.deepEqual(await db.records.list(), []);
});

test("a refused token is renewed once, and then the user has to sign in", async t => {
  const server = await Server.create(t);
  const [first, second, third] = [await server.mint("first"), await server.mint("second"), await server.mint("third")];
  await server.kill();
  await server.start("--tokens", server.tokens);
  const asked = [];
  let token = first;
  const auth = async refused => {
    asked.push(refused);
    return token;
  };
  const db = await device(t, server.url, { auth });
  await is(db, "online");
  assert.deepEqual(asked, [false]);

  token = second;
  await server.revoke("first");
  await within("asked for another token", async signal => {
    while (asked.length < 2) {
      signal.throwIfAborted();
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  });
  assert.equal((await verdict(db.records.put(bytes("k"), bytes("v")))).status, "applied");
  assert.deepEqual(asked, [false, true]);

  token = "not a token of this server";
  await server.revoke("second");
  const { reason, stopped } = await status(db, "needs-auth", s => s.state === "needs-auth");
  assert.deepEqual([reason, stopped], ["UNAUTHENTICATED", false]);
  assert.deepEqual(asked, [false, true, true]);
  const write = db.records.put(bytes("l"), bytes("v"));
  await write.local;
  const refused = await db.sync().catch(error => error);
  assert.ok(refused instanceof GoSyncError);
  assert.deepEqual([refused.code, refused.reason], ["needs-auth", "UNAUTHENTICATED"]);

  token = third;
  await within("signed in again", () => db.sync());
  assert.equal((await verdict(write)).status, "applied");
});

test("without a token the status is needs-auth, and nothing is sent", async t => {
  const server = await Server.create(t);
  const token = await server.mint("alice");
  await server.kill();
  await server.start("--tokens", server.tokens);
  let signedIn = false;
  const db = await device(t, server.url, { auth: () => (signedIn ? token : undefined) });
  await is(db, "needs-auth");
  await assert.rejects(db.sync(), { code: "needs-auth" });
  await assert.rejects(db.verify(), { code: "needs-auth" });
  signedIn = true;
  await synced(db);
  await is(db, "online");
});

test("what the server lost and may not be written back is listed, shown, and leaves when somebody else brings it", async t => {
  const server = await Server.create(t);
  const [writer, reader] = [await server.mint("writer"), await server.mint("reader", "read")];
  await server.kill();
  await server.start("--tokens", server.tokens);
  const name = "the writer's";
  const first = await device(t, server.url, { name, auth: () => writer });
  const bob = await device(t, server.url, { auth: () => reader });
  await first.collection("todos").put("t1", { title: "Milk" });
  await first.records.put(bytes("raw"), bytes("bytes"));
  await synced(first);
  await rows(bob.collection("todos"), "bob has it", rows => rows.length === 1);
  await first.close();
  await server.kill();
  await server.deleteDatabase();
  await server.start("--tokens", server.tokens);

  await status(bob, "three quarantined", s => s.quarantined === 3);
  const listed = await bob.quarantined();
  assert.deepEqual(
    listed.map(({ collection, document, field, value }) => [collection, document, field, value && text(value)]),
    [
      [null, null, null, "bytes"],
      ["todos", "t1", "", text(listed[1].value)],
      ["todos", "t1", "title", '"Milk"'],
    ],
  );
  assert.deepEqual(listed[0].key, bytes("raw"));
  assert.ok(listed.every(({ reason, detail }) => reason === "NO_ACCESS" && detail !== ""));
  assert.deepEqual([typeof listed[0].time, typeof listed[0].writer], ["bigint", "bigint"]);
  assert.equal((await bob.collection("todos").get("t1")).title, "Milk");

  const again = await device(t, server.url, { name, auth: () => writer });
  await synced(again);
  await status(bob, "none quarantined", s => s.quarantined === 0);
  assert.deepEqual(await bob.quarantined(), []);
  assert.equal((await bob.collection("todos").get("t1")).title, "Milk");
});

test("what is quarantined can be offered again, with other rights, and given up", async t => {
  const server = await Server.create(t);
  const [writer, reader] = [await server.mint("writer"), await server.mint("reader", "read")];
  await server.kill();
  await server.start("--tokens", server.tokens);
  const alice = await device(t, server.url, { auth: () => writer });
  for (const name of ["a", "b"]) await alice.records.put(bytes(name), bytes("v"));
  await synced(alice);
  let token = reader;
  let renewed;
  const asked = new Promise(resolve => (renewed = resolve));
  const auth = refused => {
    if (refused) renewed();
    return token;
  };
  const bob = await device(t, server.url, { auth });
  await rows(bob.records, "bob has both", records => records.length === 2);
  await alice.close();
  await server.kill();
  await server.deleteDatabase();
  await server.start("--tokens", server.tokens);
  await status(bob, "two quarantined", s => s.quarantined === 2);

  const refused = await verdict(bob.offerAgain(bytes("a")));
  assert.deepEqual([refused.status, refused.reason], ["rejected", "NO_ACCESS"]);
  await status(bob, "one quarantined, one rejected", s => s.quarantined === 1 && s.rejected === 1);
  assert.deepEqual((await bob.records.get(bytes("a"))).value, bytes("v"));

  await bob.dropQuarantined(bytes("b"));
  assert.equal(await bob.records.get(bytes("b")), undefined);
  await status(bob, "none quarantined", s => s.quarantined === 0);
  const none = { name: "GoSyncError", code: "not-found", message: /quarantine/ };
  await assert.rejects(bob.dropQuarantined(bytes("b")), none);
  await assert.rejects(bob.offerAgain(bytes("b")).local, none);

  token = writer;
  await server.revoke("reader");
  const [{ id }] = await bob.pending();
  await within("asked for another token", () => asked);
  await is(bob, "online");
  await bob.retry(id);
  await status(bob, "nothing left", s => s.pending === 0 && s.rejected === 0);
  const carol = await device(t, server.url, { auth: () => writer });
  await rows(carol.records, "carol has it", records => records.length === 1);
});
