// Several tabs on one store, against the server's program. Node 20 has no Web Locks, which elect the tab that syncs.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { bytes, device, is, rows, status, synced } from "./device.js";
import { Locks, withLocks } from "./locks.js";
import { Server, within } from "./server.js";

const verdict = write => within("a verdict", () => write.server);
const { BroadcastChannel } = globalThis;

beforeEach(() => withLocks(new Locks()));
afterEach(() => (globalThis.BroadcastChannel = BroadcastChannel));

/** Two tabs of one store, of which the first leads. */
async function tabs(t, url, name, options = {}) {
  const first = await device(t, url, { name, ...options });
  const second = await device(t, url, { name, ...options });
  return [first, second];
}

test("a tab that does not lead writes, syncs and verifies through the one that does, and takes over from it", async t => {
  const server = await Server.create(t);
  const other = await device(t, server.url);
  const [first, second] = await tabs(t, server.url, "led");
  await Promise.all([is(first, "online"), is(second, "online")]);
  assert.deepEqual(await verdict(second.records.put(bytes("a"), bytes("1"))), { status: "applied" });
  assert.deepEqual((await first.records.get(bytes("a"))).value, bytes("1"));
  await rows(other.records, "the other has it", records => records.length === 1);
  await within("sync", () => second.sync());
  const { equal, checked } = await within("verify", () => second.verify());
  assert.deepEqual([equal, checked], [true, 1]);
  await status(second, "verified", s => s.verified && s.pending === 0 && s.lastSyncedAt !== null);

  await first.close();
  assert.deepEqual(await verdict(second.records.put(bytes("b"), bytes("1"))), { status: "applied" });
  await within("sync", () => second.sync());
  await rows(other.records, "the other has both", records => records.length === 2);
});

test("a tab that does not lead is told why a write was refused, and why syncing fails", async t => {
  const server = await Server.create(t, "--set", "limits.max_space_records=1");
  const token = await server.mint("alice");
  await server.kill();
  await server.start("--tokens", server.tokens, "--set", "limits.max_space_records=1");
  const [first, second] = await tabs(t, server.url, "refused", { auth: () => token });
  await Promise.all([is(first, "online"), is(second, "online")]);
  assert.equal((await verdict(second.records.put(bytes("a"), bytes("1")))).status, "applied");
  const { status: fate, reason } = await verdict(second.records.put(bytes("b"), bytes("1")));
  assert.deepEqual([fate, reason], ["rejected", "QUOTA_EXCEEDED"]);
  const [{ id }] = await second.pending();
  await second.discard(id);
  assert.deepEqual(await first.pending(), []);

  await server.revoke("alice");
  await Promise.all([is(first, "needs-auth"), is(second, "needs-auth")]);
  const wanted = { name: "GoSyncError", code: "needs-auth", reason: "UNAUTHENTICATED" };
  await assert.rejects(within("sync", () => second.sync()), wanted);
  await assert.rejects(within("verify", () => second.verify()), wanted);
});

for (const [without, take] of [
  ["BroadcastChannel", () => (globalThis.BroadcastChannel = undefined)],
  ["Web Locks", () => withLocks(undefined)],
]) {
  test(`without ${without} each tab syncs for itself`, async t => {
    take();
    const server = await Server.create(t);
    const other = await device(t, server.url);
    const [first, second] = await tabs(t, server.url, `without ${without}`);
    await synced(second);
    for (const [tab, name] of [[first, "a"], [second, "b"], [first, "c"]]) {
      const write = tab.records.put(bytes(name), bytes("1"));
      await within("sync", () => tab.sync());
      assert.deepEqual(await verdict(write), { status: "applied" });
    }
    assert.equal((await within("verify", () => second.verify())).equal, true);
    await rows(other.records, "the other has all", records => records.length === 3);
    await rows(first.records, "the first tab has all", records => records.length === 3);
  });
}

test("without Web Locks the tab that syncs is the one that was opened last, and another when that is closed", async t => {
  withLocks(undefined);
  const server = await Server.create(t);
  const [first, second] = await tabs(t, server.url, "unelected");
  await is(second, "online");
  await is(first, "online");
  assert.deepEqual(await verdict(first.records.put(bytes("a"), bytes("1"))), { status: "applied" });
  await second.close();
  assert.deepEqual(await verdict(first.records.put(bytes("b"), bytes("1"))), { status: "applied" });
  await status(first, "verified", s => s.state === "online" && s.verified && s.pending === 0);
});
