// One opening of a store: the client, whether it may use the network, and the other openings that hear of what it does.
// Knows no command's encoding.

import { base64, bytes, hex, unhex } from "./encoding.mjs";

let unnamed = 0;

export class Opening {
  /** The name of the store. */
  store;

  #replica;
  #pluggedIn = true;
  #watching = false;
  #siblings = new Set();
  /** How many times the status was told, and who waits for the next time. */
  #told = 0;
  #waiting = [];

  /** Opens the store; the network stays unused. */
  static async open(Replica, { store = "", url, space, tokens = [], keyPrefixes = [] }) {
    const opening = new Opening();
    // One that is in memory is one that nobody else can name.
    opening.store = store === "" ? `in memory ${++unnamed}` : `named ${store}`;
    const prefixes = keyPrefixes.map(prefix => bytes(prefix));
    opening.#replica = await Replica.open(
      opening.store,
      url,
      space,
      tokens.length > 0 ? inTurn(tokens) : undefined,
      (kind, _said, news) => opening.#hear(kind, news),
      prefixes.length > 0 ? prefixes : undefined,
    );
    return opening;
  }

  /** From now on both hear of what happens at the other. */
  pairWith(sibling) {
    this.#siblings.add(sibling);
    sibling.#siblings.add(this);
  }

  /** Writes records as one: each a key and a value, without which it deletes. */
  write(changes) {
    return durable(this.#replica.writeRecords(changes));
  }

  editDocument(change) {
    return durable(this.#replica.write(JSON.stringify([change])));
  }

  /** The document of that id, or, without one, all of the collection. */
  async documents({ collection = "", id }) {
    if (id === undefined) return JSON.parse(await this.#replica.list(collection, ""));
    const found = await this.#replica.get(collection, id);
    return found === undefined ? [] : [JSON.parse(found)];
  }

  /** One session; the network is used for no longer unless it is watching. */
  sync(timeoutMs) {
    return this.#onlineFor(timeoutMs, over => this.#finishSync(over));
  }

  /** Looks at everything stored again, and heals what is damaged. */
  verify(timeoutMs) {
    return this.#onlineFor(timeoutMs, over => this.#finishVerification(over));
  }

  /** Syncs live from now on. */
  watch() {
    this.#watching = true;
    this.#replica.setNetworking(this.#pluggedIn);
  }

  /** Waits until it is live and nothing waits. */
  idle(timeoutMs) {
    return this.#within(timeoutMs, over => this.#settled(over));
  }

  /** Plugs the network in or out. */
  async setOnline(online) {
    this.#pluggedIn = online;
    if (online) this.#replica.setNetworking(this.#watching);
    else await this.#unplug();
  }

  /** Everything that the application can see. */
  async contents() {
    const [records, pending, quarantined] = await Promise.all([
      this.#replica.records(new Uint8Array()),
      this.#pending(),
      this.#replica.quarantined(),
    ]);
    return {
      entries: records.map(({ key, value, time, writer }) => ({
        key: base64(key),
        value: base64(value),
        time: String(time),
        writer: String(writer),
      })),
      pending: pending.map(({ key, deletes, state, reason, inDoubt }) => ({
        key: base64(unhex(key)),
        tombstone: deletes,
        rejected: state === "rejected" ? reason : "",
        inDoubt,
      })),
      quarantined: String(quarantined.length),
      verified: this.#status().verified,
    };
  }

  /** Spoils the stored bytes under a key. */
  damage(key) {
    return this.#replica.damage(key);
  }

  /** Gives up every unsent or refused write of a key. */
  async discard(key) {
    for (const { id } of await this.#writesOf(key)) await this.#replica.discard(id);
  }

  /** Has the refused writes of a key sent again. */
  async retry(key) {
    for (const { id } of await this.#writesOf(key)) await this.#replica.retry(id);
  }

  async #writesOf(key) {
    const name = hex(key);
    const writes = (await this.#pending()).filter(write => write.key === name);
    if (writes.length === 0) throw new Error("no write of that key is pending");
    return writes;
  }

  /** Closes it; what waits stays in the store. */
  async close() {
    for (const sibling of this.#siblings) sibling.#siblings.delete(this);
    await this.#replica.close(false);
    this.#replica.free();
  }

  async #onlineFor(timeoutMs, work) {
    if (!this.#pluggedIn) return { syncError: { kind: "KIND_RETRYABLE", detail: "the network is cut" } };
    this.#replica.setNetworking(true);
    const result = await this.#within(timeoutMs, work);
    if (!this.#watching) await this.#unplug();
    return result;
  }

  /**
   * Uses the network no more. The client does what it is told one after the other: once it has refused to sync, it has
   * stopped to.
   */
  async #unplug() {
    this.#replica.setNetworking(false);
    await this.#replica.sync().catch(() => {});
  }

  async #finishVerification(over) {
    // What was found before the network came has to be compared as well.
    const synced = await this.#finishSync(over);
    if (synced?.done === undefined) return synced;
    try {
      await this.#replica.verify();
      return { done: {} };
    } catch (error) {
      return failure(this.#status(), error.message);
    }
  }

  #status() {
    return JSON.parse(this.#replica.status());
  }

  async #pending() {
    return JSON.parse(await this.#replica.pending());
  }

  /** Whether a write waits for its verdict. */
  async #waits() {
    return (await this.#pending()).some(({ state }) => state !== "rejected");
  }

  #hear(kind, news) {
    if (news !== undefined) for (const sibling of this.#siblings) sibling.#replica.hear(news);
    if (kind !== "status") return;
    this.#told += 1;
    for (const wake of this.#waiting.splice(0)) wake(this.#told);
  }

  /** Resolves once the status was told more than `seen` times, with how many. */
  #statusAfter(seen) {
    if (this.#told > seen) return this.#told;
    return new Promise(resolve => this.#waiting.push(resolve));
  }

  /** Asks for a session; where that one fails, the client tries again by itself until it succeeds or gives up. */
  async #finishSync(over) {
    try {
      await this.#replica.sync();
      return { done: {} };
    } catch (error) {
      const status = this.#status();
      return givesUp(status) ? failure(status, error.message) : this.#settled(over);
    }
  }

  /** Resolves when the client is live and its store holds nothing that the server has to get. */
  async #settled(over) {
    for (let seen = this.#told; !over.aborted; seen = await this.#statusAfter(seen)) {
      const status = this.#status();
      // The store knows of a write before the status does.
      if (status.state === "online" && status.pending === 0 && !(await this.#waits())) return { done: {} };
      if (givesUp(status)) return failure(status, "the client gave up");
    }
  }

  /** What `wait` comes to, or where the client stands when the time is over; `wait` is told that by a signal. */
  async #within(timeoutMs, wait) {
    const over = new AbortController();
    let timer;
    const overdue = new Promise(resolve => {
      timer = setTimeout(() => resolve(failure(this.#status(), "the time is over")), timeoutMs);
    });
    try {
      return await Promise.race([wait(over.signal), overdue]);
    } finally {
      over.abort();
      clearTimeout(timer);
    }
  }
}

/** Resolves when the write is durable; nobody asks for its verdict here. */
async function durable(write) {
  const { server } = await write;
  server.catch(() => {}); // an opening that is closed first gives none
}

/** Hands out one token after the other. */
function inTurn(tokens) {
  const left = [...tokens];
  let current;
  return refused => {
    if (refused || current === undefined) current = left.shift();
    return current;
  };
}

function givesUp({ state, stopped }) {
  return stopped || state === "needs-auth" || state === "upgrade-required";
}

function failure(status, detail) {
  let kind = "KIND_RETRYABLE";
  if (status.state === "needs-auth") kind = "KIND_NEEDS_AUTH";
  if (status.stopped || status.state === "upgrade-required") kind = "KIND_STOPPED";
  const syncError = { kind, reason: status.reason ?? "", detail };
  if (status.detail !== null) syncError.detail += `: ${status.detail}`;
  return { syncError };
}
