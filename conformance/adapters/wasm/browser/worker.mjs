// One client in a worker, behind the suite's driver protocol: requests come as messages from the page, answers go back.
// The client is the npm package, served at `/package/`.

import { answer, drive } from "../commands.mjs";

const files = new URL("../package/", import.meta.url);
const client = await import(new URL("wasm/gosync_client.js", files));
await client.default({ module_or_path: new URL("wasm/gosync_client_bg.wasm", files) });
const description = await (await fetch(new URL("package.json", files))).json();
// Stores outlive the worker, and the page.
drive(description, client, "browser", ["CAPABILITY_DURABLE_STORE"]);

let before = Promise.resolve();
onmessage = ({ data }) => {
  // one after the other, whatever comes in the meantime
  before = before.then(async () => postMessage(JSON.stringify(await answer(JSON.parse(data)))));
};
postMessage("ready");
