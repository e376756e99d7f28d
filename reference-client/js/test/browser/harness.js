// Real processes for the browser tests: the server's program and Chromium profiles. Programs and the page's files are
// found by variables that `cargo xtask test` sets: GOSYNC_SERVER, GOSYNC_SITE, CHROME.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

/** No step of a test may take longer. */
export const PATIENCE_MS = 30_000;

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

function variable(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run these tests with \`cargo xtask test --only browser\``);
  return value;
}

/** A folder of its own that goes away with the test, after `stop` has ended what uses it. */
async function folder(t, stop) {
  const path = await mkdtemp(join(tmpdir(), "gosync-"));
  t.after(async () => {
    await stop();
    await rm(path, { recursive: true, force: true, maxRetries: 10 });
  });
  return path;
}

/** The server's program on one port and one database file, to be started, killed and started again. */
export class Server {
  #child;

  constructor(port, database) {
    this.database = database;
    this.url = `http://127.0.0.1:${port}`;
    this.#port = port;
  }
  #port;

  static async create(t) {
    const server = new Server(await freePort(), join(await folder(t, () => server.kill()), "gosync.db"));
    await server.start();
    return server;
  }

  /** Resolves when it takes calls. */
  async start() {
    const child = spawn(
      variable("GOSYNC_SERVER"),
      [
        ["serve", "--listen", `127.0.0.1:${this.#port}`],
        ["--db", `sqlite:${this.database}`],
        ["--static", variable("GOSYNC_SITE")],
        // A server that dies is noticed within a second rather than within 45.
        ["--set", "limits.heartbeat_interval_ms=200", "--set", "limits.watchdog_ms=1000"],
        ["--log", "warn"],
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
}

/** A folder for a browser's profile, for tests that open it several times. */
export function profile(t) {
  return folder(t, async () => undefined);
}

/** A browser with a profile of its own, as another person would have; or with the given one. */
export async function browser(t, place) {
  place ??= await folder(t, () => context.close());
  const context = await chromium.launchPersistentContext(place, {
    executablePath: variable("CHROME"),
    headless: true,
    args: FLAGS,
  });
  context.setDefaultTimeout(PATIENCE_MS);
  return context;
}

/** The demo's page in a tab, with the words a test needs. */
export class Page {
  constructor(tab) {
    this.tab = tab;
  }

  static async open(context, url) {
    const tab = await context.newPage();
    tab.on("pageerror", error => console.error("page:", error));
    tab.on("console", message => {
      if (message.type() === "error" && !message.text().includes("ERR_")) console.error("page:", message.text());
    });
    const page = new Page(tab);
    await tab.goto(url);
    await page.ready();
    return page;
  }

  /** The list was read from the store. */
  async ready() {
    await this.tab.locator("body[data-ready=true]").waitFor();
  }

  /** The page can be reloaded without its server. */
  async kept() {
    await this.tab.locator("body[data-kept=true]").waitFor();
  }

  async reload() {
    await this.tab.reload();
    await this.ready();
  }

  async add(...titles) {
    for (const title of titles) {
      await this.tab.getByPlaceholder("What needs to be done?").fill(title);
      await this.tab.getByRole("button", { name: "Add" }).click();
      await this.item(title).waitFor();
    }
  }

  item(title) {
    return this.tab.locator("#todos li", { has: this.tab.locator(`.delete[aria-label="Delete ${title}"]`) });
  }

  async tick(title) {
    await this.item(title).getByRole("checkbox").click();
  }

  async edit(title, to) {
    const text = this.item(title).locator(".text");
    await text.fill(to);
    await text.press("Enter");
    await this.item(to).waitFor();
  }

  async delete(title) {
    await this.item(title).locator(".delete").click();
    await this.item(title).waitFor({ state: "detached" });
  }

  /** The list as `[ ] Milk` and `[x] Bread`, in its order. */
  todos() {
    return this.tab.evaluate(() =>
      [...document.querySelectorAll("#todos li")].map(item => {
        const [tick, text] = item.querySelectorAll("input");
        return `[${tick.checked ? "x" : " "}] ${text.value}`;
      }),
    );
  }

  /** Waits until the list reads like this. */
  async shows(...wanted) {
    await this.until("the list", () => this.todos(), found => String(found) === String(wanted), wanted);
  }

  /** Waits until the status pill says so: online, offline, … */
  async is(state) {
    await this.tab.locator(`#status[data-state=${state}]`).waitFor();
  }

  /** Waits until this many writes are pending. */
  async pending(count) {
    const read = async () => {
      const pill = this.tab.locator("#pending");
      return (await pill.isVisible()) ? Number.parseInt(await pill.textContent()) : 0;
    };
    await this.until("pending writes", read, found => found === count, count);
  }

  /** Waits until this device knows that it holds what the server holds. */
  async verified() {
    await this.tab.locator("#verified").waitFor({ state: "visible" });
  }

  /** What the page told, newest first. */
  log() {
    return this.tab.locator("#log li span").allTextContents();
  }

  /** Waits until some line of the log matches. */
  async logs(pattern) {
    await this.until("the log", () => this.log(), lines => lines.some(line => pattern.test(line)), pattern);
  }

  async until(what, read, done, wanted) {
    const end = Date.now() + PATIENCE_MS;
    let found = await read();
    while (!done(found)) {
      if (Date.now() > end) throw new Error(`${what}: wanted ${wanted}, found ${found}`);
      await this.tab.evaluate(() => new Promise(requestAnimationFrame));
      found = await read();
    }
  }
}

async function within(what, work) {
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
