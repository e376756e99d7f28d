// The reference client's WASM build on Node, behind the suite's driver protocol on stdin and stdout.
//
//   gosync-conformance client --exec 'node conformance/adapters/wasm/driver.mjs [PACKAGE]' --format json
//
// PACKAGE is a folder with the npm package; by default its sources, with `wasm/` built by `cargo xtask test --only
// wasm`. IndexedDB is fake-indexeddb's, which forgets when the process ends: no durability is announced here; the
// driver in a browser announces it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { answer, drive } from "./commands.mjs";

const sources = new URL("../../../reference-client/js/", import.meta.url);

async function load(folder) {
  // The package depends on no implementation of IndexedDB; its tests do, and this driver takes the same one.
  createRequire(sources)("fake-indexeddb/auto");
  const client = await import(new URL("wasm/gosync_client.js", folder));
  client.initSync({ module: readFileSync(new URL("wasm/gosync_client_bg.wasm", folder)) });
  drive(JSON.parse(readFileSync(new URL("package.json", folder), "utf8")), client, "Node");
}

console.log = console.error; // stdout belongs to the protocol
const folder = process.argv[2];
await load(folder === undefined ? sources : pathToFileURL(`${folder}/`));
for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`);
}
process.exit(0); // openings that are still there would keep the process alive
