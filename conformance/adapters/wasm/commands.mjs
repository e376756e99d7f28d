// What each command of the suite's driver protocol asks of the reference client's WASM build, on Node or in a browser.
// Knows no case, and not how messages come and go.

import { setClock } from "./clock.mjs";
import { documentChange, documentResult } from "./documents.mjs";
import { bytes } from "./encoding.mjs";
import { Opening } from "./opening.mjs";

/** What it can do beyond what every driver must, wherever it runs. */
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
  "CAPABILITY_RETRY",
  "CAPABILITY_BATCHES",
  "CAPABILITY_DOCUMENTS",
  "CAPABILITY_VERIFY",
];

const openings = new Map();
let info;
let Replica;

/** Says which client is driven: the package's description and its WASM module, and what the place adds to it. */
export function drive({ name, version }, client, place, further = []) {
  Replica = client.Replica;
  info = {
    name: `${name} (WASM, ${place})`,
    version,
    capabilities: [...capabilities, ...further],
    transports: ["TRANSPORT_GRPC_WEB"],
    profiles: ["core", "heal", "live", "documents", "hardened"],
  };
}

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
  put: command => attempt(() => find(command).write([[bytes(command.key), bytes(command.value)]])),
  delete: command => attempt(() => find(command).write([[bytes(command.key)]])),
  putBatch: command =>
    attempt(() => find(command).write((command.entries ?? []).map(({ key, value }) => [bytes(key), bytes(value)]))),
  putDocument: command => attempt(() => find(command).editDocument(documentChange("put", command))),
  patchDocument: command => attempt(() => find(command).editDocument(documentChange("patch", command))),
  deleteDocument: command => attempt(() => find(command).editDocument(documentChange("delete", command))),
  getDocument: command => attempt(async () => documentResult(await find(command).documents(command))),
  listDocuments: command => attempt(async () => documentResult(await find(command).documents(command))),
  sync: command => find(command).sync(command.timeoutMs ?? 0),
  verify: command => find(command).verify(command.timeoutMs ?? 0),
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
  async setOnline(command) {
    await find(command).setOnline(command.online ?? false);
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
  async retry(command) {
    await find(command).retry(bytes(command.key));
    return { done: {} };
  },
};

function find({ replica = "" }) {
  const opening = openings.get(replica);
  if (!opening) throw new Error(`${JSON.stringify(replica)} is not open`);
  return opening;
}

/** Runs a write or a query; what the client refuses is a result, what is no client's error is a fault. */
async function attempt(run) {
  try {
    return (await run()) ?? { done: {} };
  } catch (error) {
    if (error.code === undefined) throw error;
    return { writeError: { reason: error.reason ?? "", detail: error.message } };
  }
}

/** The DriverResponse to a DriverRequest, both in proto3 JSON. */
export async function answer({ id, ...command }) {
  const [[name, fields] = []] = Object.entries(command);
  if (!Object.hasOwn(commands, name ?? "")) return { id, unsupported: {} };
  try {
    return { id, ...(await commands[name](fields)) };
  } catch (error) {
    return { id, fault: { detail: String(error?.stack ?? error) } };
  }
}
