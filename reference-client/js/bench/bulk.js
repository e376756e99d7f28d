// `cargo xtask bench browser`: how fast the client writes to IndexedDB in Chromium, beside IndexedDB alone on the same
// page with the same keys and values. Each is measured in turns, a few times; the median counts.
//
// A record of the client is durable, in the outbox and visible when its write resolves. No server can be reached, so
// nothing but the local store is measured.

import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { browser } from "../test/browser/harness.js";

const RECORDS = 10_000;
const BATCH = 1_000;
const ROUNDS = 3;
const VALUE_BYTES = 200;

const TYPES = { ".css": "text/css", ".js": "text/javascript", ".wasm": "application/wasm" };

/** Serves the files of a folder on this machine only, and says where. */
async function serve(folder) {
  const server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://localhost").pathname);
    try {
      const body = await readFile(join(folder, path));
      response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "text/plain" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { url: `http://127.0.0.1:${server.address().port}`, stop: () => server.close() };
}

/** Runs in the page: seconds of each round, of the client and of IndexedDB alone. */
async function measure({ records, batch, rounds, bytes, url }) {
  const { init, open } = await import("/gosync/dist/index.js");
  await init();
  const text = i => `item ${i} `.padEnd(bytes, "abcdefghij");
  const batches = Array.from({ length: records / batch }, (_, b) => Array.from({ length: batch }, (_, i) => b * batch + i));
  const seconds = async work => {
    const start = performance.now();
    await work();
    return (performance.now() - start) / 1000;
  };
  const done = request =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  const committed = transaction =>
    new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
    });

  async function raw(round) {
    const request = indexedDB.open(`raw-${round}`, 1);
    request.onupgradeneeded = () => request.result.createObjectStore("records");
    const db = await done(request);
    const encoder = new TextEncoder();
    const took = await seconds(async () => {
      for (const batch of batches) {
        const transaction = db.transaction("records", "readwrite", { durability: "strict" });
        const store = transaction.objectStore("records");
        for (const i of batch) store.put(encoder.encode(text(i)), encoder.encode(`n${i}`));
        await committed(transaction);
      }
    });
    const held = await done(db.transaction("records").objectStore("records").count());
    db.close();
    return { took, held };
  }

  // A document of one field is two records: that it exists, and the field.
  async function client(round) {
    const db = await open({ name: `client-${round}`, url, space: "bench", persist: false });
    const took = await seconds(async () => {
      for (const batch of batches) {
        await db.batch(b => {
          const notes = b.collection("notes");
          for (const i of batch.slice(0, batch.length / 2)) notes.put(`n${i}`, { text: text(i) });
        }).local;
      }
    });
    const held = (await db.pending()).length;
    await db.close();
    return { took, held };
  }

  const found = { raw: [], client: [] };
  for (let round = 0; round < rounds; round++) {
    for (const [name, run] of Object.entries({ raw, client })) {
      const { took, held } = await run(round);
      if (held !== records) throw new Error(`${name}: ${held} records are there, not ${records}`);
      found[name].push(took);
    }
  }
  return found;
}

const median = times => times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)];

const cleanup = [];
const scope = { after: step => cleanup.unshift(step) };
try {
  const site = await serve(process.env.GOSYNC_SITE);
  cleanup.unshift(site.stop);
  const context = await browser(scope);
  const tab = await context.newPage();
  await tab.goto(`${site.url}/style.css`);
  const asked = { records: RECORDS, batch: BATCH, rounds: ROUNDS, bytes: VALUE_BYTES, url: "http://127.0.0.1:9" };
  const times = await tab.evaluate(measure, asked);
  const rate = name => Math.round(RECORDS / median(times[name]));
  const ratio = median(times.client) / median(times.raw);
  const row = (title, name) => `| ${title} | ${median(times[name]).toFixed(2)} s | ${rate(name)} |`;
  console.log(
    [
      `${RECORDS} records, ${BATCH} to a transaction, values of ${VALUE_BYTES} bytes; median of ${ROUNDS}`,
      "",
      "| | time | records/s |",
      "|---|---|---|",
      row("IndexedDB alone", "raw"),
      row("the client", "client"),
      "",
      `The client takes ${ratio.toFixed(2)} times as long.`,
    ].join("\n"),
  );
  const at = process.argv.indexOf("--json");
  if (at > 0) await writeFile(process.argv[at + 1], `${JSON.stringify({ ...asked, seconds: times, ratio }, null, 1)}\n`);
} finally {
  for (const step of cleanup) await step();
}
