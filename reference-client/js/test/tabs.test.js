import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { Tabs } from "../dist/tabs.js";

/** Web Locks as the specification has them, for one lock mode. */
class Locks {
  #held = new Map(); // name -> the holder's reject
  #waiting = [];

  request(name, { signal, steal }, work) {
    return new Promise((resolve, reject) => {
      const claim = { name, work, resolve, reject };
      signal?.addEventListener("abort", () => {
        const at = this.#waiting.indexOf(claim);
        if (at >= 0) this.#waiting.splice(at, 1);
        if (at >= 0) reject(signal.reason);
      });
      if (steal) {
        this.#held.get(name)?.reject(new DOMException("stolen", "AbortError"));
        this.#held.delete(name);
        this.#waiting.unshift(claim);
      } else {
        this.#waiting.push(claim);
      }
      queueMicrotask(() => this.#grant(name));
    });
  }

  #grant(name) {
    if (this.#held.has(name)) return;
    const at = this.#waiting.findIndex(claim => claim.name === name);
    if (at < 0) return;
    const [claim] = this.#waiting.splice(at, 1);
    this.#held.set(name, claim);
    claim.work().then(claim.resolve, claim.reject).finally(() => {
      if (this.#held.get(name) === claim) this.#held.delete(name);
      this.#grant(name);
    });
  }
}

let open = [];
let names = 0;

function tab(name, poll = () => {}) {
  const led = [];
  const tabs = new Tabs(name, lead => led.push(lead), poll);
  tabs.start();
  open.push(tabs);
  return { tabs, led };
}

/** Lets messages between tabs and microtasks pass. */
async function settle() {
  for (let i = 0; i < 5; i++) await new Promise(setImmediate);
}

function withLocks(locks) {
  Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
}

let name;
const { BroadcastChannel } = globalThis;

beforeEach(() => {
  name = `tabs-${++names}`;
  withLocks(new Locks());
});

afterEach(() => {
  for (const tabs of open) tabs.close();
  open = [];
  globalThis.BroadcastChannel = BroadcastChannel;
  mock.timers.reset();
});

test("one of several tabs leads, and the next takes over when it closes", async () => {
  const [first, second, third] = [tab(name), tab(name), tab(name)];
  await settle();
  assert.deepEqual([first, second, third].map(t => t.tabs.leading), [true, false, false]);
  first.tabs.close();
  await settle();
  assert.deepEqual([second, third].map(t => t.tabs.leading), [true, false]);
  assert.deepEqual(second.led, [true]);
});

test("a tab that closes while it waits never leads", async () => {
  const [first, second] = [tab(name), tab(name)];
  await settle();
  second.tabs.close();
  first.tabs.close();
  await settle();
  assert.deepEqual(second.led, []);
});

test("tabs of different stores do not compete", async () => {
  const [first, second] = [tab(name), tab(`${name}-other`)];
  await settle();
  assert.ok(first.tabs.leading && second.tabs.leading);
});

test("a message reaches every other tab of the store", async () => {
  const [first, second, other] = [tab(name), tab(name), tab(`${name}-other`)];
  const heard = [];
  for (const t of [first, second, other]) t.tabs.messages.add(message => heard.push([t, message]));
  first.tabs.send({ type: "here" });
  await settle();
  assert.deepEqual(heard, [[second, { type: "here" }]]);
});

test("an awake leader keeps its lock when it is asked for", async () => {
  const [first, second] = [tab(name), tab(name)];
  await settle();
  mock.timers.enable({ apis: ["setTimeout"] });
  second.tabs.expectLeader();
  await settle();
  mock.timers.tick(60_000);
  await settle();
  assert.deepEqual([first, second].map(t => t.tabs.leading), [true, false]);
});

test("a leader that does not answer loses its lock to the tab that needs one", async () => {
  const [first, second] = [tab(name), tab(name)];
  await settle();
  first.tabs.send = () => {}; // frozen: it says nothing
  mock.timers.enable({ apis: ["setTimeout"] });
  second.tabs.expectLeader();
  await settle();
  assert.equal(second.tabs.leading, false);
  mock.timers.tick(60_000);
  await settle();
  assert.deepEqual([first, second].map(t => t.tabs.leading), [false, true]);

  second.tabs.close();
  await settle();
  assert.equal(first.tabs.leading, true, "it stands again when the other one goes");
});

test("without Web Locks every tab leads", async () => {
  withLocks(undefined);
  const [first, second] = [tab(name), tab(name)];
  await settle();
  assert.ok(first.tabs.leading && second.tabs.leading);
});

test("without BroadcastChannel tabs look for changes from time to time", async () => {
  globalThis.BroadcastChannel = undefined;
  mock.timers.enable({ apis: ["setInterval"] });
  let looked = 0;
  const { tabs } = tab(name, () => looked++);
  mock.timers.tick(3_000);
  assert.equal(looked, 3);
  tabs.close();
  mock.timers.tick(3_000);
  assert.equal(looked, 3);
});
