// The whole journey of a record, with real processes: pages in Chromium, the server's program, a database file.

import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { test } from "node:test";
import { browser, Page, Server } from "./harness.js";

/** What the server's database holds, every byte of which must be sound. */
async function onDisk(server) {
  await server.ask("verify"); // rejects where anything is damaged
  const lines = (await server.ask("inspect", "--space", "demo")).split("\n");
  const todos = lines.filter(line => /  todos\\x00[^\\]+\\x00  /.test(line)); // the records of the todos themselves
  const deleted = todos.filter(line => line.endsWith("deleted")).length;
  return { todos: todos.length - deleted, deleted };
}

test("work goes on while the server is dead, and everything arrives when it is back", async t => {
  const server = await Server.create(t);
  const alice = await Page.open(await browser(t), server.url);
  await alice.is("online");
  await alice.add("Milk", "Bread", "Eggs");
  await alice.pending(0);
  await alice.verified();
  await alice.kept();

  await server.kill();
  await alice.is("offline");
  await alice.add("Butter");
  await alice.edit("Milk", "Oat milk");
  await alice.tick("Bread");
  await alice.delete("Eggs");
  const offline = ["[ ] Oat milk", "[x] Bread", "[ ] Butter"];
  await alice.shows(...offline);
  const unsent = 3 + 1 + 1 + 3; // Butter, a title, a tick, Eggs: a todo is itself and two fields
  await alice.pending(unsent);

  await alice.reload();
  await alice.shows(...offline);
  await alice.is("offline");
  await alice.pending(unsent);

  await server.start();
  await alice.is("online");
  await alice.pending(0);
  assert.deepEqual(await onDisk(server), { todos: 3, deleted: 1 });

  // Another person, whose browser has never been here, has nothing but what the server holds.
  const bob = await Page.open(await browser(t), server.url);
  await bob.shows(...offline);
  await alice.verified();
  await bob.verified();

  await alice.add("Cheese");
  await bob.shows(...offline, "[ ] Cheese");
  await bob.tick("Cheese");
  await alice.shows(...offline, "[x] Cheese");
  await alice.verified();
  await bob.verified();

  await t.test("a server that lost its database gets everything back from the browsers, deletions too", async () => {
    const all = [...offline, "[x] Cheese"];
    await server.kill();
    await server.deleteDatabase();
    await assert.rejects(stat(server.database));
    await Promise.all([alice.is("offline"), bob.is("offline")]);
    await server.start();
    await Promise.all([alice.is("online"), bob.is("online")]);
    await Promise.all([alice.verified(), bob.verified()]);
    await alice.shows(...all);
    await bob.shows(...all);

    assert.deepEqual(await onDisk(server), { todos: 4, deleted: 1 });

    const carol = await Page.open(await browser(t), server.url);
    await carol.shows(...all);
    await carol.verified();
  });
});

test("damage in the local store is found and healed from the server", async t => {
  const server = await Server.create(t);
  const page = await Page.open(await browser(t), server.url);
  const titles = Array.from({ length: 12 }, (_, i) => `Todo ${i + 1}`);
  await page.add(...titles);
  await page.pending(0);
  await page.verified();

  await page.tab.getByRole("button", { name: "Corrupt local data" }).click();
  await page.logs(/Damaged on disk/);
  await page.logs(/3 did not match/);
  await page.logs(/Healed in \d+ round trip/);
  await page.logs(/Same fingerprint as the server/);
  await page.shows(...titles.map(title => `[ ] ${title}`));
  await page.verified();

  await page.reload();
  await page.shows(...titles.map(title => `[ ] ${title}`));
});

test("damage that is done offline is healed when the server is back", async t => {
  const server = await Server.create(t);
  const page = await Page.open(await browser(t), server.url);
  await page.add("One", "Two", "Three", "Four");
  await page.pending(0);
  await page.verified();
  await server.kill();
  await page.is("offline");
  await page.tab.getByRole("button", { name: "Corrupt local data" }).click();
  await page.logs(/Offline: what is damaged is healed/);
  await server.start();
  await page.logs(/Same fingerprint as the server/);
  await page.shows("[ ] One", "[ ] Two", "[ ] Three", "[ ] Four");
});

test("two tabs share one store, and the second takes over when the first is closed", async t => {
  const server = await Server.create(t);
  const context = await browser(t);
  const first = await Page.open(context, server.url);
  await first.is("online");
  const second = await Page.open(context, server.url);
  await second.is("online");

  await second.add("From the second tab");
  await first.shows("[ ] From the second tab");
  await second.pending(0);
  await first.pending(0);
  await second.verified();

  await first.tab.close();
  await second.add("After the first was closed");
  await second.pending(0);
  await second.is("online");
  await second.verified();

  const other = await Page.open(await browser(t), server.url);
  await other.shows("[ ] From the second tab", "[ ] After the first was closed");
  await other.add("From afar");
  await second.shows("[ ] From the second tab", "[ ] After the first was closed", "[ ] From afar");
});
