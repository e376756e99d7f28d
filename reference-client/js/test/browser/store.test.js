// What is durable on a device stays, whatever the browser does. These tests use the package on an empty page of the
// demo's origin; no server is needed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { browser, profile, Server } from "./harness.js";

/** Opens the package's database `name` in a tab, as `db` of its `window`. */
async function openIn(tab, server, name) {
  await tab.goto(`${server.url}/style.css`);
  await tab.evaluate(
    async ({ name, url }) => {
      const { init, open } = await import("/gosync/dist/index.js");
      await init();
      window.db = await open({ name, url, space: "store-test" });
      window.notes = window.db.collection("notes");
    },
    // No server of ours is there, so nothing leaves the device.
    { name, url: "http://127.0.0.1:9" },
  );
}

test("a full disk is a typed error, keeps what was saved and writes nothing by halves", async t => {
  const server = await Server.create(t);
  const context = await browser(t);
  const tab = await context.newPage();
  const devtools = await context.newCDPSession(tab);
  const quota = quotaSize => devtools.send("Storage.overrideQuotaForOrigin", { origin: server.url, quotaSize });
  await quota(1_000_000); // before the browser looks how much room there is
  await openIn(tab, server, "quota");
  const { saved, code } = await tab.evaluate(async () => {
    // The browser counts compressed bytes, so the text must not compress to nothing.
    const noise = () => [...crypto.getRandomValues(new Uint32Array(16_000))].join("").slice(0, 100_000);
    for (let saved = 0; saved < 50; saved++) {
      try {
        await window.notes.put(`n${String(saved).padStart(2, "0")}`, { text: noise(), more: saved }).local;
      } catch ({ code }) {
        return { saved, code };
      }
    }
    return { saved: 50, code: "none" };
  });
  assert.equal(code, "quota");
  assert.ok(saved > 0, "some were saved before the disk was full");
  const held = () => tab.evaluate(async () => (await window.notes.list()).map(({ text, more }) => [text.length, more]));
  const whole = Array.from({ length: saved }, (_, i) => [100_000, i]);
  assert.deepEqual(await held(), whole);

  await quota(undefined);
  await tab.evaluate(() => window.notes.put("later", { text: "y", more: -1 }).local);
  assert.deepEqual(await held(), [[1, -1], ...whole]);
});

test("a browser that crashes right after a write was saved has not lost it", async t => {
  const server = await Server.create(t);
  const place = await profile(t);
  let wanted = [];
  for (let round = 1; round <= 3; round++) {
    const context = await browser(t, place);
    const tab = await context.newPage();
    await openIn(tab, server, "crash");
    const held = await tab.evaluate(async () => (await window.notes.list()).map(row => row.$id));
    assert.deepEqual(held, wanted);
    const gone = new Promise(resolve => context.once("close", resolve));
    await tab.evaluate(async round => {
      for (let i = 0; i < 20; i++) await window.notes.put(`${round}-${String(i).padStart(2, "0")}`, { i }).local;
    }, round);
    const devtools = await context.newCDPSession(tab);
    await devtools.send("Browser.crash").catch(() => undefined); // takes the answer with it
    await gone;
    wanted = [...wanted, ...Array.from({ length: 20 }, (_, i) => `${round}-${String(i).padStart(2, "0")}`)];
  }
});

test("a tab that is killed at any moment has lost nothing that was saved, and saved nothing by halves", async t => {
  const server = await Server.create(t);
  const context = await browser(t);
  const saved = new Set();
  let dice = 0x9e3779b9;
  const roll = sides => {
    dice = (Math.imul(dice, 1664525) + 1013904223) >>> 0;
    return dice % sides;
  };
  const read = async () => {
    const tab = await context.newPage();
    await openIn(tab, server, "killed");
    const rows = await tab.evaluate(async () => (await window.notes.list()).map(row => [row.$id, row.a, row.b, row.c]));
    return { tab, rows };
  };
  const check = rows => {
    for (const [id, a, b, c] of rows) assert.deepEqual([a, b, c], [id, id, id], `${id} is there by halves`);
    const held = new Set(rows.map(([id]) => id));
    for (const id of saved) assert.ok(held.has(id), `${id} was saved and is gone`);
    // at most one write was under way when a tab was killed
    assert.ok(held.size <= saved.size + 20, `${held.size} rows for ${saved.size} that were told to be saved`);
  };
  for (let round = 0; round < 20; round++) {
    const { tab, rows } = await read();
    check(rows);
    // counted in writes, not in time, so that a slow machine kills in the middle of them as well
    let left = 1 + roll(16);
    let enough;
    const written = new Promise(resolve => (enough = resolve));
    await tab.exposeFunction("saved", id => {
      saved.add(id);
      if (--left === 0) enough();
    });
    await tab.evaluate(round => {
      void (async () => {
        for (let i = 0; ; i++) {
          const id = `${String(round).padStart(2, "0")}-${String(i).padStart(5, "0")}`;
          await window.notes.put(id, { a: id, b: id, c: id }).local;
          void window.saved(id);
        }
      })();
    }, round);
    await written;
    await new Promise(resolve => setTimeout(resolve, roll(20)));
    const killed = new Promise(resolve => tab.once("crash", resolve));
    const devtools = await context.newCDPSession(tab);
    void devtools.send("Page.crash").catch(() => undefined); // takes the answer with it
    await killed;
    await tab.close();
  }
  const { rows } = await read();
  check(rows);
});
