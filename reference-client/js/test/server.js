// The server's program as a process of its own, for tests: started, killed and started again on one port and one
// database. `cargo xtask test` says by the variable GOSYNC_SERVER where the program is.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

const run = promisify(execFile);

/** No step of a test may take longer. */
export const PATIENCE_MS = 30_000;

/** What `cargo xtask test` says by a variable. */
export function variable(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run these tests with \`cargo xtask test\``);
  return value;
}

/** A folder of its own that goes away with the test, after `stop` has ended what uses it. */
export async function folder(t, stop = async () => undefined) {
  const path = await mkdtemp(join(tmpdir(), "gosync-"));
  t.after(async () => {
    await stop();
    await rm(path, { recursive: true, force: true, maxRetries: 10 });
  });
  return path;
}

export class Server {
  #args;
  #child;
  #port;

  constructor(port, place, args) {
    this.#port = port;
    this.#args = args;
    this.url = `http://127.0.0.1:${port}`;
    this.database = join(place, "gosync.db");
    this.tokens = join(place, "tokens.toml");
  }

  /** Starts one that ends with the test; `args` are further ones of `serve`. */
  static async create(t, ...args) {
    const place = await folder(t, () => server.kill());
    const server = new this(await freePort(), place, args);
    await server.start();
    return server;
  }

  /** Resolves when it takes calls. Other arguments than before, where some are given. */
  async start(...args) {
    if (args.length > 0) this.#args = args;
    const child = spawn(
      variable("GOSYNC_SERVER"),
      [
        ["serve", "--listen", `127.0.0.1:${this.#port}`],
        ["--db", `sqlite:${this.database}`],
        // A server that dies is noticed within a second rather than within 45.
        ["--set", "limits.heartbeat_interval_ms=200", "--set", "limits.watchdog_ms=1000"],
        ["--log", "warn"],
        this.#args,
      ].flat(),
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    this.#child = child;
    const lines = createInterface({ input: child.stdout });
    await within("the server listens", async signal => {
      for await (const line of lines) {
        if (line.startsWith("listening on ")) return;
        signal.throwIfAborted();
      }
      throw new Error("the server ended before it listened");
    });
    lines.close();
    child.stdout.resume();
  }

  /** Ends it as a power cut would: with SIGKILL. */
  async kill() {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  }

  /** Removes the database with everything in it; the server must be down. */
  async deleteDatabase() {
    for (const suffix of ["", "-wal", "-shm"]) await rm(this.database + suffix, { force: true });
  }

  /** What another command of the program says of its database, also while it runs. */
  async ask(command, ...args) {
    return (await run(variable("GOSYNC_SERVER"), [command, "--db", `sqlite:${this.database}`, ...args])).stdout;
  }

  /** A new token for the space `test`, in the file `tokens`. */
  async mint(name, access = "write") {
    const args = ["token", "mint", "--tokens", this.tokens, "--name", name, "--space", "test", "--access", access];
    return (await run(variable("GOSYNC_SERVER"), args)).stdout.trim();
  }

  /** Takes the tokens of that name back. */
  async revoke(name) {
    await run(variable("GOSYNC_SERVER"), ["token", "revoke", "--tokens", this.tokens, "--name", name]);
  }
}

/** One device's way to a server, which can be cut. */
export class Link {
  #target;
  #sockets = new Set();
  #cut = false;

  constructor(target) {
    this.#target = new URL(target).port;
  }

  static async to(t, server) {
    const link = new Link(server.url);
    const listener = createServer(near => link.#carry(near)).listen(0, "127.0.0.1");
    await once(listener, "listening");
    t.after(() => {
      link.cut();
      listener.close();
    });
    link.url = `http://127.0.0.1:${listener.address().port}`;
    return link;
  }

  cut() {
    this.#cut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend() {
    this.#cut = false;
  }

  #carry(near) {
    if (this.#cut) return near.destroy();
    const far = connect(this.#target, "127.0.0.1");
    for (const [socket, other] of [[near, far], [far, near]]) {
      this.#sockets.add(socket);
      socket.on("error", () => undefined); // its close tells
      socket.on("close", () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  }
}

/** What `work` resolves with; it is told by a signal when the time is over. */
export async function within(what, work) {
  const abort = new AbortController();
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`not within ${PATIENCE_MS} ms: ${what}`));
      abort.abort();
    }, PATIENCE_MS);
  });
  try {
    return await Promise.race([work(abort.signal), late]);
  } finally {
    clearTimeout(timer);
  }
}

async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  await once(probe, "close");
  return port;
}
