// The todo page. All of its data lives in the GoSync client; the page only shows what that says.
//
// ?url=…    the server, where it is not the one that this page came from
// ?space=…  the list to open (default "demo")
// ?token=…  a bearer token, where the server asks for one

import { init, open } from "./gosync/dist/index.js";
import { corrupt } from "./corrupt.js";

const parameters = new URLSearchParams(location.search);
const space = parameters.get("space") ?? "demo";
const name = `gosync-demo-${space}`;
const $ = id => document.getElementById(id);

const WORDS = {
  connecting: "🟡 Connecting",
  online: "🟢 Online",
  offline: "🔴 Offline",
  "needs-auth": "🔴 Sign in needed",
  "upgrade-required": "🔴 Please reload",
  "storage-error": "🔴 Storage failed",
};

start()
  .then(keepPage)
  .catch(error => notice(error.message));

async function start() {
  await init();
  const token = parameters.get("token");
  const db = await open({
    name,
    space,
    url: parameters.get("url") ?? location.origin,
    ...(token && { auth: () => token }),
  });
  const todos = db.collection("todos");

  db.status.subscribe(showStatus);
  todos.subscribe(rows => showTodos(todos, rows));

  $("add").addEventListener("submit", event => {
    event.preventDefault();
    const title = $("title").value.trim();
    if (title) report(todos.put(newId(), { title, done: false }));
    $("title").value = "";
  });

  $("verify").addEventListener("click", () => verify(db));
  $("corrupt").addEventListener("click", async () => {
    const keys = await corrupt(name, 3);
    if (keys.length === 0) return log("Nothing is synced yet, so there is nothing to damage.");
    log("💥 Damaged on disk: ", ...codes(keys));
    await verify(db);
  });
}

/** Keeps the page's own files, so that it can be reloaded while the server is away. */
async function keepPage() {
  if (!("serviceWorker" in navigator)) return;
  await navigator.serviceWorker.register("sw.js");
  const loaded = performance.getEntriesByType("resource").map(entry => new URL(entry.name));
  const files = loaded.filter(url => url.origin === location.origin && !url.pathname.includes("SyncService"));
  const cache = await caches.open("page");
  await cache.addAll([location.pathname, ...new Set(files.map(url => url.href))]);
  await navigator.serviceWorker.ready;
  document.body.dataset.kept = "true";
}

let unhealed = null; // the database whose damage waits for the server

async function verify(db) {
  $("verify").disabled = true;
  try {
    const { healedRanges, rounds, checked, damaged } = await db.verify();
    unhealed = null;
    if (damaged > 0) log(`🔎 Hashed ${count(checked, "record")}: ${damaged} did not match.`);
    if (healedRanges.length > 0) {
      log(`🩹 Healed in ${count(rounds, "round trip")}: `, ...codes(healedRanges));
    }
    log(`✅ Same fingerprint as the server: ${count(checked, "record")}.`);
  } catch (error) {
    if (error.code === "offline") {
      unhealed = db;
      log("⏳ Offline: what is damaged is healed as soon as the server is back.");
    } else {
      log(`⚠️ ${error.message}`);
    }
  } finally {
    $("verify").disabled = false;
  }
}

function showStatus(status) {
  $("status").dataset.state = status.state;
  $("state").textContent = WORDS[status.state] ?? status.state;
  $("state").title = status.detail ?? "";
  show($("pending"), status.pending > 0, `${status.pending} pending`);
  show($("rejected"), status.rejected > 0, `${status.rejected} refused`);
  show($("verified"), status.verified && status.state === "online", "✓ Verified");
  const { progress } = status;
  $("progress").hidden = !progress;
  if (progress) Object.assign($("progress"), { max: progress.total || 1, value: progress.done });
  if (status.evicted) notice("This browser had thrown the local data away; what was synced is being fetched again.");
  if (unhealed && status.state === "online") {
    const db = unhealed;
    unhealed = null;
    verify(db);
  }
}

/** Ids in the order of their making, which is the order in which rows come. */
function newId() {
  const random = crypto.getRandomValues(new Uint32Array(1))[0];
  return Date.now().toString(36) + random.toString(36).slice(-4).padStart(4, "0");
}

const items = new Map(); // todo id -> its list item

function showTodos(todos, rows) {
  const present = new Set(rows.map(row => row.$id));
  for (const [id, item] of items) {
    if (!present.has(id)) {
      item.remove();
      items.delete(id);
    }
  }
  rows.forEach((row, i) => {
    let item = items.get(row.$id);
    if (!item) items.set(row.$id, (item = newItem(todos, row.$id)));
    const [tick, text] = item.querySelectorAll("input");
    tick.checked = Boolean(row.done);
    tick.nextElementSibling.textContent = `Done: ${row.title}`;
    if (document.activeElement !== text) text.value = row.title ?? "";
    text.dataset.saved = row.title ?? "";
    item.classList.toggle("done", Boolean(row.done));
    item.querySelector(".waiting").hidden = !row.$pending;
    item.querySelector(".delete").setAttribute("aria-label", `Delete ${row.title}`);
    if ($("todos").children[i] !== item) $("todos").insertBefore(item, $("todos").children[i] ?? null);
  });
  $("empty").hidden = rows.length > 0;
  const open = rows.filter(row => !row.done).length;
  $("left").textContent = rows.length ? `${open} of ${rows.length} left` : "";
  document.body.dataset.ready = "true";
}

function newItem(todos, id) {
  const item = $("todo").content.firstElementChild.cloneNode(true);
  item.dataset.id = id;
  const [tick, text] = item.querySelectorAll("input");
  tick.addEventListener("change", () => report(todos.patch(id, { done: tick.checked })));
  text.addEventListener("change", () => {
    const title = text.value.trim();
    if (title) report(todos.patch(id, { title }));
    else text.value = text.dataset.saved;
  });
  text.addEventListener("keydown", event => {
    if (event.key === "Escape") text.value = text.dataset.saved;
    if (event.key === "Enter" || event.key === "Escape") text.blur();
  });
  item.querySelector(".delete").addEventListener("click", () => report(todos.delete(id)));
  return item;
}

/** Shows when a write could not be kept, or was refused. */
function report(write) {
  write.local.catch(error => notice(`Not saved: ${error.message}`));
  write.server.then(
    ({ status, reason, detail }) => {
      if (status === "rejected") notice(`The server refused a change (${reason}): ${detail}`);
    },
    () => undefined, // the line above tells
  );
}

function log(...parts) {
  const line = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString();
  const text = document.createElement("span");
  text.append(...parts);
  line.append(time, text);
  $("log").prepend(line);
  while ($("log").children.length > 12) $("log").lastChild.remove();
}

function codes(texts) {
  return texts.slice(0, 3).flatMap((text, i) => {
    const code = document.createElement("code");
    code.textContent = text;
    return i ? [", ", code] : [code];
  }).concat(texts.length > 3 ? [` and ${texts.length - 3} more`] : []);
}

function count(n, what) {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}

function notice(text) {
  show($("notice"), true, text);
}

function show(element, visible, text) {
  element.hidden = !visible;
  if (visible) element.textContent = text;
}
