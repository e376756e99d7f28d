// What is durable on a device stays, whatever the browser does. These tests use the package on an empty page of the
// demo's origin.

import assert from "node:assert/strict";
import { test } from "node:test";
import { within } from "../server.js";
import { browser, profile, Server } from "./harness.js";

// No server of ours is there, so nothing leaves the device.
const NOWHERE = "http://127.0.0.1:9";

/** Opens the package's database `name` in a tab, as `db` of its `window`; syncs it with the server at `url`. */
async function openIn(tab, server, name, url = NOWHERE) {
  await tab.goto(`${server.url}/style.css`);
  await tab.evaluate(
    async ({ name, url }) => {
      const { init, open } = await import("/gosync/dist/index.js");
      await init();
      window.db = await open({ name, url, space: "store-test" });
      window.notes = window.db.collection("notes");
    },
    { name, url },
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

/** The rows of the tab's database, by id. */
function rowsIn(tab) {
  return tab.evaluate(async () => (await window.notes.list()).map(row => [row.$id, row.a, row.b, row.c]));
}

/** Writes rows one after the other, whose ids begin with `prefix`, and tells of each what becomes of it. */
function writeIn(tab, prefix, pause) {
  return tab.evaluate(
    ({ prefix, pause }) => {
      window.writing = true;
      void (async () => {
        for (let i = 0; window.writing; i++) {
          const id = `${prefix}-${String(i).padStart(5, "0")}`;
          const write = window.notes.put(id, { a: id, b: id, c: id });
          await write.local;
          void window.happened("saved", id);
          void write.server.then(() => window.happened("taken", id));
          if (pause > 0) await new Promise(resolve => setTimeout(resolve, pause));
        }
      })();
    },
    { prefix, pause },
  );
}

test("a tab that is killed at any moment of writing and syncing has lost nothing, and kept nothing by halves", async t => {
  const server = await Server.create(t);
  const context = await browser(t);
  const saved = new Set();
  const taken = new Set();
  let dice = 0x9e3779b9;
  const roll = sides => {
    dice = (Math.imul(dice, 1664525) + 1013904223) >>> 0;
    return (dice >>> 8) % sides;
  };
  const check = rows => {
    for (const [id, a, b, c] of rows) assert.deepEqual([a, b, c], [id, id, id], `${id} is there by halves`);
    const held = new Set(rows.map(([id]) => id).filter(id => id.startsWith("killed")));
    for (const id of [...saved, ...taken]) assert.ok(held.has(id), `${id} was saved and is gone`);
    // at most one write was under way when a tab was killed
    assert.ok(held.size <= saved.size + 20, `${held.size} rows for ${saved.size} that were told to be saved`);
  };

  // Somebody else writes all the time, so that a tab that is killed is also one that receives.
  const other = await (await browser(t)).newPage();
  await openIn(other, server, "other", server.url);
  await other.exposeFunction("happened", () => undefined);
  await writeIn(other, "other", 100);

  // What is waited for before a kill: a write saved here, taken by the server, or come from somebody else.
  const kinds = ["saved", "taken", "came"];
  for (let round = 0; round < 21; round++) {
    const tab = await context.newPage();
    const kind = kinds[round % kinds.length];
    // counted, not timed, so that a slow machine kills in the middle as well
    let left = 1 + roll(kind === "saved" ? 16 : 6);
    let enough;
    const reached = new Promise(resolve => (enough = resolve));
    await tab.exposeFunction("happened", (what, id) => {
      if (what === "saved") saved.add(id);
      if (what === "taken") taken.add(id);
      if (what === kind && --left === 0) enough();
    });
    await openIn(tab, server, "killed", server.url);
    check(await rowsIn(tab));
    await tab.evaluate(() => {
      let others;
      window.notes.subscribe({ prefix: "other" }, rows => {
        if (others !== undefined && rows.length > others) void window.happened("came", "");
        others = rows.length;
      });
    });
    // without a pause it writes faster than it pushes, and what it writes is taken later and later
    await writeIn(tab, `killed-${String(round).padStart(2, "0")}`, kind === "taken" ? 25 : 0);
    await within(`${left} more ${kind} in round ${round}`, () => reached);
    await new Promise(resolve => setTimeout(resolve, roll(20)));
    const killed = new Promise(resolve => tab.once("crash", resolve));
    const devtools = await context.newCDPSession(tab);
    void devtools.send("Page.crash").catch(() => undefined); // takes the answer with it
    await within("the tab crashes", () => killed);
    await tab.close();
  }
  assert.ok(taken.size > 0 && taken.size < saved.size, `${taken.size} of ${saved.size} were told to be taken`);

  await other.evaluate(async () => {
    window.writing = false;
    await window.db.sync();
  });
  const tab = await context.newPage();
  await openIn(tab, server, "killed", server.url);
  const verified = await tab.evaluate(async () => {
    await window.db.sync();
    return window.db.verify();
  });
  assert.equal(verified.equal, true, JSON.stringify(verified));
  const rows = await rowsIn(tab);
  check(rows);
  assert.ok(rows.some(([id]) => id.startsWith("other")));

  // Whoever comes anew has nothing but what the server holds.
  const stranger = await (await browser(t)).newPage();
  await openIn(stranger, server, "stranger", server.url);
  for (const device of [other, stranger]) {
    await device.evaluate(() => window.db.sync());
    assert.deepEqual(await rowsIn(device), rows);
  }
});
