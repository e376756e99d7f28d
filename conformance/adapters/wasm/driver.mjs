// The reference client's WASM build on Node, behind the suite's driver protocol: what each command asks of the client.
// Knows no case.
//
//   gosync-conformance client --exec 'node conformance/adapters/wasm/driver.mjs [PACKAGE]' --format json
//
// PACKAGE is a folder with the npm package; by default its sources, with `wasm/` built by `cargo xtask test --only
// wasm`. IndexedDB is fake-indexeddb's, which forgets when the process ends: no durability is announced here, and the
// tests in a browser cover it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { setClock } from "./clock.mjs";
import { Opening } from "./opening.mjs";

const sources = new URL("../../../reference-client/js/", import.meta.url);

/** What this driver does beyond what every driver must. */
const capabilities = [
  "CAPABILITY_CLOCK",
  "CAPABILITY_ONLINE",
  "CAPABILITY_LIVE",
  "CAPABILITY_RECONCILE",
  "CAPABILITY_DAMAGE",
  "CAPABILITY_TOKEN_REFRESH",
  "CAPABILITY_TWO_OPENINGS",
  "CAPABILITY_RANGES",
  "CAPABILITY_DISCARD",
];

const openings = new Map();
let info;
let Replica;

/** What each command does; it returns the result of a DriverResponse. */
const commands = {
  hello({ mutant = "" }) {
    if (mutant !== "") throw new Error(`there is no mutant ${JSON.stringify(mutant)}`);
    return { info };
  },
  async open(open) {
    if (open.transport !== "TRANSPORT_GRPC_WEB") return { unsupported: {} };
    const name = open.replica ?? "";
    if (openings.has(name)) throw new Error(`${JSON.stringify(name)} is open already`);
    const opening = await Opening.open(Replica, open);
    for (const other of openings.values()) if (other.store === opening.store) opening.pairWith(other);
    openings.set(name, opening);
    return { done: {} };
  },
  put: command => write(() => find(command).put(bytes(command.key), bytes(command.value))),
  delete: command => write(() => find(command).delete(bytes(command.key))),
  sync: command => find(command).sync(command.timeoutMs ?? 0),
  watch(command) {
    find(command).watch();
    return { done: {} };
  },
  awaitIdle: command => find(command).idle(command.timeoutMs ?? 0),
  readAll: async command => ({ contents: await find(command).contents() }),
  setClock({ unixMs = "0" }) {
    setClock(Number(unixMs));
    return { done: {} };
  },
  setOnline(command) {
    find(command).setOnline(command.online ?? false);
    return { done: {} };
  },
  async close(command) {
    const opening = find(command);
    openings.delete(command.replica ?? "");
    await opening.close();
    return { done: {} };
  },
  async damage(command) {
    await find(command).damage(bytes(command.key));
    return { done: {} };
  },
  async discard(command) {
    await find(command).discard(bytes(command.key));
    return { done: {} };
  },
};

function find({ replica = "" }) {
  const opening = openings.get(replica);
  if (!opening) throw new Error(`${JSON.stringify(replica)} is not open`);
  return opening;
}

function bytes(base64 = "") {
  return new Uint8Array(Buffer.from(base64, "base64"));
}

/** Runs a write; what the client refuses is a result, what is no client's error is a fault. */
async function write(run) {
  try {
    await run();
    return { done: {} };
  } catch (error) {
    if (error.code === undefined) throw error;
    return { writeError: { reason: error.reason ?? "", detail: error.message } };
  }
}

async function answer({ id, ...command }) {
  const [[name, fields] = []] = Object.entries(command);
  if (!Object.hasOwn(commands, name ?? "")) return { id, unsupported: {} };
  try {
    return { id, ...(await commands[name](fields)) };
  } catch (error) {
    return { id, fault: { detail: String(error?.stack ?? error) } };
  }
}

async function load(folder) {
  // The package depends on no implementation of IndexedDB; its tests do, and this driver takes the same one.
  createRequire(sources)("fake-indexeddb/auto");
  const client = await import(new URL("wasm/gosync_client.js", folder));
  client.initSync({ module: readFileSync(new URL("wasm/gosync_client_bg.wasm", folder)) });
  Replica = client.Replica;
  const { name, version } = JSON.parse(readFileSync(new URL("package.json", folder), "utf8"));
  info = {
    name: `${name} (WASM)`,
    version,
    capabilities,
    transports: ["TRANSPORT_GRPC_WEB"],
    profiles: ["core", "heal", "live", "documents", "hardened"],
  };
}

console.log = console.error; // stdout belongs to the protocol
const folder = process.argv[2];
await load(folder === undefined ? sources : pathToFileURL(`${folder}/`));
for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`);
}
process.exit(0); // openings that are still there would keep the process alive
