// Web Locks as their specification has them, for one lock mode: Node 20 has none.

export class Locks {
  #held = new Map(); // name -> the holder's claim
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

/** What `navigator` has from now on. */
export function withLocks(locks) {
  Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
}
