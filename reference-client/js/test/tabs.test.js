import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { Tabs } from "../dist/tabs.js";
import { Locks, withLocks } from "./locks.js";

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

test("without Web Locks, or without BroadcastChannel to ask a leader, every tab leads", async () => {
  assert.ok(!tab(name).tabs.unelected);
  withLocks(undefined);
  const [first, second] = [tab(`${name}-a`), tab(`${name}-a`)];
  withLocks(new Locks());
  globalThis.BroadcastChannel = undefined;
  const [third, fourth] = [tab(`${name}-b`), tab(`${name}-b`)];
  await settle();
  for (const { tabs } of [first, second, third, fourth]) assert.ok(tabs.leading && tabs.unelected);
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
